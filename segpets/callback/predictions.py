"""Writes the predictions of a test, so that comparing runs never loads a model."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from segpets.callback.rows import gathered
from segpets.labels import Batch
from segpets.reading import csv_cell
from segpets.run.files import COUNTS


class TestPredictions(Callback):
    """Writes each test image's predicted mask, and its pixels counted by truth and prediction.

    `masks/<name>.png` holds class ids, one channel. `counts.csv` has a row an image: its name, its
    attributes (such as breed and species) and for each pair of classes the number of pixels of the
    first that were predicted as the second, in columns `<truth>><prediction>`.

    Args:
        folder: Where to.
    """

    __test__ = False  # no test case, in spite of its name

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)
        self._rows: list[list[str]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Makes the folder."""
        (self.folder / "masks").mkdir(parents=True, exist_ok=True)
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the masks and keeps the counts."""
        counts = outputs["confusion"].flatten(1).tolist()
        for name, pred, row in zip(batch["name"], outputs["preds"].cpu(), counts, strict=True):
            Image.fromarray(pred.numpy()).save(self.folder / "masks" / f"{name}.png")
            self._rows.append([name, *map(str, row)])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the counts, of all processes, in the order of the names."""
        rows = gathered(self._rows, self.folder, trainer)
        if not trainer.is_global_zero:
            return
        samples = {s.name: s.attributes for s in trainer.datamodule.splits.test}  # type: ignore[attr-defined]
        keys = list(next(iter(samples.values())))
        classes: tuple[str, ...] = pl_module.classes  # type: ignore[assignment]
        header = ["name", *keys, *(f"{truth}>{pred}" for truth in classes for pred in classes)]
        with (self.folder / Path(COUNTS).name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            for name, *counts in rows:
                writer.writerow([name, *(csv_cell(samples[name][key]) for key in keys), *counts])
