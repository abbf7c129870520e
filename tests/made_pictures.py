"""Pictures made by hand, and a net that tells colours apart."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d

from segpets.data.reader import Reader

RED, GREEN = (255, 0, 0), (0, 255, 0)
SMALL = Reader((16, 16))


@dataclass(frozen=True)
class Colours:
    """Logits are the red, green and blue of a pixel, so class 0 is what is red."""

    reader: Reader = SMALL
    window: None = None
    stride: int = 4

    def logits(self, images: Tensor) -> Tensor:
        return images.float() / 16


@dataclass(frozen=True)
class Blurring:
    """A fully convolutional net that sees two pixels to each side."""

    reader: Reader = SMALL
    window: None = None
    stride: int = 4

    def logits(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        kernels = torch.randn(4, 3, 5, 5, generator=generator)
        return conv2d(images.float() / 255, kernels, padding=2)


def left_red(width: int = 40, height: int = 20) -> Image.Image:
    """The left quarter is red, the rest green."""
    image = Image.new("RGB", (width, height), GREEN)
    image.paste(RED, (0, 0, width // 4, height))
    return image


def turned(path: Path, orientation: int, **options: int) -> Path:
    """Saves `left_red` with an orientation in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    left_red().save(path, exif=exif, **options)
    return path


def seen(path: Path, size: int, **options: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What a net of this size sees of a file, (3, size, size), and the file's height and width."""
    with Reader((size, size)).opened([path], **options) as picture:
        return picture.fitted().numpy(), picture.size
