"""Pictures of predictions for the same validation images, over the epochs."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from segpets.callback.tensorboard import writer_of
from segpets.labels import Batch
from segpets.report.figure import prediction_sheet


class Pictures(Callback):
    """Draws input, truth and prediction of fixed validation images, to PNG and TensorBoard.

    The images are spread evenly over the validation set. They are drawn from what the validation
    predicts anyway, so they cost no forward pass and show averaged weights where those are
    validated. After the test, the same number of test images is drawn.

    Args:
        folder: Where to.
        count: Number of images.
        every_n_epochs: How often; epoch 1 and epoch `trainer.max_epochs` are drawn, too.
    """

    def __init__(self, *, folder: str, count: int = 8, every_n_epochs: int = 5) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"every_n_epochs is {every_n_epochs}: give 1 or more; ~callback.pictures draws none"
            )
        self.folder = Path(folder)
        self.count = count
        self.every_n_epochs = every_n_epochs
        self._wanted: set[int] = set()
        self._seen: list[tuple[Tensor, Tensor, Tensor, str]] = []
        self._begun = 0

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decides whether to draw."""
        epoch = trainer.current_epoch + 1
        due = epoch == 1 or epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        drawn = due and not trainer.sanity_checking
        self._choose("val", trainer.num_val_batches if drawn else [], trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws always."""
        self._choose("test", trainer.num_test_batches, trainer)

    def _choose(self, stage: str, batches: list[int | float], trainer: Trainer) -> None:
        self._seen = []
        datamodule = getattr(trainer, "datamodule")  # noqa: B009
        size: int = datamodule.batch_size
        length = -(-len(datamodule.splits[stage]) // trainer.world_size)
        images = min(int(sum(batches)) * size, length)
        count = min(self.count, images)
        chosen = {(2 * place + 1) * images // (2 * count) for place in range(count)}
        self._wanted = chosen if trainer.is_global_zero else set()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the wanted images."""
        self._keep(outputs["preds"], batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the wanted images."""
        self._keep(outputs["preds"], batch, batch_idx)

    def _keep(self, preds: Tensor, batch: Batch, batch_idx: int) -> None:
        self._begun = 0 if batch_idx == 0 else self._begun
        first, self._begun = self._begun, self._begun + len(preds)
        for row in range(len(preds)):
            if first + row in self._wanted and len(self._seen) < self.count:
                # Copies where they are: to fetch them now would wait for the device.
                image, mask = batch["image"][row].clone(), batch["mask"][row].clone()
                self._seen.append((image, mask, preds[row].clone(), batch["name"][row]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer, pl_module, f"val_epoch_{trainer.current_epoch + 1:03d}", "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws."""
        self._draw(trainer, pl_module, "test", "test")

    def _draw(self, trainer: Trainer, pl_module: LightningModule, name: str, stage: str) -> None:
        if not self._seen:
            return
        *tensors, captions = zip(*self._seen, strict=True)
        images, masks, preds = ([tensor.cpu() for tensor in kind] for kind in tensors)
        classes: tuple[str, ...] = pl_module.classes  # type: ignore[assignment]
        sheet = prediction_sheet(images, masks, preds, captions=captions, classes=classes)
        self._seen = []
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(self.folder / f"{name}.png")
        if writer := writer_of(trainer):
            step = trainer.global_step - (stage == "val")  # as its metrics
            writer.add_image(f"{stage}/predictions", sheet, step, dataformats="HWC")
