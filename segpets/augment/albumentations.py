"""Any transforms of Albumentations 2.0, seeded for each image."""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from segpets.augment.pair import check_pair
from segpets.labels import IGNORE_INDEX

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks a server for news
import albumentations as A

_RESIZES: Final = (
    *(A.Resize, A.RandomScale, A.LongestMaxSize, A.SmallestMaxSize),
    *(A.RandomResizedCrop, A.RandomSizedCrop),
)


class AlbumentationsAugment:
    """Applies Albumentations' transforms to image and mask, one after the other.

    The transforms' `fill_mask` and `mask_interpolation` are overruled: the mask is filled with
    `IGNORE_INDEX` and resampled by nearest neighbour, from centre to centre.

    Args:
        transforms: The transforms. Containers such as `A.OneOf` may hold further ones.

    Raises:
        ValueError: A transform isn't one of Albumentations', or was given an argument that it
            doesn't have.
    """

    def __init__(self, *, transforms: Sequence[A.BasicTransform | A.BaseCompose]) -> None:
        for index, transform in enumerate(transforms):
            if not isinstance(transform, A.BasicTransform | A.BaseCompose):
                raise ValueError(
                    f"augment.transforms[{index}] is a {type(transform).__module__}."
                    f"{type(transform).__qualname__}; use one of albumentations"
                )
        self.compose = A.Compose(
            list(transforms), mask_interpolation=cv2.INTER_NEAREST, strict=True
        )
        for transform in self.compose.transforms:
            _prepare(transform)

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the pair that belongs to the seed, an integer from 0 on.

        Args:
            image: uint8, or float32 in [0, 1], (C, H, W).
            mask: uint8 (H, W).
            seed: Chooses among the possible pairs.
        """
        # One pair of generators for all transforms. Compose.set_random_seed would give each its
        # own, in the same state: all would draw the same numbers, and flip only what they darken.
        self.compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        # Copies, because a transform may work in place, and the inputs may be a cache of pixels.
        height_width_rgb = (
            cv2.merge(tuple(image.numpy()))
            if len(image) == 3
            else np.ascontiguousarray(np.moveaxis(image.numpy(), 0, -1))
        )
        with _one_thread():
            pair = self.compose(image=height_width_rgb, mask=mask.numpy().copy())
        return check_pair(_channels_first(pair["image"]), torch.as_tensor(pair["mask"]), image)


def _channels_first(image: object) -> Tensor:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3:
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
    planes = np.empty((3, *array.shape[:2]), dtype=array.dtype)
    cv2.split(array, list(planes))  # a fifth of the time of a transposed copy
    return torch.from_numpy(planes)


def _prepare(transform: A.BasicTransform | A.BaseCompose) -> None:
    if isinstance(transform, A.BaseCompose):
        for child in transform.transforms:
            _prepare(child)
        return
    if getattr(transform, "fill_mask", None) is not None:
        transform.fill_mask = IGNORE_INDEX
    if isinstance(transform, _RESIZES):
        # OpenCV's INTER_NEAREST lies half a pixel beside the image in a resize. Warps know no
        # other, and take the centres.
        transform.mask_interpolation = cv2.INTER_NEAREST_EXACT


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps OpenCV from starting threads, which would not survive the fork of a data worker."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
