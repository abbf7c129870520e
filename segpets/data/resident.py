"""A stage's pixels as two tensors on the device that trains, from which batches are taken there."""

import logging
import os
from collections.abc import Sequence
from typing import Final, TypedDict

import torch
from torch import Tensor

from segpets.data.dataset import SegmentationDataset

log = logging.getLogger(__name__)

SHARE: Final = 0.25
"""Of the free memory, what pixels may take."""
_CHUNK: Final = 256


class Key(TypedDict):
    """An image that is taken from a `Resident`.

    Attributes:
        index: Its place in the stage.
        seed: Of its augmentation.
        name: Its name.
    """

    index: int
    seed: int
    name: str


class Resident:
    """Pixels on a device.

    Args:
        images: uint8, or float32 in [0, 1], (N, C, H, W).
        masks: uint8 (N, H, W).
    """

    def __init__(self, images: Tensor, masks: Tensor) -> None:
        self.images, self.masks = images, masks

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Takes images and masks by their indices, int64 (B,), on the same device."""
        return self.images.index_select(0, indices), self.masks.index_select(0, indices)


def resident(dataset: SegmentationDataset, device: torch.device) -> Resident | None:
    """Copies a stage's pixels, of one size, to a device; None, and a line, where they don't fit."""
    image, mask = dataset.pixels[int(dataset.rows[0])]
    count = len(dataset)
    needed = count * (image.nbytes + mask.nbytes)
    free = _free(device)
    try:
        if needed > SHARE * free:
            raise torch.OutOfMemoryError
        images = torch.empty(count, *image.shape, dtype=image.dtype, device=device)
        masks = torch.empty(count, *mask.shape, dtype=mask.dtype, device=device)
    except torch.OutOfMemoryError:
        log.info(
            "The pixels take %.1f GB, and %s has %.1f GB free: they are sent batch by batch",
            needed / 1e9,
            device,
            free / 1e9,
        )
        return None
    for begin in range(0, count, _CHUNK):
        pairs = [dataset.pixels[int(row)] for row in dataset.rows[begin : begin + _CHUNK]]
        images[begin : begin + _CHUNK] = torch.stack([pair[0] for pair in pairs]).to(device)
        masks[begin : begin + _CHUNK] = torch.stack([pair[1] for pair in pairs]).to(device)
    return Resident(images, masks)


def _free(device: torch.device) -> int:
    """Returns the bytes that a device, or this machine, has free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not on macOS
        return 1 << 32


def collate_keys(keys: Sequence[Key]) -> dict[str, Tensor | list[str]]:
    """Makes a batch of keys."""
    return {
        "index": torch.tensor([key["index"] for key in keys]),
        "seed": torch.tensor([key["seed"] for key in keys]),
        "name": [key["name"] for key in keys],
    }


class Keys(torch.utils.data.Dataset[Key]):
    """The keys of a data set whose pixels are on the device; indexed by (epoch, index) as it is.

    Args:
        dataset: The data set, with an augmentation of whole batches.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Key:
        index = key[1]
        name = self.dataset.samples[index].name
        return Key(index=index, seed=self.dataset.seed_of(key), name=name)
