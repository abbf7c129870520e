"""Checks that an augmentation keeps its promises, on a pattern made for the purpose."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.utils.data import DataLoader

from segpets.browse.finding import Finding
from segpets.data.batches import collate
from segpets.data.dataset import Augment, BatchAugment, OneByOne, SegmentationDataset
from segpets.data.decoded import Cut
from segpets.data.reader import Reader
from segpets.data.source import Sample
from segpets.labels import IGNORE_INDEX, Item

AGREEMENT: Final = 0.8
"""The part of a mask's pixels, away from edges, that must lie where the image has moved to. Blur,
noise and masked-out patches cost some; a flip or a turn of one of the two leaves about a half."""

CLOSENESS: Final = 0.9
"""The part of all of the mask's pixels that must, in the median over the seeds. Half of the pixels
lie at edges, so that displacements of two pixels show."""

_RETURNS = "returns"
_SEEDS = 24
_ID = 200  # far from 0, so that a blend of the two shows
_CELL = 8  # pixels
_WORKERS = 2


def examine_augmentation(augment: Augment, reader: Reader) -> list[Finding]:
    """Finds augmentations that change image and mask differently, or aren't functions of the seed.

    The pattern is a field of light and dark squares, and its mask the same field; so wherever the
    image goes, the mask must be found there.

    Args:
        augment: The joint transform.
        reader: The rules by which the images that it is used on are made.
    """
    try:
        problems = [*_of_pairs(augment, reader)]
        if not any(problem.startswith(_RETURNS) for problem, _ in problems):
            if isinstance(augment, BatchAugment):
                problems += _of_batches(augment, reader)
            problems += _of_workers(augment, reader)
    except Exception as error:  # somebody else's transform can raise anything
        problems = [(f"fails: {error}", "correct its parameters")]
    return [Finding(True, "augment", problem, remedy) for problem, remedy in problems]


def pattern(reader: Reader) -> tuple[Tensor, Tensor]:
    """Makes an image, (C, H, W), and the mask that belongs to it, (H, W)."""
    height, width = reader.size
    count = -(-max(height, width) // _CELL)
    cells = np.random.default_rng(0).integers(0, 2, (count, count), dtype=np.uint8)
    index = np.arange(max(height, width)) // _CELL
    field = torch.from_numpy(cells[np.ix_(index[:height], index[:width])])
    image = (64 + 128 * field).expand(reader.channels, height, width).contiguous()
    return image if reader.range is None else image.float() / 255, _ID * field


def _of_pairs(augment: Augment, reader: Reader) -> Iterator[tuple[str, str]]:
    before = pattern(reader)
    given = tuple(tensor.clone() for tensor in before)
    pairs = [augment(given[0], given[1], seed=seed) for seed in range(_SEEDS)]
    if wrong := next((found for pair in pairs if (found := _wrong(pair, before[0]))), None):
        yield f"{_RETURNS} {wrong}", "keep the types, and the number of channels"
        return
    if not all(torch.equal(a, b) for a, b in zip(before, given, strict=True)):
        yield "works on its inputs in place, which may be cached", "let it copy them first"
    again = [augment(given[0], given[1], seed=seed) for seed in range(_SEEDS)]
    if not all(_same(a, b) for a, b in zip(pairs, again, strict=True)):
        yield (
            "gives another result when the same seed is given again",
            "draw all random numbers from a generator that is made of the seed",
        )
    if len(shapes := sorted({tuple(mask.shape) for _, mask in pairs})) > 1:
        yield (
            f"gives images of {len(shapes)} sizes, such as {shapes[0]} and {shapes[1]}",
            "let a crop or resize to one size come last",
        )
    values = {value for _, mask in pairs for value in np.unique(mask.numpy()).tolist()}
    if invented := sorted(values - {0, _ID, IGNORE_INDEX}):
        yield (
            f"invents values in masks, such as {invented[0]} between 0 and {_ID}",
            "resample masks by nearest neighbour, and fill them with 255",
        )
    close = float(np.median([agreement(image, mask, edges=True) for image, mask in pairs]))
    agreements = [agreement(image, mask) for image, mask in pairs]
    worst = int(np.argmin(agreements))
    if agreements[worst] < AGREEMENT:
        yield (
            f"moves image and mask differently: with seed {worst}, {agreements[worst]:.0%} of the "
            "mask lie where the image has gone to",
            "let one transform move both, by the same parameters",
        )
    elif close < CLOSENESS:
        yield (
            f"moves image and mask a little apart: {close:.0%} of the mask lie where the image has "
            "gone to",
            "let one transform move both, by the same parameters",
        )


def _wrong(pair: object, image: Tensor) -> str | None:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return type(pair).__name__
    wanted = ((image.dtype, 3, f"({len(image)}, H, W)"), (torch.uint8, 2, "(H, W)"))
    for tensor, (dtype, ndim, shape) in zip(pair, wanted, strict=True):
        if not isinstance(tensor, Tensor):
            return f"a {type(tensor).__name__} for a tensor"
        if tensor.dtype != dtype or tensor.ndim != ndim:
            kinds = [str(one).removeprefix("torch.") for one in (tensor.dtype, dtype)]
            return f"{kinds[0]} {tuple(tensor.shape)} where {kinds[1]} {shape} is wanted"
    return None


def agreement(image: Tensor, mask: Tensor, *, edges: bool = False) -> float:
    """Computes the part of a mask's pixels that match the image of an augmented pattern.

    Args:
        image: uint8, or float32 in [0, 1], (C, H, W).
        mask: uint8 (H, W); ignored pixels don't count.
        edges: Whether pixels within two of an edge count.
    """
    grey = image.float().mean(0) * (1 if image.dtype == torch.uint8 else 255)
    field = mask.float()[None, None]
    flat = (max_pool2d(field, 5, 1, 2) == -max_pool2d(-field, 5, 1, 2))[0, 0]
    counted = (flat | edges) & (mask != IGNORE_INDEX)
    if not counted.any():
        return 1.0
    light, dark = grey[counted].quantile(0.8), grey[counted].quantile(0.2)
    if light - dark < 8:  # the colours were all but washed out
        return 1.0
    fits = ((grey > (light + dark) / 2) == (mask == _ID))[counted].float().mean().item()
    return max(fits, 1 - fits)  # inverted colours fit as well


def _of_batches(augment: BatchAugment, reader: Reader) -> Iterator[tuple[str, str]]:
    """Augments images as a batch, and each by itself."""
    image, mask = pattern(reader)
    alone = [augment(image.clone(), mask.clone(), seed=seed) for seed in range(_SEEDS)]
    images, masks = (torch.stack([one] * _SEEDS) for one in (image, mask))
    together = augment.batch(images, masks, torch.arange(_SEEDS))
    step = 1 if reader.range is None else 1 / 255  # sums of a batch may differ in their last bits
    for one, other in zip(alone, zip(*together, strict=True), strict=True):
        if one[0].shape == other[0].shape:
            far = (one[0].float() - other[0].float()).abs().max() > 1.01 * step
            if not far and (one[1] == other[1]).float().mean() > 0.99:
                continue
        yield (
            "changes a batch otherwise than its images one by one",
            "let what becomes of an image depend on its own seed only",
        )
        return


def _of_workers(augment: Augment, reader: Reader) -> Iterator[tuple[str, str]]:
    """Reads the same image many times, with and without worker processes."""
    augment = OneByOne(augment) if isinstance(augment, BatchAugment) else augment
    alone = _read(augment, reader, workers=0)
    apart = _read(augment, reader, workers=_WORKERS)
    varied = any(not _same_item(item, alone[0]) for item in alone)
    first, second = apart[::_WORKERS], apart[1::_WORKERS]
    if varied and all(_same_item(a, b) for a, b in zip(first, second, strict=True)):
        yield (
            "repeats its random numbers in every data worker",
            "draw all random numbers from a generator that is made of the seed",
        )
    elif not all(_same_item(a, b) for a, b in zip(alone, apart, strict=True)):
        yield (
            "gives other results in data workers than without",
            "draw all random numbers from a generator that is made of the seed",
        )


class _Same:
    """Pixels that are the same in every row."""

    def __init__(self, pair: tuple[Tensor, Tensor]) -> None:
        self.pair = pair

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.pair

    def several(
        self, rows: Sequence[int], *, cuts: Sequence[Cut | None], threads: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.pair for _ in rows)


def _read(augment: Augment, reader: Reader, *, workers: int) -> list[Item]:
    file = Path("pattern")
    samples = [Sample(f"pattern_{index}", file, file) for index in range(_SEEDS)]
    rows = np.zeros(_SEEDS, dtype=np.int64)
    pixels = _Same(pattern(reader))
    data = SegmentationDataset(samples, rows, pixels, augment=augment, seed=0)
    loader: DataLoader[Item] = DataLoader(
        data,
        sampler=[(0, index) for index in range(_SEEDS)],
        batch_size=1,
        num_workers=workers,
        generator=torch.Generator(),
        collate_fn=collate,
    )
    return list(loader)


def _same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def _same_item(a: Item, b: Item) -> bool:
    return _same((a["image"], a["mask"]), (b["image"], b["mask"]))
