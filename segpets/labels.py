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
        seed: Of its augmentation, if that is still to come.
    """

    image: Tensor
    mask: Tensor
    name: str
    seed: NotRequired[int]


class Batch(TypedDict):
    """A batch as the DataModule gives it and the LightningModule takes it.

    Attributes:
        image: uint8, or float32 in [0, 1], (B, C, H, W).
        mask: uint8 class ids, (B, H, W), with `IGNORE_INDEX` where no class is known.
        name: The B images' names.
        seed: int64 (B,), of their augmentation, if that is still to come.
        index: int64 (B,), of images that are on the device; image and mask are still to be taken.
    """

    image: Tensor
    mask: Tensor
    name: NotRequired[list[str]]
    seed: NotRequired[Tensor]
    index: NotRequired[Tensor]


def is_background(name: str) -> bool:
    """Tells whether a class is what is behind the others; capitals don't matter."""
    return name.casefold() == "background"


def check_ids(mask: Tensor, classes: int) -> None:
    """Checks the class ids of a mask, before it goes to a device, from which reading would wait.

    Args:
        mask: Class ids of any shape, `IGNORE_INDEX` where a pixel doesn't count.
        classes: How many classes there are.

    Raises:
        ValueError: An id is none of theirs.
    """
    odd = (mask >= classes) & (mask != IGNORE_INDEX)
    if odd.any():
        raise ValueError(
            f"holds the class id {int(mask[odd].max())}, but data.classes has {classes} classes, "
            f"with ids from 0 to {classes - 1}"
        )
