"""The progress bar in a terminal; a line an epoch in the log, and where there is no terminal."""

import logging
import sys
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

log = logging.getLogger(__name__)

BAR: Final = {"train/loss": "loss", "val/mean_iou": "val mIoU"}
LINE: Final = {
    "train/loss": "loss",
    "val/loss": "val loss",
    "val/mean_iou": "val mean IoU",
    "train/images_per_second": "images/s",
}


class Progress(RichProgressBar):
    """Rich's bar with loss and val mean IoU; each epoch leaves a line, in the log too."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=4)
        if not sys.stdout.isatty():
            self.disable()
        self._shown: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives a process that was spawned for the training the log of the one that spawned it."""
        super().on_train_start(trainer, pl_module)
        root = logging.getLogger("segpets")
        if trainer.world_size > 1 and trainer.is_global_zero and not root.hasHandlers():
            root.setLevel(logging.DEBUG)
            console = logging.StreamHandler(sys.stdout)
            console.setLevel(logging.INFO)
            root.addHandler(console)
            file = logging.FileHandler(Path(trainer.default_root_dir) / "train.log")
            for logger in (root, logging.getLogger("py.warnings")):
                logger.addHandler(file)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Shows short names, so that they fit beside the bar.

        Values are read as often as they are logged, as reading them waits for the device.
        """
        every: int = getattr(trainer, "log_every_n_steps")  # noqa: B009
        due = every > 0 and trainer.global_step % every == 0
        if due or not trainer.training or trainer.is_last_batch:
            metrics = trainer.callback_metrics
            self._shown |= {w: metrics[name].item() for name, w in BAR.items() if name in metrics}
        return self._shown

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's line; above the bar where there is one."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        shown = {word: metrics[name].item() for name, word in LINE.items() if name in metrics}
        values = ", ".join(f"{word} {value:.4g}" for word, value in shown.items())
        line = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {values}"
        if self.is_enabled and self.progress is not None:
            self.progress.console.print(line, highlight=False)
            log.debug(line)  # to the file only
        else:
            log.info(line)

    def _get_train_description(self, current_epoch: int) -> str:
        """Counts epochs from one, as the lines do."""
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"
