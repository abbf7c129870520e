"""The result of every augmentation."""

import torch
from torch import Tensor


def check_pair(image: object, mask: object, before: Tensor) -> tuple[Tensor, Tensor]:
    """Returns image and mask as plain contiguous tensors.

    Args:
        image: The augmented image.
        mask: The augmented mask.
        before: The image before, (C, H, W).

    Raises:
        ValueError: They are not of the types before, (C, H, W) and (H, W), any more.
    """
    if (
        not (isinstance(image, Tensor) and isinstance(mask, Tensor))
        or (image.dtype, mask.dtype) != (before.dtype, torch.uint8)
        or image.shape != (len(before), *mask.shape[-2:])
        or mask.ndim != 2
    ):
        kind = str(before.dtype).removeprefix("torch.")
        raise ValueError(
            f"augment.transforms turned the image into {_describe(image)} and the mask into "
            f"{_describe(mask)}; they must stay {kind} ({len(before)}, H, W) and uint8 (H, W). "
            "Leave out conversions (ToDtype, ToTensor, Normalize): they are done on the device, "
            "for every network alike"
        )
    return image.as_subclass(Tensor).contiguous(), mask.as_subclass(Tensor).contiguous()


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
