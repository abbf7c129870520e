"""The progress bar in a terminal; a line an epoch in the log, and where there is no terminal."""

import logging
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

log = logging.getLogger(__name__)


class Progress(RichProgressBar):
    """Rich's bar with loss and val mean IoU; each epoch's results go to the log, too."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        if not sys.stdout.isatty():
            self.disable()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leaves the version number out of the bar."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's line."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        shown = {
            "loss": "train/loss",
            "val loss": "val/loss",
            "val mean IoU": "val/mean_iou",
            "images/s": "train/images_per_second",
        }
        found = trainer.callback_metrics
        values = [f"{word} {found[key].item():.4g}" for word, key in shown.items() if key in found]
        log.info(
            "epoch %d of %s: %s", trainer.current_epoch + 1, trainer.max_epochs, ", ".join(values)
        )
