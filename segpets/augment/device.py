"""Transforms of torchvision for a whole batch at once, on the device that trains.

Each image's parameters are a function of its seed: a counter is hashed, in tensor operations, so
that nothing is read back and no worker process is needed. Flips, affine maps and crops of a batch
are one grid by which image and mask are sampled, and a jitter of colours is one linear map.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from segpets.labels import IGNORE_INDEX

_GREY = (0.2989, 0.587, 0.114)  # torchvision's
_TRIES = 10  # as many boxes does torchvision draw until one fits

Step = Callable[["_Work", Tensor], None]
"""Changes the images for which the second argument, bool (B,), is true."""


class DeviceAugment:
    """Applies v2 transforms to batches of images and masks.

    It has `RandomHorizontalFlip`, `RandomVerticalFlip`, `RandomAffine` without shear,
    `RandomResizedCrop`, `ColorJitter` without hue, `GaussianBlur` and, around them, `RandomApply`.
    Parameters are distributed as torchvision's, and flips, a change of brightness, contrast or
    saturation alone, and blurs give its values. Of several changes of colours, only the last result
    is rounded and clipped, and so their order doesn't matter. Crops are resized without
    antialiasing, which only matters where they shrink.

    Args:
        transforms: The transforms, applied in this order.
        keep_size: Whether a crop is resized to its picture's size, not to its own `size`; its
            `ratio` is then that of its shape to the picture's.

    Raises:
        ValueError: It hasn't one of them.
    """

    def __init__(self, *, transforms: Sequence[v2.Transform], keep_size: bool = False) -> None:
        self.transforms, self.keep_size = tuple(transforms), keep_size
        self._steps = [_step(one, f"augment.transforms[{i}]") for i, one in enumerate(transforms)]

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
        work = _Work(images, masks, seeds, self.keep_size)
        for step in self._steps:
            step(work, torch.ones_like(seeds, dtype=torch.bool))
        work.resample()
        return work.images.contiguous(), work.masks.contiguous()


def _made(transforms: Sequence[v2.Transform], keep_size: bool) -> DeviceAugment:
    return DeviceAugment(transforms=transforms, keep_size=keep_size)


class _Work:
    """A batch on its way.

    Attributes:
        images: (B, C, H, W).
        masks: (B, H, W).
        theta: Where each pixel comes from, (B, 3, 3), in coordinates from -1 to 1.
        size: Height and width that it shall have.
        keep_size: Whether no crop changes it.
        only_flips: True if `theta` mirrors images and does nothing else.
    """

    def __init__(
        self, images: Tensor, masks: Tensor, seeds: Tensor, keep_size: bool = False
    ) -> None:
        self.images, self.masks, self._seeds, self._drawn = images, masks, seeds, 0
        self.keep_size = keep_size
        self._begin()

    def _begin(self) -> None:
        eye = torch.eye(3, device=self.images.device)
        self.theta = eye.expand(len(self.images), 3, 3)
        self.size = (self.images.shape[-2], self.images.shape[-1])
        self.only_flips, self._moved = True, False
        self._axes: set[int] = set()

    def uniform(self, low: float = 0.0, high: float = 1.0, *, count: int = 1) -> Tensor:
        """Draws numbers for each image, float32 (B, count)."""
        counters = torch.arange(self._drawn, self._drawn + count, device=self._seeds.device)
        self._drawn += count
        bits = hashed(self._seeds[:, None], counters)
        return low + (high - low) * (bits * 2.0**-24)

    def move(self, theta: Tensor, *, mirrors: int | None = None) -> None:
        """Adds a map, which is applied after those before it.

        Args:
            theta: The map, (B, 3, 3).
            mirrors: The axis that it mirrors in some images, if it does nothing else: 0 for x.
        """
        self.theta, self._moved = self.theta @ theta, True
        self.only_flips = self.only_flips and mirrors is not None
        if mirrors is not None:
            self._axes.add(mirrors)

    def resample(self) -> None:
        """Does what `theta` says."""
        if self._moved and self.only_flips:
            for axis in self._axes:
                turned = self.theta[:, axis, axis] < 0
                self.images = _flipped(self.images, -1 - axis, turned)
                self.masks = _flipped(self.masks, -1 - axis, turned)
        elif self._moved:
            shape = [*self.images.shape[:2], *self.size]
            grid = F.affine_grid(self.theta[:, :2], shape, align_corners=False)
            sampled = F.grid_sample(self.images.float(), grid, "bilinear", "zeros", False)
            self.images = self._as_before(sampled)
            inside = self.masks[:, None].float() - IGNORE_INDEX  # 0 outside: ignored
            chosen = F.grid_sample(inside, grid, "nearest", "zeros", False)[:, 0] + IGNORE_INDEX
            self.masks = chosen.to(self.masks.dtype)
        self._begin()

    def _as_before(self, values: Tensor) -> Tensor:
        whole = not self.images.is_floating_point()
        return values.round_().to(self.images.dtype) if whole else values

    def jitter(self, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> None:
        """Changes colours by factors, each (B, 1); 1 changes nothing.

        With x a pixel, g its grey value and m the mean of all g, the three changes together are
        b (c (s x + (1 - s) g) + (1 - c) m), in any order: grey values survive the saturation, and
        the mean grows with the brightness.
        """
        if self.images.shape[1] not in (1, 3):
            raise ValueError(f"ColorJitter takes 1 or 3 channels, not {self.images.shape[1]}")
        self.resample()
        integers = not self.images.is_floating_point()
        x = self.images.float()
        b, c, s = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
        grey = x
        if x.shape[1] == 3:
            red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
            grey = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
        grey = grey.floor() if integers else grey
        mean = grey.mean((1, 2, 3), keepdim=True)
        same = torch.addcmul(b * (1 - c) * mean, grey, b * c * (1 - s))
        x = torch.addcmul(same, x, b * c * s)
        x = x.clamp_(0, 255 if integers else 1)
        self.images = x.to(self.images.dtype)  # torchvision doesn't round here, either

    def blur(self, sigma: Tensor, kernel: Sequence[int], when: Tensor) -> None:
        """Blurs by a Gaussian of a standard deviation in pixels, (B, 1)."""
        self.resample()
        batch, channels = self.images.shape[:2]
        width, height = kernel  # as torchvision has them
        lines = []
        for length in (height, width):
            at = torch.linspace(-(length - 1) / 2, (length - 1) / 2, length, device=sigma.device)
            line = torch.exp(-0.5 * (at / sigma) ** 2)
            lines.append(line / line.sum(1, keepdim=True))
        both = lines[0][:, :, None] * lines[1][:, None, :]
        weights = both.repeat_interleave(channels, dim=0)[:, None]
        x = self.images.float().flatten(0, 1)[None]
        x = F.pad(x, (width // 2, width // 2, height // 2, height // 2), mode="reflect")
        x = F.conv2d(x, weights, groups=batch * channels).view(self.images.shape)
        self.images = torch.where(when.view(-1, 1, 1, 1), self._as_before(x), self.images)


def hashed(seeds: Tensor, counters: Tensor) -> Tensor:
    """Hashes pairs of numbers to 24 bits, evenly: SplitMix64.

    Fast Splittable Pseudorandom Number Generators. Steele, Lea, Flood, 2014.

    Args:
        seeds: int64.
        counters: int64, of a shape that fits.
    """
    x = seeds + (counters + 1) * -0x61C8864680B583EB  # 0x9E37... as a signed number
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ _shifted(x, shift)) * factor
    return _shifted(x ^ _shifted(x, 31), 40)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifts to the right, with zeros from the left, as for numbers without a sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _flipped(images: Tensor, axis: int, turned: Tensor) -> Tensor:
    """Mirrors some images; copying whole ones takes a quarter of the time of choosing by pixel."""
    both = torch.cat([images, images.flip(axis)])
    rows = torch.arange(len(images), device=images.device) + len(images) * turned
    return both.index_select(0, rows)


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
    for known, maker in makers.items():
        if issubclass(kind, known):
            return maker(transform, where)
    raise _missing(f"no {kind.__name__}", where)


def _missing(what: str, where: str) -> ValueError:
    return ValueError(
        f"augment=device has {what} ({where}): leave it out, or choose augment=torchvision with "
        "these transforms, which has all of torchvision.transforms.v2"
    )


def _flip(transform: v2.Transform, where: str) -> Step:
    axis = 0 if isinstance(transform, v2.RandomHorizontalFlip) else 1

    def step(work: _Work, when: Tensor) -> None:
        turned = when & (work.uniform()[:, 0] < transform.p)
        theta = torch.eye(3, device=when.device).repeat(len(when), 1, 1)
        theta[:, axis, axis] = torch.where(turned, -1.0, 1.0)
        work.move(theta, mirrors=axis)

    return step


def _affine(transform: v2.Transform, where: str) -> Step:
    if transform.shear is not None or transform.center is not None:
        raise _missing("no RandomAffine with shear or center", where)
    if not _is_bilinear(transform):
        raise _missing("RandomAffine by bilinear interpolation only", where)
    translate, scale = transform.translate or (0.0, 0.0), transform.scale or (1.0, 1.0)

    def step(work: _Work, when: Tensor) -> None:
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
        work.move(_chosen(rows, when))

    return step


def _crop(transform: v2.Transform, where: str) -> Step:
    if not _is_bilinear(transform):
        raise _missing("RandomResizedCrop by bilinear interpolation only", where)
    low, high = (math.log(limit) for limit in transform.ratio)

    def step(work: _Work, when: Tensor) -> None:
        height, width = work.size
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
        work.move(_chosen(rows, when))
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

    def step(work: _Work, when: Tensor) -> None:
        drawn = [work.uniform(*(limit or (1.0, 1.0))) for limit in limits]
        work.jitter(*(torch.where(when[:, None], factor, 1.0) for factor in drawn))

    return step


def _blur(transform: v2.Transform, where: str) -> Step:
    sigma, kernel = transform.sigma, transform.kernel_size
    return lambda work, when: work.blur(work.uniform(*sigma), kernel, when)


def _perhaps(transform: v2.Transform, where: str) -> Step:
    steps = [_step(one, f"{where}.transforms[{i}]") for i, one in enumerate(transform.transforms)]

    def step(work: _Work, when: Tensor) -> None:
        chosen = when & (work.uniform()[:, 0] < transform.p)
        for one in steps:
            one(work, chosen)

    return step
