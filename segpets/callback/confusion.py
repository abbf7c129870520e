"""The confusion matrix as a figure in TensorBoard, and after the test as PNG."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.callback.tensorboard import writer_of
from segpets.report.figure import confusion_figure


class ConfusionMatrixFigure(Callback):
    """Draws the confusion matrix of the last validation of a training, and of a test.

    Args:
        folder: Where `confusion_<stage>.png` goes.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws that of val."""
        self._draw(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws that of test."""
        self._draw(trainer, pl_module, "test")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        confusion = pl_module.confusion(stage)  # type: ignore[operator]
        if not trainer.is_global_zero or not confusion.any():
            return
        figure = confusion_figure(confusion, pl_module.classes)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"confusion_{stage}.png")
        if writer := writer_of(trainer):
            step = trainer.global_step - (stage == "val")  # as its metrics
            writer.add_figure(f"{stage}/confusion", figure, step)
