"""An exponential moving average of the weights."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class _Average(AveragedModel):
    """Averages that follow weights, without reading from the device how many steps there were.

    Attributes:
        steps: As many as `n_averaged`.
    """

    def __init__(self, model: nn.Module, decay: float, device: torch.device) -> None:
        super().__init__(model, device, use_buffers=True)
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the averages towards the weights, and BatchNorm's counts of batches to its."""
        d = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        pairs = [*zip(_tensors(self.module), _tensors(model), strict=True)]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        others = [pair for pair in pairs if not pair[0].is_floating_point()]
        if d:
            torch._foreach_lerp_([a for a, _ in floats], [w for _, w in floats], 1 - d)
        else:
            others = pairs
        if others:
            torch._foreach_copy_([a for a, _ in others], [w for _, w in others])
        self.steps += 1
        self.n_averaged.fill_(self.steps)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [one.detach() for one in (*module.parameters(), *module.buffers())]


class EMA(WeightAveraging):
    """Validates, saves and tests averaged weights, while the training goes on with its own.

    After step n, average = d * average + (1 - d) * weights with d = min(decay, (1 + n) / (10 + n)),
    so that a short run isn't held back by its first weights. BatchNorm's statistics are averaged
    like weights. A checkpoint's `state_dict` holds the average.

    Args:
        decay: The largest d. 1 / (1 - decay) steps are about what the average remembers.
    """

    def __init__(self, *, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"callback.ema.decay is {decay}: choose 0 <= decay < 1")

        super().__init__()
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts an average for a training; for a test, the loaded weights are the average."""
        self._average_model = None
        if stage == "fit":  # the weights aren't on the device yet, but its name is known
            self._average_model = _Average(pl_module, self.decay, pl_module.device)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Puts the training's own weights back when a signal ends a validation."""
        if isinstance(exception, SIGTERMException) and trainer.validating and self._average_model:
            self._swap_models(pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the average and the training's own weights, when a training goes on.

        Lightning's callback would put the training's own weights in the place of the average in a
        test after a training, too.
        """
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
            assert isinstance(self._average_model, _Average)
            self._average_model.steps = int(self._average_model.n_averaged)
