"""What is shown of a prediction: mask, overlay, cutout and composite, drawn in strips.

A second picture of 100 million pixels is 400 MB more, so what is `spent` is drawn into the picture
itself, which holds something else then.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from segpets.labels import palette
from segpets.prediction.background import Backdrop
from segpets.prediction.layers import Layers
from segpets.prediction.picture import Picture, strip_rows, strips

TINT = 0.45
"""How much of an overlay is the class's colour."""


def mask(layers: Layers) -> Image.Image:
    """The class ids as one channel of 8 bits, L."""
    return Image.fromarray(layers.ids)


def overlay(
    picture: Picture, layers: Layers, classes: Sequence[str], *, spent: bool = False
) -> Image.Image:
    """The picture with its classes in their colours, RGB."""
    colours = [value for colour in palette(classes) for value in colour]

    def drawn(top: int, bottom: int) -> Image.Image:
        painted = Image.fromarray(layers.ids[top:bottom])
        painted.putpalette(colours)
        return Image.blend(picture.strip(top, bottom), painted.convert("RGB"), TINT)

    return _assembled(picture, drawn, spent=spent)


def opacity(layers: Layers) -> Image.Image:
    """The opacity of the foreground, L."""
    assert layers.alpha is not None
    return Image.fromarray(layers.alpha)


def cutout(picture: Picture, alpha: Image.Image, *, spent: bool = False) -> Image.Image:
    """The foreground alone, RGBA; what is clear holds no colour of the background."""

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
    """The foreground over a backdrop, RGB.

    Args:
        picture: The picture.
        alpha: The opacity of its foreground, L.
        backdrop: What stands behind it.
        zoom: How many times as large the foreground is shown, about its centre.
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
    """The centre of mass of an opacity, x and y in pixels; of nothing: the middle."""
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
    own = spent and picture.image.mode == "RGB"
    image = picture.image if own else Image.new("RGB", (width, height))
    for top, bottom in strips(height, rows):
        image.paste(drawn(top, bottom), (0, top))
    return image
