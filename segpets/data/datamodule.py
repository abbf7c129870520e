"""The one LightningDataModule: any source, any augmentation, the same batches for every reader.

Randomness is a function, not a state: the order of an epoch depends on (seed, epoch) alone and
the augmentation of an image on (seed, epoch, index) alone. So neither the number of workers nor
prefetching nor a resume can change what is trained on.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segpets.data.pixels import Pixels
from segpets.data.source import STAGES, Rows, Sample, Source, Splits, leave_out, merged, refuse
from segpets.errors import UserError
from segpets.hardware import threads
from segpets.labels import Batch, Item
from segpets.settings import Natural, Positive, checked

log = logging.getLogger(__name__)

MIN_SIZE = 32


class Augment(Protocol):
    """A joint transform of image and mask."""

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Maps image, uint8 (3, H, W), and mask, uint8 (H, W), to a pair: pure, by its seed."""
        ...


class Readable(Protocol):
    """Pixels by row, as `Pixels` has them."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Returns image, uint8 (3, H, W), and mask, uint8 (H, W)."""
        ...

    def several(self, rows: Sequence[int], *, threads: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns what `[row]` does for each row, prepared by this many threads."""
        ...


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index): the epoch's order, divided among processes.

    Args:
        length: Number of samples.
        seed: The order's seed.
        shuffle: Whether an epoch has an order of its own; else it is 0, 1, 2, ...
        rank: This process.
        world: Number of processes. When shuffling, the last samples are dropped so that all
            processes have equally many; else each sample is in exactly one process, so that no
            metric counts it twice.
    """

    def __init__(
        self, *, length: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self._done = (0, 0)

    def go_on(self, epoch: int, done: int) -> None:
        """Leaves out the first samples of one epoch, which a resumed run has trained on."""
        self._done = (epoch, done)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        indices = self._indices()[self._done[1] if epoch == self._done[0] else 0 :]
        if not self.shuffle:
            return ((epoch, index) for index in indices)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
        return ((epoch, int(order[i])) for i in indices)

    def _indices(self) -> range:
        end = self.length // self.world * self.world if self.shuffle else self.length
        return range(self.rank, end, self.world)


class SegmentationDataset(Dataset[Item]):
    """Pixels, augmented; indexed by (epoch, index).

    Args:
        samples: The samples of a stage.
        rows: Which rows of the pixels are theirs.
        pixels: The pixels of all stages.
        augment: The joint transform; None leaves the pixels as they are.
        seed: The augmentation's seed.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        rows: Rows,
        pixels: Readable,
        *,
        augment: Augment | None,
        seed: int,
    ) -> None:
        self.samples, self.rows, self.pixels = samples, rows, pixels
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        return self._item(key, *self.pixels[int(self.rows[key[1]])])

    def _item(self, key: tuple[int, int], image: Tensor, mask: Tensor) -> Item:
        epoch, index = key
        if self.augment is not None:
            seed = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            image, mask = self.augment(image, mask, seed=seed)
        return Item(image=image, mask=mask, name=self.samples[index].name)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """Returns the items of one batch, augmented on one thread.

        A worker process has one thread, the main process several; a sum over many threads could
        differ in its last bit.
        """
        rows = [int(self.rows[index]) for _, index in keys]
        several = torch.get_num_threads()
        with threads(1):
            pairs = self.pixels.several(rows, threads=several)
            return [self._item(key, *pair) for key, pair in zip(keys, pairs, strict=True)]


class TrainLoader(DataLoader[Item]):
    """A loader of training batches that goes on in mid-epoch.

    Lightning saves and restores its state beside the loop's, which counts batches but replays
    their loader from the start.

    Args:
        trainer: The trainer that counts; None if there is none.
        sampler: The order.
        options: Of PyTorch's loader.
    """

    def __init__(self, *, trainer: Trainer | None, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(sampler=sampler, **options)
        self.trainer, self.order = trainer, sampler

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and its samples that have been trained on."""
        assert self.trainer is not None and self.batch_size is not None
        batches = batches_done(self.trainer)
        return {"epoch": self.trainer.current_epoch, "samples": batches * self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on after those samples."""
        self.order.go_on(state["epoch"], state["samples"])


def batches_done(trainer: Trainer) -> int:
    """Counts the batches of an epoch that isn't over; 0 between two epochs."""
    loop = trainer.fit_loop
    if epochs_done(trainer) == loop.epoch_progress.current.ready:
        return 0
    batches: int = loop.epoch_loop.batch_progress.state_dict()["current"]["processed"]
    return batches


def epochs_done(trainer: Trainer) -> int:
    """Counts epochs whose batches are all done and validated."""
    epochs: int = trainer.fit_loop.epoch_progress.state_dict()["current"]["processed"]
    return epochs


class SegmentationDataModule(LightningDataModule):
    """Serves any source.

    Args:
        source: Names the samples of each stage and reads masks.
        augment: The training augmentation.
        size: Height and width in pixels to which images and masks are resized.
        batch_size: Images in a batch of one process.
        num_workers: Processes that augment beside the training; 0 does it in between.
        run_seed: Seed of the order and of the augmentation.
        cache: Whether decoded pixels are kept in a file: `auto`, `disk` or `none`; see `Pixels`.
        cache_dir: The folder of that file; None chooses one.
        cache_gb: What the caches of a folder may take together, in GB.
        exclude: A file that names samples to leave out, one a line; what follows `#` is ignored.
        overfit: If a number, this many training images serve all stages, without augmentation.

    Raises:
        UserError: A value is out of range.
    """

    pixels: Pixels
    splits: Splits
    _rows: dict[str, Rows]

    @checked("data")
    def __init__(
        self,
        *,
        source: Any,
        augment: Any,
        size: Annotated[int, Field(ge=MIN_SIZE)],
        batch_size: Positive,
        num_workers: Natural,
        run_seed: int,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | Path | None = None,
        cache_gb: Annotated[float, Field(ge=0)] = 50,
        exclude: str | Path | None = None,
        overfit: Positive | None = None,
    ) -> None:
        super().__init__()
        self.cache, self.cache_dir, self.cache_gb = cache, cache_dir, cache_gb
        self.exclude = Path(exclude).expanduser() if exclude is not None else None
        self.source: Source = source
        self.augment: Augment = augment
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.run_seed, self.overfit = run_seed, overfit

    def setup(self, stage: str | None = None) -> None:
        """Lists, decodes and checks all images, once."""
        if hasattr(self, "pixels"):
            return
        splits = leave_out(self.source.splits(), self.exclude)
        if splits.problems:
            refuse([problem.error for problem in splits.problems])
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
        everything, self._rows = merged(splits)
        self.pixels = Pixels(
            everything,
            source=self.source,
            size=self.size,
            cache=self.cache,
            cache_dir=self.cache_dir,
            cache_gb=self.cache_gb,
        )
        self.splits = splits

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
        )

    def train_dataloader(self) -> DataLoader[Item]:
        """Loads shuffled batches; images that don't fill the last are left to the next epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Item]:
        """Loads every validation image once, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """Loads every test image once, in order."""
        return self._loader("test")

    def plain_dataloader(self, stage: str) -> DataLoader[Item]:
        """Loads every image of a stage once, in order and never augmented, for evaluation."""
        return self._loader(stage, plain=True)

    def _loader(self, stage: str, *, plain: bool = False) -> DataLoader[Item]:
        dataset, train = self.dataset(stage, plain=plain), stage == "train" and not plain
        busy = dataset.augment is not None or not self.pixels.cache
        workers = self.num_workers if busy else 0
        trainer = self.trainer
        sampler = EpochSampler(
            length=len(dataset),
            seed=self.run_seed,
            shuffle=train,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
        )
        if train and len(sampler) < self.batch_size:
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the {len(sampler)} training "
                f"images of each of the {sampler.world} processes: choose a smaller one"
            )
        options: dict[str, Any] = {
            "dataset": dataset,
            "batch_size": self.batch_size,
            "drop_last": train,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Each iterator draws one number, which nothing here uses. From torch's global stream
            # it would move dropout, and persistent workers draw it less often than no workers.
            "generator": torch.Generator(),
            "collate_fn": collate,
        }
        if train:
            return TrainLoader(trainer=trainer, sampler=sampler, **options)
        return DataLoader(sampler=sampler, **options)


def collate(items: Sequence[Item]) -> Batch:
    """Stacks items to a batch.

    Raises:
        UserError: They differ in size.
    """
    sizes = sorted({tuple(item["mask"].shape) for item in items})
    if len(sizes) > 1:
        raise UserError(
            f"augment.transforms gives images of {len(sizes)} sizes, such as {sizes[0]} and "
            f"{sizes[1]}, which make no batch: let a crop or resize to one size come last"
        )
    # NumPy stacks on this thread. torch.stack shares the work among its threads, and where the
    # cores were busy it waited 128 ms for them instead of working for 0.1 ms (16 of 128x128).
    return Batch(
        image=torch.from_numpy(np.stack([item["image"].numpy() for item in items])),
        mask=torch.from_numpy(np.stack([item["mask"].numpy() for item in items])),
        name=[item["name"] for item in items],
    )
