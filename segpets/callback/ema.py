"""An exponential moving average of the weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


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

        def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
            n = int(count)
            d = min(decay, (1 + n) / (10 + n))
            if not averaged.is_floating_point():  # BatchNorm's count of batches
                return current.clone()
            return averaged.lerp(current.to(averaged.dtype), 1 - d)

        super().__init__(avg_fn=average)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Starts an average for a training; for a test, the loaded weights are the average."""
        self._average_model = None
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the average and the training's own weights, when a training goes on.

        Lightning's callback would put the training's own weights in the place of the average in a
        test after a training, too.
        """
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
