"""Transforms of torchvision for a whole batch at once, on the device that trains.

Each image's parameters are a function of its seed: a counter is hashed, in tensor operations, so
that nothing is read back and no worker process is needed. Flips, affine maps and crops of a batch
are one grid by which image and mask are sampled, and a jitter of colours is one linear map.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from segpets.augment.work import Work

_TRIES = 10  # as many boxes does torchvision draw until one fits

Step = Callable[[Work, Tensor], None]
"""Changes the images for which the second argument, bool (B,), is true."""


class DeviceAugment:
    """Applies v2 transforms to batches of images and masks.

    It has `RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomAffine` without shear,
    `RandomResizedCrop`, `ColorJitter` without hue, `GaussianBlur` and, around them, `RandomApply`.
    Parameters are distributed as torchvision's, and flips, a change of brightness, contrast or
    saturation alone, and blurs give its values. Of several changes of colours, only the last result
    is rounded and clipped, and so their order doesn't matter. Crops are resized without
    antialiasing, and those that may shrink must say so: `antialias: false`.

    Args:
        transforms: The transforms, applied in this order.
        keep_size: Whether a crop is resized to its picture's size; its own `size` must then be 1,
            and its `ratio` is that of its shape to the picture's.

    Raises:
        ValueError: It hasn't one of them, or a crop has another size.
    """

    def __init__(self, *, transforms: Sequence[v2.Transform], keep_size: bool = False) -> None:
        self.transforms, self.keep_size = tuple(transforms), keep_size
        self._steps = [_step(one, f"augment.transforms[{i}]") for i, one in enumerate(transforms)]
        _check_sizes(transforms, keep_size=keep_size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets it travel to processes that are spawned, which functions within functions can't."""
        return _made, (self.transforms, self.keep_size)

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Augments one pair, as a batch of one.

        Args:
            image: uint8, or float32 in [0, 1], (C, H, W).
            mask: uint8 (H, W).
            seed: Chooses among the possible pairs.
        """
        images, masks = self.batch(image[None], mask[None], torch.tensor([seed]))
        return images[0], masks[0]

    @torch.no_grad()
    def batch(self, images: Tensor, masks: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Augments a batch.

        Args:
            images: uint8, or float32 in [0, 1], (B, C, H, W).
            masks: uint8 (B, H, W).
            seeds: int64 (B,), on the same device.

        Returns:
            Images and masks of the same types; their size may be another.
        """
        work = Work(images, masks, seeds, self.keep_size)
        for step in self._steps:
            step(work, torch.ones_like(seeds, dtype=torch.bool))
        work.resample()
        return work.images.contiguous(), work.masks.contiguous()


def _made(transforms: Sequence[v2.Transform], keep_size: bool) -> DeviceAugment:
    return DeviceAugment(transforms=transforms, keep_size=keep_size)


def _check_sizes(transforms: Sequence[v2.Transform], *, keep_size: bool) -> None:
    for one in transforms:
        if isinstance(one, v2.RandomApply):
            _check_sizes(one.transforms, keep_size=keep_size)
        elif isinstance(one, v2.RandomResizedCrop) and keep_size != (set(one.size) == {1}):
            raise ValueError(
                f"augment.keep_size=true resizes crops to the size of their pictures, not to "
                f"{[*one.size]}: leave size=1, or give augment.keep_size=false besides"
                if keep_size
                else "augment.keep_size=false resizes crops to their own size, which is 1: give one"
            )


def _step(transform: v2.Transform, where: str) -> Step:
    kind = type(transform)
    makers: dict[type, Callable[[v2.Transform, str], Step]] = {
        v2.RandomHorizontalFlip: _flip,
        v2.RandomVerticalFlip: _flip,
        v2.RandomAffine: _affine,
        v2.RandomResizedCrop: _crop,
        v2.ColorJitter: _jitter,
        v2.GaussianBlur: _blur,
        v2.RandomApply: _perhaps,
    }
    ours = kind.__module__.startswith("segpets.")  # which are faster, and mean the same
    for known, maker in makers.items():
        if kind is known or (ours and issubclass(kind, known)):
            return maker(transform, where)
    package = kind.__module__.partition(".")[0]
    raise _missing(f"no {'' if package == 'torchvision' else f'{package}.'}{kind.__name__}", where)


def _missing(what: str, where: str) -> ValueError:
    return ValueError(
        f"DeviceAugment (augment=device, device_crop) has {what} ({where}): leave it out, or "
        "choose augment=torchvision with these transforms, which has all of torchvision's v2, or "
        "augment=albumentations for those of Albumentations"
    )


def _flip(transform: v2.Transform, where: str) -> Step:
    axis = 0 if isinstance(transform, v2.RandomHorizontalFlip) else 1

    def step(work: Work, when: Tensor) -> None:
        turned = when & (work.uniform()[:, 0] < transform.p)
        theta = torch.eye(3, device=when.device).repeat(len(when), 1, 1)
        theta[:, axis, axis] = torch.where(turned, -1.0, 1.0)
        work.move(theta, within=True, mirrors=axis)

    return step


def _affine(transform: v2.Transform, where: str) -> Step:
    if transform.shear is not None or transform.center is not None:
        raise _missing("no RandomAffine with shear or center", where)
    if not _is_bilinear(transform):
        raise _missing("RandomAffine by bilinear interpolation only", where)
    if transform.fill not in (0, None):
        raise _missing("RandomAffine with fill=0 only", where)
    translate, scale = transform.translate or (0.0, 0.0), transform.scale or (1.0, 1.0)

    def step(work: Work, when: Tensor) -> None:
        if not work.only_flips:
            work.resample()  # what is outside by now shall be black
        height, width = work.size
        angle = work.uniform(*map(math.radians, transform.degrees))[:, 0]
        across = (work.uniform(-1, 1)[:, 0] * translate[0] * width).round()
        down = (work.uniform(-1, 1)[:, 0] * translate[1] * height).round()
        size = work.uniform(*scale)[:, 0]
        cos, sin = angle.cos() / size, angle.sin() / size
        x, y = -(cos * across + sin * down), sin * across - cos * down
        rows = [cos, sin * height / width, 2 * x / width]
        rows += [-sin * width / height, cos, 2 * y / height]
        work.move(_chosen(rows, when), within=False)

    return step


def _crop(transform: v2.Transform, where: str) -> Step:
    if not _is_bilinear(transform):
        raise _missing("RandomResizedCrop by bilinear interpolation only", where)
    low, high = (math.log(limit) for limit in transform.ratio)

    def step(work: Work, when: Tensor) -> None:
        height, width = work.size
        if transform.antialias and not work.keep_size:
            if transform.size[0] < height or transform.size[-1] < width:
                raise _missing("no antialiasing of crops that shrink: say antialias=false", where)
        shape = width / height if work.keep_size else 1.0
        area = height * width * work.uniform(*transform.scale, count=_TRIES)
        ratio = shape * work.uniform(low, high, count=_TRIES).exp()
        wide, high_ = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (wide > 0) & (wide <= width) & (high_ > 0) & (high_ <= height)
        first = fits.int().argmax(1, keepdim=True)
        # Where none fits, all of the picture, as far as the ratio lets it.
        narrow, broad = (shape * limit for limit in transform.ratio)
        full_w = width if width <= height * broad else round(height * broad)
        full_h = height if width >= height * narrow else round(width / narrow)
        some = fits.any(1)
        w = torch.where(some, wide.gather(1, first)[:, 0], float(full_w))
        h = torch.where(some, high_.gather(1, first)[:, 0], float(full_h))
        x, y = work.uniform(count=2).unbind(1)
        left = torch.where(some, (x * (width - w + 1)).floor(), (width - w) // 2)
        top = torch.where(some, (y * (height - h + 1)).floor(), (height - h) // 2)
        zero, x, y = torch.zeros_like(w), (2 * left + w) / width - 1, (2 * top + h) / height - 1
        rows = [w / width, zero, x, zero, h / height, y]
        work.move(_chosen(rows, when), within=True)
        work.size = work.size if work.keep_size else (transform.size[0], transform.size[-1])

    return step


def _is_bilinear(transform: v2.Transform) -> bool:
    given = transform.interpolation  # an integer, a name, or a member of an enumeration of names
    return getattr(given, "value", given) in (2, "bilinear")


def _chosen(rows: list[Tensor], when: Tensor) -> Tensor:
    """Makes maps (B, 3, 3) of their first two rows; of images that aren't meant, identities."""
    last = [torch.zeros_like(rows[0]), torch.zeros_like(rows[0]), torch.ones_like(rows[0])]
    theta = torch.stack([*rows, *last], dim=1).view(-1, 3, 3)
    return torch.where(when.view(-1, 1, 1), theta, torch.eye(3, device=when.device))


def _jitter(transform: v2.Transform, where: str) -> Step:
    if transform.hue is not None:
        raise _missing("no ColorJitter with hue", where)
    limits = [transform.brightness, transform.contrast, transform.saturation]

    def step(work: Work, when: Tensor) -> None:
        drawn = [work.uniform(*(limit or (1.0, 1.0))) for limit in limits]
        work.jitter(*(torch.where(when[:, None], factor, 1.0) for factor in drawn))

    return step


def _blur(transform: v2.Transform, where: str) -> Step:
    sigma, kernel = transform.sigma, transform.kernel_size
    return lambda work, when: work.blur(work.uniform(*sigma), kernel, when)


def _perhaps(transform: v2.Transform, where: str) -> Step:
    steps = [_step(one, f"{where}.transforms[{i}]") for i, one in enumerate(transform.transforms)]

    def step(work: Work, when: Tensor) -> None:
        chosen = when & (work.uniform()[:, 0] < transform.p)
        for one in steps:
            one(work, chosen)

    return step
