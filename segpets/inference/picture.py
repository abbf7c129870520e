"""Predictions of whole pictures, in bounded memory: read, fitted, predicted, and brought back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image
from torch import Tensor

from segpets.data.geometry import SMALLEST, Size
from segpets.data.picture import Picture, strip_rows, strips
from segpets.data.reader import Reader
from segpets.inference.layers import Layers, Net, collected, whole_layers
from segpets.model.windows import windowed

MAX_PIXELS: Final = 178_956_970
"""What a file may claim; from there on, Pillow refuses by itself to open it. Decoded, 716 MB."""


@contextmanager
def claiming(max_pixels: int) -> Iterator[None]:
    """Lets Pillow also open files with this many pixels."""
    before = Image.MAX_IMAGE_PIXELS
    if before is not None:
        Image.MAX_IMAGE_PIXELS = max(before, max_pixels)
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_picture(
    files: Sequence[Path],
    reader: Reader,
    *,
    page: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decodes a picture whole, of one file or of one for each band.

    Raises:
        FileError: It is truncated, not an image, or claims more than `max_pixels`.
    """
    with reader.opened(files, page=page, max_pixels=max_pixels, whole=True) as picture:
        return picture


def by_tiles(net: Net, tile: int | None) -> Size | None:
    """Chooses the windows in which the pixels of a file themselves are predicted.

    Args:
        net: The net.
        tile: Height and width in pixels, as the user gave them; None: as the net was trained.

    Returns:
        None where pictures are fitted to the net's size first.
    """
    if tile is not None:
        return tile, tile
    return net.window if net.reader.fit == "none" else None


def tiled(
    net: Net, picture: Picture, tile: Size, *, batch_size: int = 8
) -> Iterator[tuple[int, Tensor]]:
    """Predicts a picture by overlapping tiles of its own pixels.

    Yields:
        From top to bottom the first row, and logits, float32 (C, rows, W) on the CPU.
    """
    blended = windowed(
        lambda crops: net.logits(crops).cpu(),
        picture.rows,
        picture.size,
        tile,
        stride=net.stride,
        batch_size=batch_size,
    )
    for top, strip in blended:
        for first, end in strips(strip.shape[1], strip_rows(strip.shape[2])):
            yield top + first, strip[:, first:end]


def layers_of(
    net: Net,
    picture: Picture,
    *,
    tile: int | None = None,
    foreground: Sequence[bool] | None = None,
    batch_size: int = 8,
) -> Layers:
    """Predicts a picture, fitted or by tiles."""
    windows = by_tiles(net, tile)
    if windows is not None and min(picture.size) >= SMALLEST:
        strips_ = tiled(net, picture, windows, batch_size=batch_size)
        return collected(strips_, picture.size, foreground=foreground)
    logits = net.logits(picture.fitted()[None])[0]
    return whole_layers(picture.geometry.inside(logits), picture.size, foreground=foreground)
