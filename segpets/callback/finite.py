"""Stops a run whose loss is no number any more."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segpets.errors import UserError


class StopOnNaN(Callback):
    """Stops at the first step whose loss is NaN or infinite, before a checkpoint is written.

    On an accelerator, reading the loss waits for the device; there it is read every
    `every_n_steps` steps. The loss of each validation is looked at, too, since a step can ruin the
    weights whose own loss was still a number.

    Args:
        every_n_steps: How often the loss is read on an accelerator.
    """

    def __init__(self, *, every_n_steps: int = 20) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reads the loss."""
        on_cpu = pl_module.device.type == "cpu"
        due = trainer.global_step % self.every_n_steps == 0 or trainer.is_last_batch
        if on_cpu or due:
            self._look(outputs["loss"], "the loss", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the loss of the validation."""
        if "val/loss" in trainer.callback_metrics and not trainer.sanity_checking:
            self._look(trainer.callback_metrics["val/loss"], "the validation's loss", trainer)

    def _look(self, loss: Tensor, name: str, trainer: Trainer) -> None:
        if torch.isfinite(loss):
            return
        raise UserError(
            f"{name} is {loss.item()} at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch + 1}). Try a lower optimizer.lr, "
            "trainer.gradient_clip_val=1, trainer.precision=32-true, or another loss. The "
            "checkpoints of the epochs before are kept"
        )
