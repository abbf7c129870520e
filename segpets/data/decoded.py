"""A sample decoded: what the net sees of it, its mask, and what became of both on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segpets.data.deep import Box
from segpets.data.geometry import Geometry, by, place
from segpets.data.picture import Picture
from segpets.data.reader import Reader
from segpets.data.source import Mask, Sample, Source
from segpets.errors import FileError
from segpets.labels import IGNORE_INDEX, check_ids

FACTS: Final = np.dtype(
    [
        ("height", "<u4"),  # of the picture as it is used
        ("width", "<u4"),
        ("clipped", "<u8"),  # values outside of data.range
        ("turned", "u1"),  # as EXIF wants it; 2: though the mask could lie either way
        ("lost_alpha", "u1"),
        ("before", "u1", 32),  # a bit for each class id: whether the stored mask holds it
        ("after", "u1", 32),  # the same of the mask as the net sees it
    ]
)
"""What is noted of each sample."""


Pixels = NDArray[np.uint8] | NDArray[np.float32]
"""(C, H, W)."""

Cut = Callable[[Tensor], Box | None]
"""Tells from a mask, uint8 (H, W), which part of its picture is wanted; None: all of it."""


@dataclass(frozen=True)
class Decoded:
    """A decoded sample.

    Attributes:
        image: What the net sees, uint8 or float32, (C, H, W).
        whole_mask: Class ids at the picture's size.
        geometry: The picture's place in the image.
        notes: One element of `FACTS`, without the classes.
    """

    image: Pixels
    whole_mask: Mask
    geometry: Geometry
    notes: NDArray[np.void]

    @cached_property
    def mask(self) -> Mask:
        """Class ids as the net sees them, (H, W)."""
        return self.geometry.fitted(self.whole_mask)

    @cached_property
    def facts(self) -> NDArray[np.void]:
        """One element of `FACTS`; counted when asked for, not each time a sample is decoded."""
        facts = self.notes.copy()
        facts["before"] = held(self.whole_mask)
        same = self.whole_mask.shape == (self.geometry.height, self.geometry.width)
        facts["after"] = facts["before"] if same else held(self.mask)
        return facts


def read_sample(sample: Sample, source: Source, reader: Reader) -> Decoded:
    """Decodes a sample. The mask is judged, and sizes are compared, before resizing.

    Raises:
        FileError: A file can't be used, or the two differ in size.
    """
    return _decoded(sample, source.mask(sample), reader)


def read_piece(sample: Sample, source: Source, reader: Reader, cut: Cut) -> tuple[Pixels, Mask]:
    """Decodes the wanted part of a sample's picture, where its format allows it, or all.

    Returns:
        Image, (C, H, W), and mask, (H, W), as the net sees all of them. What wasn't wanted may be
        black; such pixels are never touched, and take no memory.

    Raises:
        FileError: As `read_sample`.
    """
    ids = source.mask(sample)
    image = _part(sample, ids, reader, cut)
    if image is not None:
        return image, ids
    decoded = _decoded(sample, ids, reader)
    return decoded.image, decoded.mask


def _part(sample: Sample, ids: Mask, reader: Reader, cut: Cut) -> Pixels | None:
    height, width = ids.shape
    geometry = place((height, width), reader.size, reader.fit)
    resized = (geometry.height, geometry.width) != (height, width)
    if resized or geometry.is_padded or (box := cut(torch.from_numpy(ids))) is None:
        return None
    top, left = max(box[0], 0), max(box[1], 0)
    high, wide = min(box[0] + box[2], height) - top, min(box[1] + box[3], width) - left
    inside = (top, left, high, wide)
    part = reader.part(sample.files, inside, page=sample.page, size=(height, width))
    if part is None:
        return None
    seen = part.numpy()
    image = np.zeros((len(seen), height, width), dtype=seen.dtype)
    image[:, top : top + high, left : left + wide] = seen
    return image


def _decoded(sample: Sample, ids: Mask, reader: Reader) -> Decoded:
    height, width = ids.shape
    with reader.opened(sample.files, page=sample.page, masked=(height, width)) as picture:
        if picture.size != (height, width):
            raise _other_size(picture, sample, ids)
        image, geometry = picture.fitted().numpy(), picture.geometry
        notes = np.zeros((), dtype=FACTS)
        notes["height"], notes["width"] = height, width
        notes["clipped"], notes["lost_alpha"] = picture.clipped, picture.lost_alpha
        notes["turned"] = 2 * picture.undecided or int(picture.turned)
    return Decoded(image, ids, geometry, notes)


def held(ids: Mask) -> NDArray[np.uint8]:
    """Notes which class ids occur: 256 bits, packed in 32 bytes."""
    counts = torch.from_numpy(np.ascontiguousarray(ids)).flatten().bincount(minlength=256)
    return np.packbits(counts.numpy() > 0)


def classes_held(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Reads such notes, (..., 32), as (..., 256)."""
    return np.unpackbits(bits, axis=-1).astype(np.bool_)


def _other_size(picture: Picture, sample: Sample, ids: Mask) -> FileError:
    (height, width), exif = picture.size, picture.reader.exif
    own = by((ids.shape[1], ids.shape[0]))
    remedy = (
        f"turn the mask, or say data.exif={'apply' if exif == 'ignore' else 'ignore'} if viewers "
        "turn the picture"
        if ids.shape == (width, height)
        else "it belongs to another image, or was resized; give the image its own, or export it "
        f"anew with {width}x{height} pixels"
    )
    return FileError(
        sample.image, f"has {width}x{height} pixels, but its mask {sample.mask} has {own}", remedy
    )


def check_classes(samples: Sequence[Sample], facts: NDArray[np.void], classes: int) -> None:
    """Checks that masks hold ids of classes only, once: no step of a training looks again.

    Args:
        samples: The samples.
        facts: What was noted of them, (N,) of `FACTS`.
        classes: How many classes there are.

    Raises:
        UserError: They hold others; the first is named, and the rest counted.
    """
    held_ids = classes_held(facts["before"])
    rows = np.flatnonzero(held_ids[:, classes:IGNORE_INDEX].any(axis=1))
    if not len(rows):
        return
    try:
        check_ids(torch.from_numpy(np.flatnonzero(held_ids[rows[0]])), classes)
    except ValueError as error:
        more = f"; {len(rows) - 1} more masks do" if rows[1:].size else ""
        remedy = "name all classes, or mend the masks"
        raise FileError(samples[rows[0]].mask, f"{error}{more}", remedy) from error
