"""The vocabulary that every room shares: what a batch holds and what a class is."""

import colorsys
from typing import Final, NotRequired, TypedDict

from torch import Tensor

IGNORE_INDEX: Final = 255
"""The mask value of pixels that belong to no class: no loss and no metric counts them."""


class Item(TypedDict):
    """One image of a data set.

    Attributes:
        image: uint8 RGB, (3, H, W).
        mask: uint8 class ids, (H, W), with `IGNORE_INDEX` where no class is known.
        name: The image's name, without folder and suffix.
    """

    image: Tensor
    mask: Tensor
    name: str


class Batch(TypedDict):
    """A batch as the DataModule gives it and the LightningModule takes it.

    Attributes:
        image: uint8 RGB, (B, 3, H, W).
        mask: uint8 class ids, (B, H, W), with `IGNORE_INDEX` where no class is known.
        name: The B images' names.
    """

    image: Tensor
    mask: Tensor
    name: NotRequired[list[str]]


def palette(num_classes: int) -> list[tuple[int, int, int]]:
    """The colours of classes in pictures, RGB: the first are told apart by colour-blind readers.

    The first eight are of M. Okabe and K. Ito, "Color Universal Design" (2008); further ones walk
    the hue by the golden angle.
    """
    colours = [
        (230, 159, 0),
        (0, 0, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ]
    for index in range(len(colours), num_classes):
        rgb = colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.55 + 0.45 * (index % 2), 0.9)
        colours.append((int(rgb[0] * 255), int(rgb[1] * 255), int(rgb[2] * 255)))
    return colours[:num_classes]
