"""The pixels of decoded masks: which are marked, and their colours as numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Numbers = NDArray[np.integer[Any]]


def marked(image: Image.Image, *, above: float) -> NDArray[np.bool_]:
    """Finds the pixels that a mask of one class marks: all that isn't dark or transparent.

    Where only the transparency differs, all that isn't transparent.

    Args:
        image: The mask, as it is decoded.
        above: What counts as dark, at most.
    """
    lossy, opaque = "segpets lossy" in image.info, None
    if image.mode in ("PA", "RGBA", "LA") or "transparency" in image.info:
        opaque = np.asarray(image.convert("RGBA"))[..., 3] > 0
    if image.mode in ("P", "PA", "RGBA", "LA"):
        image = image.convert("RGB" if image.mode != "LA" else "L")
    values = np.atleast_3d(np.asarray(image.convert("L") if lossy else image))
    bright = np.asarray((values > above).any(axis=2))
    if opaque is None or opaque.all():
        return bright
    shown = values[opaque]
    return opaque if len(shown) and (shown == shown[0]).all() else bright & opaque


def packed(rgb: NDArray[np.uint8]) -> Numbers:
    """Packs colours, (..., 3), into the numbers 0xRRGGBB, (...)."""
    numbers = rgb[..., 0].astype(np.int32)
    for band in (1, 2):  # in place: a large mask is a gigabyte in int32
        numbers <<= 8
        numbers |= rgb[..., band]
    return numbers


def as_triple(colour: int) -> str:
    """Writes 0xRRGGBB as `255 0 0`."""
    return f"{colour >> 16} {colour >> 8 & 255} {colour & 255}"


def palette_of(image: Image.Image) -> NDArray[np.uint8]:
    """Reads the colours of all 256 indices, (256, 3); black where none is stored."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    stored = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    palette[: len(stored)] = stored
    return palette
