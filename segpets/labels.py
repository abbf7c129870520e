"""The vocabulary that every room shares: what a batch holds and what a class is."""

from typing import Final, NotRequired, TypedDict

from torch import Tensor

IGNORE_INDEX: Final = 255
"""The mask value of pixels that belong to no class: no loss and no metric counts them."""


class Item(TypedDict):
    """One image of a data set.

    Attributes:
        image: uint8, or float32 in [0, 1], (C, H, W).
        mask: uint8 class ids, (H, W), with `IGNORE_INDEX` where no class is known.
        name: The image's name, without folder and suffix.
    """

    image: Tensor
    mask: Tensor
    name: str


class Batch(TypedDict):
    """A batch as the DataModule gives it and the LightningModule takes it.

    Attributes:
        image: uint8, or float32 in [0, 1], (B, C, H, W).
        mask: uint8 class ids, (B, H, W), with `IGNORE_INDEX` where no class is known.
        name: The B images' names.
    """

    image: Tensor
    mask: Tensor
    name: NotRequired[list[str]]


def is_background(name: str) -> bool:
    """Tells whether a class is what is behind the others; capitals don't matter."""
    return name.casefold() == "background"
