"""The one LightningDataModule: any source, any augmentation, the same batches for every reader.

Randomness is a function, not a state: the order of an epoch depends on (seed, epoch) alone and
the augmentation of an image on (seed, epoch, index) alone. So neither the number of workers nor
prefetching nor a resume can change what is trained on.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from segpets.data.batches import (
    EpochSampler,
    SameSizeBatches,
    TrainLoader,
    collate,
    epochs_done,
    padded,
)
from segpets.data.dataset import Augment, BatchAugment, OneByOne, SegmentationDataset
from segpets.data.decoded import check_classes
from segpets.data.folds import check_folds, of_fold
from segpets.data.geometry import SMALLEST, Fit, Geometry, as_size, as_size_or_none, place
from segpets.data.notices import Notice, notices
from segpets.data.picture import Exif, Pages
from segpets.data.pixels import Pixels, in_threads
from segpets.data.reader import Reader
from segpets.data.resident import Keys, Resident, collate_keys, resident
from segpets.data.source import STAGES, Rows, Sample, Source, Splits, leave_out, merged, refuse
from segpets.errors import UserError
from segpets.labels import Batch, Item
from segpets.reading import in_one_line
from segpets.settings import Natural, Positive, checked

log = logging.getLogger(__name__)

Side = Annotated[int, Field(ge=SMALLEST)]
Sides = Annotated[Sequence[Side], Field(min_length=2, max_length=2)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class SegmentationDataModule(LightningDataModule):
    """Serves any source.

    Args:
        source: Names the samples of each stage and reads masks.
        augment: The training augmentation.
        size: Height and width in pixels, or one number for both.
        fit: How pictures are fitted to it: `stretch`, `letterbox`, `shorter` or `none`; see
            `segpets.data.geometry.place`.
        channels: C of the images.
        range: The values that become black and white, where files have more than 8 bits.
        exif: Whether pictures are turned as EXIF wants it: `auto`, `apply` or `ignore`.
        pages: Whether `each` page of a file is a picture, or all are its `channels`; see `Reader`.
        window: Height and width, or one number for both, of windows by which val and test images
            are predicted; None predicts each at once.
        crop: Height and width, or one number for both, of what is cut out for training.
        batch_size: Images in a batch of one process.
        num_workers: Processes that augment beside the training; 0 does it in between.
        run_seed: Seed of the order and of the augmentation.
        cache: Whether decoded pixels are kept in a file: `auto`, `disk` or `none`; see `Pixels`.
        cache_dir: The folder of that file; None chooses one.
        cache_gb: What the caches of a folder may take together, in GB.
        classes: The names of the classes; masks that hold more are refused. None doesn't look.
        exclude: A file that names samples to leave out, one a line; what follows `#` is ignored.
        folds: The number of folds that train and val are dealt into; None keeps the source's.
        fold: Which of them is val.
        seed: Of the folds.
        overfit: If a number, this many training images serve all stages, without augmentation.

    Raises:
        UserError: A value is out of range.
    """

    pixels: Pixels
    splits: Splits
    _rows: dict[str, Rows]
    _resident: Resident | None

    @checked("data")
    def __init__(
        self,
        *,
        source: Any,
        augment: Any,
        size: Side | Sides,
        batch_size: Positive,
        num_workers: Natural,
        run_seed: int,
        fit: Fit = "stretch",
        channels: Annotated[int, Field(ge=1, le=512)] = 3,
        range: Annotated[Sequence[Number], Field(min_length=2, max_length=2)] | None = None,
        exif: Exif = "auto",
        pages: Pages | None = None,
        window: Side | Sides | None = None,
        crop: Side | Sides | None = None,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | Path | None = None,
        cache_gb: Annotated[float, Field(ge=0)] = 50,
        classes: Sequence[str] | None = None,
        exclude: str | Path | None = None,
        folds: Annotated[int, Field(ge=2, le=1000)] | None = None,
        fold: Natural | None = None,
        seed: Natural = 0,
        overfit: Positive | None = None,
    ) -> None:
        super().__init__()
        self.cache, self.cache_dir, self.cache_gb = cache, cache_dir, cache_gb
        self.classes = None if classes is None else len(classes)
        self.exclude = Path(exclude).expanduser() if exclude is not None else None
        self.source: Source = source
        self.augment: Augment = augment
        if range is not None and not range[0] < range[1]:
            raise UserError(
                f"data.range=[{range[0]:g},{range[1]:g}] is "
                f"{'empty' if range[0] == range[1] else 'reversed'}: give the value that becomes "
                "black, then a larger one that becomes white"
            )
        limits = None if range is None else (float(range[0]), float(range[1]))
        self.reader = Reader(as_size(size), fit, channels, limits, exif, pages)
        if isinstance(augment, BatchAugment) and not self.reader.is_uniform:
            self.augment = OneByOne(augment)
        self.window = as_size_or_none(window)
        self.crop = as_size_or_none(crop)
        self.size, self.batch_size, self.num_workers = as_size(size), batch_size, num_workers
        self.run_seed, self.overfit = run_seed, overfit
        check_folds(folds, fold)
        self.folds, self.fold, self.fold_seed = folds, fold, seed

    @property
    def is_fold(self) -> bool:
        """Says if val is one of several folds, and no image of it is trained on."""
        return self.folds is not None and self.overfit is None

    def listed(self) -> Splits:
        """Lists the samples of each stage; nothing is decoded.

        Raises:
            UserError: They can't be listed, or some can't be used.
        """
        splits = leave_out(self.source.splits(), self.exclude)
        if splits.problems:
            refuse([problem.error for problem in splits.problems])
        if self.is_fold:
            assert self.folds is not None and self.fold is not None
            splits = of_fold(
                splits,
                folds=self.folds,
                fold=self.fold,
                seed=self.fold_seed,
                by=getattr(self.source, "stratify", None),
            )
        return splits

    def setup(self, stage: str | None = None) -> None:
        """Lists, decodes and checks all images, once."""
        if hasattr(self, "pixels"):
            return
        splits = self.listed()
        for name in STAGES:
            if not splits[name]:
                raise UserError(
                    f"the {name} split is empty: choose another data.split or data.root"
                )
        if self.overfit is not None:
            few = splits.train[: self.overfit]
            splits = Splits(train=few, val=few, test=few)
        if self.batch_size > len(splits.train):
            log.warning(
                "data.batch_size=%d is larger than the %d training images: they make one batch",
                self.batch_size,
                len(splits.train),
            )
            self.batch_size = len(splits.train)
        if self.reader.channels != 3:
            self._try_augment()
        everything, self._rows = merged(splits)
        self.pixels = Pixels(
            everything,
            source=self.source,
            reader=self.reader,
            cache=self.cache,
            cache_dir=self.cache_dir,
            cache_gb=self.cache_gb,
        )
        if self.classes is not None:
            check_classes(everything, self.pixels.facts, self.classes)
        self.splits = splits

    def _try_augment(self) -> None:
        """Augments a grey image: most transforms of colours take RGB only.

        Raises:
            UserError: It fails.
        """
        channels, example = self.reader.channels, self.example()
        try:
            self.augment(example, torch.zeros(example.shape[-2:], dtype=torch.uint8), seed=0)
        except Exception as error:  # somebody else's transform can raise anything
            raise UserError(
                f"augment fails on images of {channels} channels: {in_one_line(error)}. Transforms "
                "of colours take RGB only: augment=flip leaves them out"
            ) from error

    def dataset(self, stage: str, *, plain: bool = False) -> SegmentationDataset:
        """Makes the data set of a stage: `train`, `val` or `test`; never augmented if plain."""
        augmented = stage == "train" or (stage == "val" and self.splits.augment_val)
        augmented = augmented and self.overfit is None and not plain
        return SegmentationDataset(
            self.splits[stage],
            self._rows[stage],
            self.pixels,
            augment=self.augment if augmented else None,
            seed=self.run_seed,
            classes=self.classes,
        )

    def notices(self, classes: Sequence[str]) -> list[Notice]:
        """Lists what pictures and masks lost on their way; see `notices`."""
        facts, rows = self.pixels.facts, self._rows
        folds = self.folds if self.is_fold else None
        rules = self.reader
        return [*notices(facts, rows, classes=classes, rules=rules, crop=self.crop, folds=folds)]

    def class_pixels(self, classes: int) -> list[int]:
        """Counts the training pixels of each class, as the net sees them without augmentation."""
        rows = self._rows["train"].tolist()

        def one(place: int) -> NDArray[np.int64]:
            return np.bincount(self.pixels[rows[place]][1].numpy().ravel(), minlength=256)

        counts = sum(in_threads(one, len(rows), "Counting"), np.zeros(256, dtype=np.int64))
        return [int(count) for count in counts[:classes]]

    def example(self) -> Tensor:
        """Makes a black image of the size, channels and type of those that a net is trained on."""
        size = self.crop or self.size
        return torch.zeros(self.reader.channels, *size, dtype=self.reader.dtype)

    def least_side(self, stage: str) -> int:
        """Finds the smallest height or width of what the net sees of a stage's pictures."""
        return int(self.pixels.sizes[self._rows[stage]].min())

    def geometry(self, sample: Sample) -> Geometry:
        """Returns the place of a sample's picture in what the net sees."""
        facts = self.pixels.facts_of(sample.name)
        size = int(facts["height"]), int(facts["width"])
        return place(size, self.size, self.reader.fit)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments a batch on its device, where `augment` does that; Lightning calls it."""
        if "seed" not in batch:
            return batch
        assert isinstance(self.augment, BatchAugment)
        if "image" in batch:
            pair = batch["image"], batch["mask"]
        else:
            assert self._resident is not None
            pair = self._resident.batch(batch["index"])
        image, mask = self.augment.batch(*pair, batch["seed"])
        return Batch(image=image, mask=mask, name=batch["name"])

    def train_dataloader(self) -> DataLoader[Item]:
        """Loads shuffled batches; images that don't fill the last are left to the next epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Item]:
        """Loads every validation image once, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """Loads every test image once, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Loads the images of val, of which a fold's predictions are."""
        return self.plain_dataloader("val")

    def plain_dataloader(self, stage: str) -> DataLoader[Item]:
        """Loads every image of a stage once, in order and never augmented, for evaluation."""
        return self._loader(stage, plain=True)

    def _keeps_on_device(self, dataset: SegmentationDataset) -> bool:
        """Copies the training pixels to the device once, if they are augmented there and fit.

        A CPU reads them from the cache, if there is one, which takes no memory of its own.
        """
        if self.trainer is None or not isinstance(dataset.augment, BatchAugment):
            return False
        device = self.trainer.strategy.root_device
        if not hasattr(self, "_resident"):
            here = device.type == "cpu" and self.pixels.cache
            self._resident = None if here else resident(dataset, device)
        return self._resident is not None

    def _loader(self, stage: str, *, plain: bool = False) -> DataLoader[Item]:
        dataset, train = self.dataset(stage, plain=plain), stage == "train" and not plain
        here = dataset.augment is not None and not isinstance(dataset.augment, BatchAugment)
        busy = here or not self.pixels.cache
        workers = self.num_workers if busy else 0
        trainer = self.trainer
        sampler = EpochSampler(
            length=len(dataset),
            seed=self.run_seed,
            shuffle=train,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
        )
        if train and trainer is not None:
            # Lightning says it once more, but after worker processes have been given their first
            # batches: those of a resumed run would be of epoch 0.
            sampler.set_epoch(epochs_done(trainer))
        if train and len(sampler) < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the {len(sampler)} training "
                f"images of each of the {sampler.world} processes: choose a smaller one"
            )
        options: dict[str, Any] = {
            "dataset": dataset,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Each iterator draws one number, which nothing here uses. From torch's global stream
            # it would move dropout, and persistent workers draw it less often than no workers.
            "generator": torch.Generator(),
            "collate_fn": collate if self.reader.is_uniform else padded,
        }
        if train:
            options |= {"batch_size": self.batch_size, "drop_last": True}
            if self._keeps_on_device(dataset):
                options |= {"dataset": Keys(dataset), "collate_fn": collate_keys}
                options |= {"num_workers": 0, "persistent_workers": False}
            return TrainLoader(trainer=trainer, sampler=sampler, **options)
        if self.reader.is_uniform:
            return DataLoader(sampler=sampler, batch_size=self.batch_size, **options)
        sizes = self.pixels.sizes[self._rows[stage]]
        batches = SameSizeBatches(sampler, sizes, batch_size=self.batch_size)
        return DataLoader(batch_sampler=batches, **options)
