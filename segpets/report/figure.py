"""Pictures of images, masks and confusion matrices."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate, pad

from segpets.labels import IGNORE_INDEX
from segpets.report.paint import IGNORED, RGB, painted
from segpets.report.palette import palette

_SIDE: Final = 512
"""Pixels of the longer side of a picture in a sheet."""


def colourise(mask: Tensor, classes: Sequence[str]) -> RGB:
    """Paints class ids, (..., H, W), in their classes' colours, (..., H, W, 3); 255 is grey."""
    return painted(mask.cpu().numpy(), classes)


def prediction_sheet(
    images: Sequence[Tensor],
    masks: Sequence[Tensor],
    preds: Sequence[Tensor],
    *,
    captions: Sequence[str],
    classes: Sequence[str],
) -> RGB:
    """Draws a row for each image: input, truth, prediction and the prediction over the input.

    Args:
        images: What the net saw of N pictures, each (C, H, W).
        masks: True class ids, each (H, W).
        preds: Predicted class ids, each (H, W).
        captions: What stands under each row.
        classes: Class names, for the legend.

    Returns:
        The picture, (height, width, 3). Rows stand in two columns from six images on.
    """
    seen = [torch.from_numpy(visible(image)).movedim(-1, 0) for image in images]
    inputs = _together(seen, fill=0).movedim(1, -1).numpy()
    truth = colourise(_together(masks, fill=IGNORE_INDEX), classes)
    predicted = colourise(_together(preds, fill=IGNORE_INDEX), classes)
    tiles = (inputs, truth, predicted, mixed(inputs, predicted))
    heading = "input | truth | prediction | prediction over input"
    return sheet(tiles, heading=heading, captions=captions, classes=classes)


def _together(tensors: Sequence[Tensor], *, fill: int) -> Tensor:
    """Stacks pictures, (..., h, w), of any sizes; large ones are shrunk, and small ones padded."""
    shrunk = []
    for tensor in tensors:
        tensor = tensor.cpu()
        if (scale := _SIDE / max(tensor.shape[-2:])) < 1:
            size = [max(1, round(scale * side)) for side in tensor.shape[-2:]]
            planes = tensor if tensor.ndim == 3 else tensor[None]
            tensor = interpolate(planes[None], size=size, mode="nearest-exact")[0]
            tensor = tensor if len(tensor) > 1 else tensor[0]
        shrunk.append(tensor)
    high, wide = (max(tensor.shape[axis] for tensor in shrunk) for axis in (-2, -1))
    return torch.stack(
        [pad(t, (0, wide - t.shape[-1], 0, high - t.shape[-2]), value=fill) for t in shrunk]
    )


def in_columns(rows: Sequence[Sequence[RGB]]) -> list[RGB]:
    """Turns rows of pictures, each (h, w, 3) of any size, to columns for `sheet`: (N, H, W, 3)."""
    planes = [torch.from_numpy(picture).movedim(-1, 0) for row in rows for picture in row]
    alike = _together(planes, fill=255).movedim(1, -1).numpy()
    return [alike[column :: len(rows[0])] for column in range(len(rows[0]))]


def shrunk(picture: RGB) -> RGB:
    """Makes a large picture, (h, w, 3), as small as `sheet` and pages show it."""
    planes = torch.from_numpy(picture).movedim(-1, 0)
    return _together([planes], fill=255)[0].movedim(0, -1).numpy()


def visible(image: Tensor) -> RGB:
    """Shows what a net sees, uint8 or float32 (C, H, W), as colours, (H, W, 3).

    The first three channels are red, green and blue; of fewer, the first is grey.
    """
    if image.dtype != torch.uint8:
        image = (image * 255).round().clamp(0, 255).to(torch.uint8)
    image = image[:3] if len(image) > 2 else image[:1].expand(3, -1, -1)
    return image.movedim(0, -1).cpu().numpy()


def mixed(inputs: RGB, colours: RGB) -> RGB:
    """Lays colours, (..., H, W, 3), over images of the same shape."""
    over: RGB = (0.55 * inputs + 0.45 * colours).astype(np.uint8)
    return over


def outlined(image: RGB, mask: NDArray[np.uint8], classes: Sequence[str]) -> RGB:
    """Draws the edges of a mask's regions into an image, in the colours of their classes.

    Args:
        image: (H, W, 3).
        mask: Class ids, (H, W); ignored pixels turn grey.
        classes: Class names, in the order of their ids.
    """
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    drawn = image.copy()
    drawn[mask == IGNORE_INDEX] = IGNORED
    drawn[edge] = painted(mask, classes)[edge]
    return drawn


def sheet(
    tiles: Sequence[RGB], *, heading: str, captions: Sequence[str], classes: Sequence[str]
) -> RGB:
    """Lays out rows of pictures, with a legend.

    Args:
        tiles: For each column of a row the N pictures, (N, H, W, 3).
        heading: The heading above all rows.
        captions: What stands under each of the N rows.
        classes: Class names, for the legend.

    Returns:
        The picture, (height, width, 3). Rows stand in two columns from six rows on.
    """
    gap, line = 4, 16
    padded = [
        np.pad(tile, ((0, 0), (0, line), (0, gap), (0, 0)), constant_values=255) for tile in tiles
    ]
    rows = np.concatenate(padded, axis=2)  # (N, H + line, len(tiles) * (W + gap), 3)
    columns = 2 if len(rows) >= 6 else 1
    if len(rows) % columns:
        rows = np.concatenate([rows, np.full_like(rows[:1], 255)])
    height, width = rows.shape[1], rows.shape[2]
    blocks = rows.reshape(-1, columns, height, width, 3)
    font = ImageFont.load_default(size=11)
    places, x, y = [], 2.0, line
    for name in classes:
        length = 25 + font.getlength(name)
        if x + length > columns * width and x > 2:
            x, y = 2.0, y + line
        places.append((x, y))
        x += length
    top = y + line
    grid = blocks.swapaxes(1, 2).reshape(-1, columns * width, 3)
    canvas = Image.fromarray(np.pad(grid, ((top, 0), (0, 0), (0, 0)), constant_values=255))
    draw = ImageDraw.Draw(canvas)
    draw.text((2, 1), heading, "black", font)
    for name, colour, (x, y) in zip(classes, palette(classes), places, strict=True):
        draw.rectangle((x, y + 3, x + 9, y + 12), fill=colour)
        draw.text((x + 13, y + 1), name, "black", font)
    for index, full in enumerate(captions):
        caption = full
        row, column = divmod(index, columns)
        bottom = top + (row + 1) * height - line
        while font.getlength(caption) > width - 6:
            caption = caption.removesuffix("...")[:-1] + "..."
        draw.text((column * width + 2, bottom), caption, "black", font)
    return np.asarray(canvas)


def size_figure(sizes: NDArray[np.int64]) -> Figure:
    """Draws the sizes of images.

    Args:
        sizes: Height and width in pixels, (N, 2).
    """
    different, images = np.unique(sizes, axis=0, return_counts=True)
    figure = Figure(figsize=(5, 4), dpi=110)
    axes = figure.subplots()
    area = 12 + 300 * images / images.max()
    axes.scatter(different[:, 1], different[:, 0], s=area, alpha=0.4, linewidths=0)
    axes.set_xlim(0, None)
    axes.set_ylim(0, None)
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    axes.set_title(f"{len(sizes):,} images of {len(different):,} sizes; area: how many", size=9)
    figure.tight_layout()
    return figure


def as_picture(figure: Figure) -> RGB:
    """Renders a figure, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(as_png(figure))).convert("RGB"))


def as_png(figure: Figure) -> bytes:
    """Renders a figure as the content of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def confusion_figure(
    confusion: Tensor, classes: Sequence[str], *, counts_too: bool = False
) -> Figure:
    """Draws a confusion matrix; each cell has the part of the true class's pixels.

    Args:
        confusion: Pixel counts, (C, C), truth in rows.
        classes: Class names.
        counts_too: Whether a cell also says how many pixels these are.
    """
    counts = confusion.cpu().double()
    parts = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    cell = 0.95 if counts_too else 0.7
    figure = Figure(figsize=(1.8 + cell * len(classes), 1.4 + cell * len(classes)), dpi=110)
    axes = figure.subplots()
    axes.imshow(parts, vmin=0, vmax=1, cmap="Blues")
    places, plain = range(len(classes)), {"parse_math": False}
    axes.set_xticks(places, list(classes), rotation=45, ha="right", **plain)
    axes.set_yticks(places, list(classes), **plain)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if len(classes) <= 25:
        for (row, column), part in np.ndenumerate(parts):
            colour = "white" if part > 0.5 else "black"
            text = f"{part:.2f}"
            if counts_too:
                text += f"\n{int(counts[row, column]):,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, linespacing=1.4)
    figure.tight_layout()
    return figure
