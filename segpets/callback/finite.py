"""Stops a run whose loss is no number any more."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.errors import UserError


class StopOnNaN(Callback):
    """Stops at the first step whose loss is NaN or infinite, before a checkpoint is written.

    On an accelerator, reading the loss waits for the device; there it is read every
    `every_n_steps` steps and before each validation.

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
        if not (on_cpu or due) or torch.isfinite(outputs["loss"]):
            return
        raise UserError(
            f"the loss is {outputs['loss'].item()} at step {trainer.global_step} (epoch "
            f"{trainer.current_epoch + 1}). Try a lower optimizer.lr, "
            "trainer.gradient_clip_val=1, trainer.precision=32-true, or another loss. The "
            "checkpoints of the epochs before are kept"
        )
