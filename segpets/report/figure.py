"""Pictures of images, masks and confusion matrices."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from segpets.labels import palette

RGB = NDArray[np.uint8]
_IGNORED = (128, 128, 128)


def colourise(mask: Tensor, num_classes: int) -> RGB:
    """Paints class ids, (..., H, W), in their classes' colours, (..., H, W, 3); 255 is grey."""
    colours = np.full((256, 3), _IGNORED, dtype=np.uint8)
    colours[:num_classes] = palette(num_classes)
    painted: RGB = colours[mask.cpu().numpy()]
    return painted


def prediction_sheet(
    images: Tensor,
    masks: Tensor,
    preds: Tensor,
    *,
    captions: Sequence[str],
    classes: Sequence[str],
) -> RGB:
    """Draws a row an image: input, truth, prediction and the prediction over the input.

    Args:
        images: uint8 (N, 3, H, W).
        masks: True class ids, (N, H, W).
        preds: Predicted class ids, (N, H, W).
        captions: What stands under each row.
        classes: Class names, for the legend.

    Returns:
        The picture, (height, width, 3). Rows stand in two columns from six images on.
    """
    inputs = images.permute(0, 2, 3, 1).cpu().numpy()
    truth, predicted = colourise(masks, len(classes)), colourise(preds, len(classes))
    mixed = (0.55 * inputs + 0.45 * predicted).astype(np.uint8)
    gap, line = 4, 16
    tiles = [np.pad(x, ((0, 0), (0, line), (0, gap), (0, 0)), constant_values=255)
             for x in (inputs, truth, predicted, mixed)]  # fmt: skip
    rows = np.concatenate(tiles, axis=2)  # (N, H + line, 4 * (W + gap), 3)
    columns = 2 if len(rows) >= 6 else 1
    if len(rows) % columns:
        rows = np.concatenate([rows, np.full_like(rows[:1], 255)])
    height, width = rows.shape[1], rows.shape[2]
    blocks = rows.reshape(-1, columns, height, width, 3)
    sheet = blocks.swapaxes(1, 2).reshape(-1, columns * width, 3)
    sheet = np.pad(sheet, ((2 * line, 0), (0, 0), (0, 0)), constant_values=255)

    canvas = Image.fromarray(sheet)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    draw.text((2, 1), "input | truth | prediction | prediction over input", "black", font)
    x = 2.0
    for name, colour in zip(classes, palette(len(classes)), strict=True):
        draw.rectangle((x, line + 3, x + 9, line + 12), fill=colour)
        draw.text((x + 13, line + 1), name, "black", font)
        x += 25 + draw.textlength(name, font)
    for index, caption in enumerate(captions):
        row, column = divmod(index, columns)
        top = 2 * line + row * height + height - line
        draw.text((column * width + 2, top), caption, "black", font)
    return np.asarray(canvas)


def confusion_figure(confusion: Tensor, classes: Sequence[str]) -> Figure:
    """Draws a confusion matrix; each cell has the part of the true class's pixels.

    Args:
        confusion: Pixel counts, (C, C), truth in rows.
        classes: Class names.
    """
    counts = confusion.cpu().double()
    parts = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    figure = Figure(figsize=(1.8 + 0.7 * len(classes), 1.4 + 0.7 * len(classes)), dpi=110)
    axes = figure.subplots()
    axes.imshow(parts, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(classes)), list(classes), rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), list(classes))
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if len(classes) <= 25:
        for (row, column), part in np.ndenumerate(parts):
            colour = "white" if part > 0.5 else "black"
            axes.text(column, row, f"{part:.2f}", ha="center", va="center", color=colour)
    figure.tight_layout()
    return figure
