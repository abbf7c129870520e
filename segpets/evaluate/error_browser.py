"""The error browser: a page of one file that shows what a model gets wrong, image by image.

A picture travels as a WebP and a compressed map of numbers, and the page paints the truth, the
prediction, the errors and the uncertainty from them when they come into view: about 14 kB for an
image of 128 x 128 pixels, so that a page of thousands still opens.
"""

import base64
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.labels import IGNORE_INDEX
from segpets.report.page import embedded, encodable, render
from segpets.report.palette import palette
from segpets.run.files import shown

LEVELS = 31
"""The steps of uncertainty that a page tells apart; more would be noise that doesn't compress."""
CERTAIN = 0.5
"""A wrong pixel below this uncertainty is one that the model was sure of."""


@dataclass(frozen=True)
class Packed:
    """An image and what was predicted for it, small enough to keep thousands of them.

    Attributes:
        image: The image's address, which holds the image itself.
        maps: Truth, prediction and uncertainty of each pixel, compressed; see `pack`.
        size: Width and height of both, in pixels.
        holds: The ids of the classes that the truth has.
        wrong: The share of the pixels of known class that are predicted wrongly; None if the
            class of none is known.
        sure: The same of those wrong pixels whose uncertainty is below `CERTAIN`.
        uncertainty: The mean over all pixels.
    """

    image: str
    maps: str
    size: tuple[int, int]
    holds: tuple[int, ...]
    wrong: float | None
    sure: float | None
    uncertainty: float


@dataclass(frozen=True)
class Kept:
    """An image of the error browser.

    Attributes:
        name: Its name.
        picture: What `pack` made of it.
        mean_iou: Its mean IoU in [0, 1]; None if it has none.
        pixel_accuracy: Its pixel accuracy in [0, 1]; None if it has none.
        iou: For each class its IoU in [0, 1]; None, or nothing, for a class that neither truth
            nor prediction has.
        attributes: What else is known of it, such as breed and species.
    """

    name: str
    picture: Packed
    mean_iou: float | None
    pixel_accuracy: float | None
    iou: Mapping[str, float | None] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


def pack(
    image: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    uncertainty: NDArray[np.floating],
    *,
    side: int = 256,
) -> Packed:
    """Makes an image and its prediction small.

    Shares and means are of the pixels as given, before they are made fewer.

    Args:
        image: RGB, (H, W, 3).
        truth: True class ids, (H, W), with `IGNORE_INDEX` where no class is known.
        predicted: Predicted class ids, (H, W).
        uncertainty: From 0, certain, to 1, as uncertain as can be, (H, W); NaN counts as 1.
        side: The longer side in pixels that the page shows at most. Larger images are resized,
            their maps with nearest neighbour.

    Raises:
        ValueError: The shapes differ.
    """
    shapes = {image.shape[:2], truth.shape, predicted.shape, uncertainty.shape}
    if len(shapes) > 1 or image.shape[2:] != (3,):
        raise ValueError(f"image, truth, predicted and uncertainty differ in shape: {shapes}")
    doubt = np.nan_to_num(uncertainty.astype(np.float32), nan=1.0).clip(0, 1)
    known = truth != IGNORE_INDEX
    wrong = (predicted != truth) & known
    pixels = int(known.sum())
    height, width = truth.shape
    scale = side / max(height, width)
    if scale < 1:
        height, width = (max(round(length * scale), 1) for length in (height, width))
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    rows, columns = (
        ((np.arange(few) + 0.5) * many / few).astype(int)[:, None]
        for few, many in zip((height, width), truth.shape, strict=True)
    )
    near = rows, columns.T
    steps = np.rint(doubt[near] * LEVELS).astype(np.uint8)
    # Differences of neighbours, in both directions and modulo 256, compress better.
    for axis in (0, 1):
        steps = np.diff(steps, axis=axis, prepend=np.uint8(0))
    maps = np.stack([truth[near], predicted[near], steps])  # (3, height, width)
    return Packed(
        image=embedded(image, quality=85),
        maps=base64.b64encode(zlib.compress(maps.tobytes())).decode(),
        size=(width, height),
        holds=tuple(np.unique(truth[known]).tolist()),
        wrong=float(wrong.sum()) / pixels if pixels else None,
        sure=float((wrong & (doubt < CERTAIN)).sum()) / pixels if pixels else None,
        uncertainty=float(doubt.mean()),
    )


def error_browser(
    entries: Iterable[Kept],
    *,
    classes: Sequence[str],
    title: str,
    facts: Mapping[str, str],
    total: int | None = None,
    chosen: str = "",
) -> str:
    """Writes the page.

    Args:
        entries: The images, in any order.
        classes: Class names, in the order of their ids.
        title: The heading of the page.
        facts: What the numbers mean, such as the protocol, by name.
        total: The number of images that the entries were chosen from; None if they are all.
        chosen: How they were chosen, such as "the 100 worst and the 100 best by mean IoU".

    Returns:
        HTML that can be written as UTF-8, and needs no other file and no network. All names are
        escaped; an invalid character (half a surrogate pair) is shown as "?".
    """
    shown = list(entries)
    page = render(
        "segpets.evaluate",
        "error_browser.html.j2",
        title=title,
        facts=facts,
        data=_data(shown, classes),
        classes=[
            (name, "#{:02x}{:02x}{:02x}".format(*colour))
            for name, colour in zip(classes, palette(classes), strict=True)
        ],
        pictures=[(entry.picture.image, entry.picture.maps) for entry in shown],
        images=len(shown),
        total=len(shown) if total is None else total,
        chosen=chosen,
        certain=CERTAIN,
    )
    return encodable(page)


def _data(shown: Sequence[Kept], classes: Sequence[str]) -> dict[str, Any]:
    keys = list(dict.fromkeys(key for entry in shown for key in entry.attributes))
    return {
        "classes": [encodable(name) for name in classes],
        "colours": palette(classes),
        "keys": [encodable(key) for key in keys],
        "levels": LEVELS,
        "ignored": IGNORE_INDEX,
        "images": [
            {
                "name": encodable(entry.name),
                "values": [encodable(entry.attributes.get(key, "")) for key in keys],
                "iou": [_number(entry.iou.get(name)) for name in classes],
                "mean_iou": _number(entry.mean_iou),
                "accuracy": _number(entry.pixel_accuracy),
                "wrong": _number(entry.picture.wrong),
                "sure": _number(entry.picture.sure),
                "uncertainty": _number(entry.picture.uncertainty),
                "holds": entry.picture.holds,
                "size": entry.picture.size,
            }
            for entry in shown
        ],
    }


def error_page(kept: Sequence[Kept], record: Mapping[str, Any], *, title: Path, most: int) -> str:
    """Writes the error browser, with the worst and the best images where there are many."""
    total, chosen = len(kept), ""
    if total > most:
        scored = [one for one in kept if one.mean_iou is not None]
        scored.sort(key=lambda one: (one.mean_iou, one.name))
        worst = -(-most // 2)
        chosen = f"the {worst} worst and the {most - worst} best by mean IoU"
        if len(scored) > most:
            scored = scored[:worst] + scored[len(scored) - (most - worst) :]
        else:
            chosen = f"all {len(scored)} of which pixels count"
        kept = scored
    protocol = record["protocol"]
    words = ("stage", "resolution", "labels", "checkpoint", "epoch")
    return error_browser(
        kept,
        classes=protocol["classes"],
        title=f"Errors of {shown(title)}",
        facts={key: str(protocol[key]) for key in words if protocol.get(key) is not None},
        total=total,
        chosen=chosen,
    )


def _number(value: float | None) -> float | None:
    """Rounds a number to the digits that a reader needs, in a form that JSON can hold."""
    return None if value is None or not math.isfinite(value) else round(value, 4)
