"""An exponential moving average of the weights."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor


class _Average:
    """The rule by which averages follow weights; a class, since processes are spawned with it."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = int(count)
        d = min(self.decay, (1 + n) / (10 + n))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - d)
        else:  # BatchNorm's counts of batches
            torch._foreach_copy_(averaged, current)


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

        super().__init__(multi_avg_fn=_Average(decay))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts an average for a training; for a test, the loaded weights are the average."""
        self._average_model = None
        super().setup(trainer, pl_module, stage)

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
