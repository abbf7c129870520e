"""The speed of a training."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Throughput(Callback):
    """Logs `train/images_per_second` of each epoch, or of what was trained of it.

    The clock runs from the first training batch to the last one, data included, validations
    excluded. Images of all processes count.
    """

    def __init__(self) -> None:
        self._seconds, self._since, self._images = 0.0, 0.0, 0
        self._runs = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock for what is left of an epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._seconds, self._since, self._images = 0.0, time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts images."""
        self._images += len(batch["image"]) * trainer.world_size
        self._runs = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock."""
        self._stop(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock again."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        self._stop(pl_module)
        if self._seconds > 0:
            speed = self._images / self._seconds
            pl_module.log("train/images_per_second", speed, rank_zero_only=True)

    def _stop(self, pl_module: LightningModule) -> None:
        if self._runs:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self._seconds += time.perf_counter() - self._since
        self._runs = False
