"""Predictions of the images that a fold wasn't trained on; all folds together have each image."""

import csv
import logging
import math
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from segpets.callback.rows import gathered
from segpets.data import SegmentationDataModule
from segpets.labels import IGNORE_INDEX, Batch
from segpets.metric import confusion_matrices, scores
from segpets.module import SegmentationModule
from segpets.reading import csv_cell
from segpets.run.directory import Run
from segpets.run.files import OUT_OF_FOLD, shown

log = logging.getLogger("segpets.train")

COLUMNS: Final = ("name", "mean_iou", "pixel_accuracy", "contradiction")


class FoldPredictions(Callback):
    """Writes the predicted mask of each image, and how far the model contradicts the given one.

    `masks/<name>.png` holds class ids; the table beside it has a row an image, without IoU and
    accuracy where no pixel counts.

    Args:
        file: The table.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._rows: list[list[str]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the folder."""
        (self.file.parent / "masks").mkdir(parents=True, exist_ok=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes masks and keeps rows."""
        logits, mask = outputs.float().cpu(), batch["mask"].cpu()
        preds = logits.argmax(dim=1)
        counts = confusion_matrices(preds, mask, logits.shape[1])
        found = contradiction(logits, mask)
        for name, pred, count, value in zip(batch["name"], preds, counts, found, strict=True):
            picture = Image.fromarray(pred.to(torch.uint8).numpy())
            picture.save(self.file.parent / "masks" / f"{name}.png")
            right = count.diagonal().sum() / count.sum()  # NaN if no pixel counts
            mean = scores(count)["iou"].nanmean()
            numbers = (number.item() for number in (mean, right, value))
            cells = ("" if math.isnan(number) else f"{number:.6f}" for number in numbers)
            self._rows.append([csv_cell(name), *cells])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the rows, of all processes, in the order of the names."""
        rows = gathered(self._rows, self.file.parent, trainer)
        if not trainer.is_global_zero:
            return
        with self.file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        log.info("Predictions of the fold's own images: %s", shown(self.file))


def predict_fold(
    run: Run,
    trainer: Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    weights: Path | None,
) -> None:
    """Predicts the images of val, which the fold held out, by the weights that are tested.

    As many of them as validation looks at, or all where there is none.
    """
    callback = FoldPredictions(run.path / OUT_OF_FOLD)
    trainer.limit_predict_batches = trainer.limit_val_batches or 1.0
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    try:
        trainer.predict(
            module,
            datamodule=datamodule,  # whose loader each process makes for itself
            return_predictions=False,
            ckpt_path=weights,
            weights_only=True,
        )
    finally:
        trainer.callbacks.remove(callback)  # type: ignore[attr-defined]


def contradiction(logits: Tensor, mask: Tensor) -> Tensor:
    """Computes by how much a model contradicts the masks of images.

    Of each pixel that counts, the probability of the most probable class less that of the true one:
    0 where they are the same, near 1 where the model is sure of another. Their mean finds masks
    that are wrong rather than images that are hard: as `cleanlab.segmentation` ranks them, V. Lad,
    J. Mueller, "Estimating label quality and errors in semantic segmentation data via any model",
    2023, arXiv 2307.05080.

    Args:
        logits: (B, C, H, W).
        mask: Class ids, (B, H, W), and 255.

    Returns:
        float32 (B,), from 0 to 1; 0 without a pixel that counts.
    """
    probs = logits.softmax(dim=1)
    counts = mask != IGNORE_INDEX
    true = torch.where(counts, mask, 0).long()
    sure = probs.amax(dim=1) - probs.gather(1, true.unsqueeze(1)).squeeze(1)
    sums = torch.where(counts, sure, 0.0).sum((1, 2))
    return sums / counts.sum((1, 2)).clamp(min=1)
