"""Drawings of a prediction: mask, overlay, cutout and composite, in strips.

A second picture of 100 million pixels takes another 400 MB, so a `spent` picture is drawn into, and
holds something else afterwards.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from segpets.data.picture import Picture, strip_rows, strips
from segpets.inference.layers import Layers
from segpets.predict.background import Backdrop
from segpets.report.palette import palette

TINT = 0.45
"""How much of an overlay is the class's colour."""


def mask(layers: Layers) -> Image.Image:
    """Draws the class ids as one channel of 8 bits, L."""
    return Image.fromarray(layers.ids)


def overlay(
    picture: Picture, layers: Layers, classes: Sequence[str], *, spent: bool = False
) -> Image.Image:
    """Draws the picture with its classes in their colours, RGB."""
    colours = [value for colour in palette(classes) for value in colour]

    def drawn(top: int, bottom: int) -> Image.Image:
        painted = Image.fromarray(layers.ids[top:bottom])
        painted.putpalette(colours)
        return Image.blend(picture.strip(top, bottom), painted.convert("RGB"), TINT)

    return _assembled(picture, drawn, spent=spent)


def opacity(layers: Layers) -> Image.Image:
    """Draws the opacity of the foreground, L."""
    assert layers.alpha is not None
    return Image.fromarray(layers.alpha)


def cutout(picture: Picture, alpha: Image.Image, *, spent: bool = False) -> Image.Image:
    """Cuts out the foreground, RGBA; clear pixels hold no colour of the background."""

    def drawn(top: int, bottom: int) -> Image.Image:
        seen = alpha.crop((0, top, alpha.width, bottom)).point(_SEEN)
        black = Image.new("RGB", seen.size)
        return Image.composite(picture.strip(top, bottom), black, seen)

    image = _assembled(picture, drawn, spent=spent)
    image.putalpha(alpha)  # in place
    return image


_SEEN = [0] + 255 * [255]


def composite(
    picture: Picture,
    alpha: Image.Image,
    backdrop: Backdrop,
    *,
    zoom: float = 1.0,
    spent: bool = False,
) -> Image.Image:
    """Draws the foreground over a backdrop, RGB.

    Args:
        picture: The picture.
        alpha: The opacity of its foreground, L.
        backdrop: The backdrop behind it.
        zoom: The factor by which the foreground is enlarged about its centre.
        spent: Whether the picture may be drawn into; with a zoom it isn't.
    """
    height, width = picture.size
    x, y = _centre(alpha) if zoom != 1 else (0.0, 0.0)

    def drawn(top: int, bottom: int) -> Image.Image:
        behind = backdrop.strip(top, bottom)
        if zoom == 1:
            opaque = alpha.crop((0, top, width, bottom))
            return Image.composite(picture.strip(top, bottom), behind, opaque)
        box = (
            x - x / zoom,
            y + (top - y) / zoom,
            x + (width - x) / zoom,
            y + (bottom - y) / zoom,
        )
        first, last = max(0, int(box[1]) - 3), min(height, int(box[3]) + 4)
        part = (box[0], box[1] - first, box[2], box[3] - first)
        size = (width, bottom - top)
        way = Image.Resampling.BICUBIC
        large = picture.strip(first, last).resize(size, way, box=part)
        opaque = alpha.crop((0, first, width, last)).resize(size, way, box=part)
        return Image.composite(large, behind, opaque)

    return _assembled(picture, drawn, spent=spent and zoom == 1)


def _centre(alpha: Image.Image) -> tuple[float, float]:
    """Finds the centre of mass of an opacity, x and y in pixels; the middle if it is empty."""
    values = np.asarray(alpha)
    columns = values.sum(axis=0, dtype=np.float64)
    rows = values.sum(axis=1, dtype=np.float64)
    total = columns.sum()
    if not total:
        return alpha.width / 2, alpha.height / 2
    x = float(((np.arange(alpha.width) + 0.5) * columns).sum() / total)
    y = float(((np.arange(alpha.height) + 0.5) * rows).sum() / total)
    return x, y


def _assembled(
    picture: Picture, drawn: Callable[[int, int], Image.Image], *, spent: bool
) -> Image.Image:
    """Puts an RGB image of a picture's size together from strips."""
    height, width = picture.size
    rows = strip_rows(width)
    if rows >= height:
        return drawn(0, height)
    pixels = picture.pixels
    own = spent and getattr(pixels, "mode", None) == "RGB"
    image = pixels if own and isinstance(pixels, Image.Image) else Image.new("RGB", (width, height))
    for top, bottom in strips(height, rows):
        image.paste(drawn(top, bottom), (0, top))
    return image
