"""The items of a stage: decoded pixels, augmented by (seed, epoch, index)."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segpets.data.decoded import Cut
from segpets.data.source import Rows, Sample
from segpets.errors import UserError
from segpets.hardware import threads
from segpets.labels import IGNORE_INDEX, Item, check_ids
from segpets.reading import in_one_line


class Augment(Protocol):
    """A joint transform of image and mask.

    One that cuts a piece out may have a method `piece(mask, *, seed)` that tells which, so that
    the rest needn't be decoded; see `TorchvisionAugment.piece`.
    """

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Maps image, (C, H, W), and mask, uint8 (H, W), to a pair: pure, by its seed."""
        ...


@runtime_checkable
class BatchAugment(Augment, Protocol):
    """A joint transform that is applied to whole batches, where the training computes."""

    def batch(self, images: Tensor, masks: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images, (B, C, H, W), and masks, uint8 (B, H, W), by their seeds, int64 (B,)."""
        ...


class OneByOne:
    """Applies an augmentation of whole batches to each image alone, for images of several sizes.

    Args:
        augment: The augmentation; it is called with one pair at a time.
    """

    def __init__(self, augment: Augment) -> None:
        self.augment = augment

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Augments one pair."""
        return self.augment(image, mask, seed=seed)


class Readable(Protocol):
    """Pixels by row, as `Pixels` has them."""

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Returns image, uint8 or float32 (C, H, W), and mask, uint8 (H, W)."""
        ...

    def several(
        self, rows: Sequence[int], *, cuts: Sequence[Cut | None], threads: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns what `[row]` does for each row, prepared by this many threads.

        Where there is a cut, the pixels beyond it may be black.
        """
        ...


class SegmentationDataset(Dataset[Item]):
    """Pixels, augmented; indexed by (epoch, index).

    Args:
        samples: The samples of a stage.
        rows: Which rows of the pixels are theirs.
        pixels: The pixels of all stages.
        augment: The joint transform; None leaves the pixels as they are. Of one for whole batches,
            items get their seeds.
        seed: The augmentation's seed.
        classes: The number of classes; an augmentation that makes other ids is refused. None
            doesn't look.

    Raises:
        UserError: It does, when an item is read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        rows: Rows,
        pixels: Readable,
        *,
        augment: Augment | None,
        seed: int,
        classes: int | None = None,
    ) -> None:
        self.samples, self.rows, self.pixels = samples, rows, pixels
        self.augment, self.seed, self.classes = augment, seed, classes
        self._by_batch = isinstance(augment, BatchAugment)  # which takes a while to tell

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        return self._item(key, *self.pixels[int(self.rows[key[1]])])

    def _item(self, key: tuple[int, int], image: Tensor, mask: Tensor) -> Item:
        name = self.samples[key[1]].name
        if self.augment is None:
            return Item(image=image, mask=mask, name=name)
        if self._by_batch:
            return Item(image=image, mask=mask, name=name, seed=self.seed_of(key))
        try:
            image, mask = self.augment(image, mask, seed=self.seed_of(key))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"augment fails at {name}, of {image.shape[1]}x{image.shape[2]} pixels "
                f"({type(error).__name__}: {in_one_line(error)}): change augment.transforms, or "
                "another key of augment"
            ) from error
        if self.classes is not None:
            self._check(mask, self.classes)
        return Item(image=image, mask=mask, name=name)

    def _check(self, mask: Tensor, classes: int) -> None:
        try:
            check_ids(mask, classes)
        except ValueError as error:
            raise UserError(
                f"augment makes a mask that {error}: fill masks with {IGNORE_INDEX}, and resample "
                "them by nearest neighbour; browse doctor=true looks at an augmentation"
            ) from error

    def seed_of(self, key: tuple[int, int]) -> int:
        """Makes the augmentation's seed of (epoch, index)."""
        return int(np.random.SeedSequence([self.seed, *key]).generate_state(1)[0])

    def _cut(self, key: tuple[int, int]) -> Cut | None:
        piece = getattr(self.augment, "piece", None)
        return None if piece is None else partial(piece, seed=self.seed_of(key))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Item]:
        """Returns the items of one batch, augmented on one thread.

        A worker process has one thread, the main process several; a sum over many threads could
        differ in its last bit.
        """
        rows, cuts = [int(self.rows[index]) for _, index in keys], [self._cut(key) for key in keys]
        several = torch.get_num_threads()
        with threads(1):
            pairs = self.pixels.several(rows, cuts=cuts, threads=several)
            return [self._item(key, *pair) for key, pair in zip(keys, pairs, strict=True)]
