"""A batch of images and masks on its way through an augmentation of whole batches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segpets.errors import UserError
from segpets.labels import IGNORE_INDEX

_GREY = (0.2989, 0.587, 0.114)  # torchvision's
_AT_ONCE = 64


class Work:
    """A batch on its way.

    Attributes:
        images: (B, C, H, W).
        masks: (B, H, W).
        theta: Where each pixel comes from, (B, 3, 3), in coordinates from -1 to 1.
        size: Height and width that it shall have.
        keep_size: Whether no crop changes it.
        only_flips: True if `theta` mirrors images and does nothing else.
        within: True if `theta` takes all pixels from within the images; beside the outermost
            pixels there are more of them then, else there is black, and no class.
    """

    def __init__(
        self, images: Tensor, masks: Tensor, seeds: Tensor, keep_size: bool = False
    ) -> None:
        self.images, self.masks, self._seeds, self._drawn = images, masks, seeds, 0
        self._numbers = seeds.new_empty((len(seeds), 0), dtype=torch.float32)  # many at once
        self.keep_size = keep_size
        self._begin()

    def _begin(self) -> None:
        eye = torch.eye(3, device=self.images.device)
        self.theta = eye.expand(len(self.images), 3, 3)
        self.size = (self.images.shape[-2], self.images.shape[-1])
        self.only_flips, self.within, self._moved = True, True, False
        self._axes: set[int] = set()

    def uniform(self, low: float = 0.0, high: float = 1.0, *, count: int = 1) -> Tensor:
        """Draws numbers for each image, float32 (B, count)."""
        begin, end = self._drawn, self._drawn + count
        self._drawn = end
        while end > self._numbers.shape[1]:
            made = self._numbers.shape[1]
            counters = torch.arange(made, made + _AT_ONCE, device=self._seeds.device)
            more = hashed(self._seeds[:, None], counters) * 2.0**-24
            self._numbers = torch.cat([self._numbers, more], dim=1)
        return low + (high - low) * self._numbers[:, begin:end]

    def move(self, theta: Tensor, *, within: bool, mirrors: int | None = None) -> None:
        """Adds a map, which is applied after those before it.

        Args:
            theta: The map, (B, 3, 3).
            within: Whether it takes all pixels from within the images.
            mirrors: The axis that it mirrors in some images, if it does nothing else: 0 for x.
        """
        self.theta, self._moved = self.theta @ theta, True
        self.within = self.within and within
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
            grid = self._grid()
            beyond = "border" if self.within else "zeros"
            sampled = F.grid_sample(self.images.float(), grid, "bilinear", beyond, False)
            self.images = self._as_before(sampled)
            inside = self.masks[:, None].float() - IGNORE_INDEX  # 0 outside: ignored
            chosen = F.grid_sample(inside, grid, "nearest", beyond, False)[:, 0] + IGNORE_INDEX
            self.masks = chosen.to(self.masks.dtype)
        self._begin()

    def _grid(self) -> Tensor:
        """Places each pixel, (B, *size, 2)."""
        if not self.within:
            shape = [*self.images.shape[:2], *self.size]
            return F.affine_grid(self.theta[:, :2], shape, align_corners=False)
        # Nothing is turned, so rows and columns have places of their own: a sixth of the time.
        places = []
        for axis, length in enumerate(reversed(self.size)):
            middles = torch.linspace(-1, 1, length, device=self.theta.device)
            middles = middles * ((length - 1) / length)
            scale, shift = self.theta[:, axis, axis, None], self.theta[:, axis, 2, None]
            places.append(torch.addcmul(shift, scale, middles))
        across, down = places[0][:, None, :], places[1][:, :, None]
        whole = (len(self.theta), *self.size)
        return torch.stack([across.expand(whole), down.expand(whole)], dim=-1)

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
        """Blurs by a Gaussian of a standard deviation in pixels, (B, 1).

        Raises:
            UserError: The kernel is too large for the images.
        """
        self.resample()
        batch, channels = self.images.shape[:2]
        width, height = kernel  # as torchvision has them
        if width // 2 >= self.images.shape[3] or height // 2 >= self.images.shape[2]:
            raise UserError(
                f"GaussianBlur's kernel of {width}x{height} pixels is too large for images of "
                f"{self.images.shape[3]}x{self.images.shape[2]}, whose edges it mirrors: give a "
                "smaller kernel_size in augment.transforms"
            )
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
