"""The one LightningDataModule: any source, any augmentation, the same batches whatever reads them.

Randomness is a function, not a state: the order of an epoch depends on (seed, epoch) alone and
the augmentation of an image on (seed, epoch, index) alone. So neither the number of workers nor
prefetching nor a resume can change what is trained on.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segpets.data.pixels import Pixels
from segpets.data.source import Sample, Source, Splits
from segpets.errors import UserError
from segpets.labels import Batch, Item

MIN_SIZE = 32


class Augment(Protocol):
    """A joint transform of image and mask."""

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Maps image, uint8 (3, H, W), and mask, uint8 (H, W), to a pair: pure, by its seed."""
        ...


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index): the epoch's order, divided among processes.

    Args:
        length: Number of samples.
        seed: The order's seed.
        shuffle: Whether an epoch has an order of its own; else it is 0, 1, 2, ...
        rank: This process.
        world: Number of processes. When shuffling, the last samples are dropped so that each
            process has as many; else each sample is in exactly one process, so that no metric
            counts it twice.
    """

    def __init__(
        self, *, length: int, seed: int, shuffle: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.length, self.seed, self.shuffle = length, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order: Sequence[int] = range(self.length)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length).tolist()
        return iter([(self.epoch, order[i]) for i in self._indices()])

    def _indices(self) -> range:
        end = self.length // self.world * self.world if self.shuffle else self.length
        return range(self.rank, end, self.world)


class SegmentationDataset(Dataset[Item]):
    """Pixels, augmented; indexed by (epoch, index).

    Args:
        samples: The samples of a stage.
        pixels: Their pixels.
        augment: The joint transform; None leaves the pixels as they are.
        seed: The augmentation's seed.
    """

    def __init__(
        self, samples: Sequence[Sample], pixels: Pixels, *, augment: Augment | None, seed: int
    ) -> None:
        self.samples, self.pixels = list(samples), pixels
        self.augment, self.seed = augment, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        name = self.samples[index].name
        image, mask = self.pixels[name]
        if self.augment is not None:
            seed = int(np.random.SeedSequence([self.seed, epoch, index]).generate_state(1)[0])
            image, mask = self.augment(image, mask, seed=seed)
        return Item(image=image, mask=mask, name=name)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """Gives the items of one batch, on one thread.

        A worker process has one thread, the main process several; a sum over many threads could
        differ in its last bit.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return [self[key] for key in keys]
        finally:
            torch.set_num_threads(threads)


class SegmentationDataModule(LightningDataModule):
    """Serves any source.

    Args:
        source: Names the samples of each stage and reads masks.
        augment: The training augmentation.
        size: Height and width in pixels to which images and masks are resized.
        batch_size: Images in a batch of one process.
        num_workers: Processes that augment beside the training; 0 does it in between.
        run_seed: Seed of the order and of the augmentation.
        overfit: If a number, this many training images serve all stages, without augmentation.

    Raises:
        UserError: A value is out of range.
    """

    pixels: Pixels
    splits: Splits

    def __init__(
        self,
        *,
        source: Source,
        augment: Augment,
        size: int,
        batch_size: int,
        num_workers: int,
        run_seed: int,
        overfit: int | None = None,
    ) -> None:
        super().__init__()
        for key, value, least in (
            ("size", size, MIN_SIZE),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("overfit", 1 if overfit is None else overfit, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"data.{key}={value} must be a whole number of at least {least}")
        self.source, self.augment = source, augment
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        self.run_seed, self.overfit = run_seed, overfit

    def setup(self, stage: str | None = None) -> None:
        """Lists, decodes and checks all images, once."""
        if hasattr(self, "pixels"):
            return
        splits = self.source.splits()
        for name in ("train", "val", "test"):
            if not getattr(splits, name):
                raise UserError(
                    f"the {name} split is empty: choose another data.split or data.root"
                )
        if self.overfit is not None:
            few = splits.train[: self.overfit]
            splits = Splits(train=few, val=few, test=few)
        if self.batch_size > len(splits.train):
            raise UserError(
                f"data.batch_size={self.batch_size} is larger than the {len(splits.train)} "
                "training images: choose a smaller one"
            )
        everything = [*splits.train, *splits.val, *splits.test]
        self.pixels = Pixels(everything, size=self.size, ids=self.source.mask_ids)
        self.splits = splits

    def dataset(self, stage: str) -> SegmentationDataset:
        """The data set of a stage: `train`, `val` or `test`."""
        augmented = stage == "train" or (stage == "val" and self.splits.augment_val)
        augmented = augmented and self.overfit is None
        return SegmentationDataset(
            getattr(self.splits, stage),
            self.pixels,
            augment=self.augment if augmented else None,
            seed=self.run_seed,
        )

    def train_dataloader(self) -> DataLoader[Item]:
        """Shuffled; the last images of an epoch that don't fill a batch are left to the next."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Item]:
        """In order, every image once."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """In order, every image once."""
        return self._loader("test")

    def _loader(self, stage: str) -> DataLoader[Item]:
        dataset, train = self.dataset(stage), stage == "train"
        busy = dataset.augment is not None or not self.pixels.in_memory
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
        return DataLoader(
            dataset,
            sampler=sampler,
            batch_size=self.batch_size,
            drop_last=train,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Each iterator draws one number, which nothing here uses. From torch's global stream
            # it would move dropout, and persistent workers draw it less often than no workers.
            generator=torch.Generator(),
            collate_fn=collate,
        )


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
