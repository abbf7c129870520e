"""The layout of TensorBoard's CUSTOM SCALARS tab, the same for all runs."""

from typing import Final

from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.callback.tensorboard import writer_of

LAYOUT: Final = {
    "segpets": {
        "loss": ["Multiline", ["^train/loss$", "^val/loss$"]],
        "mean IoU": ["Multiline", ["^train/mean_iou$", "^val/mean_iou$"]],
        "IoU of each class": ["Multiline", ["^val/iou/"]],
    }
}
"""Charts, and regular expressions of the scalars in them. No class is named, so TensorBoard, which
merges the layouts of all runs, shows each chart once for runs of different data, too."""


class ScalarLayout(Callback):
    """Puts training beside validation, and the classes side by side, in one chart each."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the layout, before anything else, so that it is there while a run goes on."""
        if writer := writer_of(trainer):
            writer.add_custom_scalars(LAYOUT)
