"""Any transforms of torchvision.transforms.v2, seeded for each image."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segpets.augment.pair import check_pair
from segpets.augment.scale_crop import ScaleCrop
from segpets.hardware import threads
from segpets.labels import IGNORE_INDEX

_LENT: Final = threading.RLock()


class TorchvisionAugment:
    """Applies v2 transforms to image and mask, one after the other.

    The transforms' `fill` is for the image only: the mask is filled with `IGNORE_INDEX`.

    Args:
        transforms: The transforms. Containers such as `v2.RandomApply` may hold further ones.

    Raises:
        ValueError: A transform isn't one of `torchvision.transforms.v2`.
    """

    def __init__(self, *, transforms: Sequence[v2.Transform]) -> None:
        for index, transform in enumerate(transforms):
            if not isinstance(transform, v2.Transform):
                raise ValueError(
                    f"augment.transforms[{index}] is a {type(transform).__module__}."
                    f"{type(transform).__qualname__}, which can't move image and mask together; "
                    "use one of torchvision.transforms.v2"
                )
            _prepare(transform)
        self.transforms = tuple(transforms)
        first = transforms[0] if transforms else None
        self._cuts = first if isinstance(first, ScaleCrop) else None

    def piece(self, mask: Tensor, *, seed: int) -> tuple[int, int, int, int] | None:
        """Tells which part of a picture is looked at, so that the rest needn't be decoded.

        Returns:
            Its first row and column, height and width; it may reach beyond the picture. None:
            all of the picture is looked at.
        """
        if self._cuts is None:
            return None
        with _isolated(seed):
            return self._cuts.box(mask)

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the pair that belongs to the seed, an integer from 0 to 2**64 - 1.

        Args:
            image: uint8, or float32 in [0, 1], (C, H, W).
            mask: uint8 (H, W).
            seed: Chooses among the possible pairs.
        """
        pair = tv_tensors.Image(image), _Labels(mask)
        with _isolated(seed):
            if self._cuts is None:  # a transform may work in place; what cuts copies its piece only
                pair = pair[0].clone(), pair[1].clone()
            for transform in self.transforms:
                pair = transform(*pair)
            return check_pair(*pair, image)


class _Labels(tv_tensors.Mask):  # type: ignore[misc]  # torchvision has no types
    """A mask that resizes choose from by the centres of pixels, as they do from images.

    torchvision's own lies half a pixel beside its image then.
    """


@F.register_kernel(F.resize, _Labels)  # type: ignore[untyped-decorator]
def _resized(
    mask: _Labels, size: list[int] | None, max_size: int | None = None, **_: Any
) -> _Labels:
    nearest = v2.InterpolationMode.NEAREST_EXACT
    plain = mask.as_subclass(Tensor).unsqueeze(0)
    resized = F.resize_image(plain, size, interpolation=nearest, max_size=max_size)
    return _Labels(resized.squeeze(0))


@F.register_kernel(F.resized_crop, _Labels)  # type: ignore[untyped-decorator]
def _cropped_and_resized(
    mask: _Labels, top: int, left: int, height: int, width: int, size: list[int], **_: Any
) -> _Labels:
    resized: _Labels = _resized(F.crop(mask, top, left, height, width), size)
    return resized


class ColorJitter(v2.ColorJitter):  # type: ignore[misc]  # torchvision has no types
    """The same, without comparing tensors of one number 20 times: that was half of its time."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the factors, and their order as a plain list."""
        params: dict[str, Any] = super().make_params(flat_inputs)
        return params | {"fn_idx": params["fn_idx"].tolist()}


def _prepare(transform: v2.Transform) -> None:
    if type(transform) is v2.ColorJitter:
        transform.__class__ = ColorJitter
    # v2 takes a fill for each type, but only as a dict whose keys are the types: YAML has no such.
    if hasattr(transform, "_fill"):
        transform._fill = {**transform._fill, _Labels: IGNORE_INDEX}
    for child in getattr(transform, "transforms", ()):
        if isinstance(child, v2.Transform):
            _prepare(child)


@contextmanager
def _isolated(seed: int) -> Iterator[None]:
    """Lends torch's global generator, the only one that v2 draws from, in a state set by the seed.

    One borrower at a time, since several threads decode files. And one thread for its work, because
    the sum of a large picture, and so its contrast, depends in the last bits on how many threads
    share it, and because pictures are too small to share: where other processes keep the cores
    busy, waiting for a second thread takes 20 times as long as the work.
    This costs 3 microseconds in all; `torch.manual_seed`, which visits every device, costs 100.
    """
    generator = torch.default_generator
    with _LENT:
        state = generator.get_state()
        # The generator looks at the lower 32 bits only. A multiplicative hash lets all 64 count.
        generator.manual_seed((seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32)
        try:
            with threads(1):
                yield
        finally:
            generator.set_state(state)
