"""Files to pixels: decode, check and resize once, into arrays that every process shares."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from segpets.data.source import Mask, Sample
from segpets.errors import UserError

Pixel8 = NDArray[np.uint8]

MEMORY_FRACTION = 0.25
"""The part of the machine's memory that decoded pixels may take; beyond it they are read anew."""

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its suffix says. Some other formats start programs to be read."""

_IMAGE_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_MASK_MODES = {"1", "L", "P"}


def read_image(path: Path, size: int) -> Pixel8:
    """Decodes an image to RGB, (size, size, 3), bilinear with antialiasing.

    GIF (first frame), palette, grey, alpha (dropped), CMYK and 16 bit are converted. An EXIF
    orientation is left alone, because masks are drawn on the pixels as they are stored.

    Raises:
        UserError: The file is truncated, not an image, or claims an absurd size.
    """
    with _opened(path) as image:
        return _rgb(image, path, size)


def read_mask(path: Path, size: int, ids: Callable[[Mask, Path], Mask]) -> Mask:
    """Decodes a mask to class ids, (size, size), by nearest neighbour.

    Raises:
        UserError: The file is truncated, not an image, not of one channel, or holds a value that
            means nothing; the last is judged before resizing.
    """
    with _opened(path) as mask:
        return _class_ids(mask, path, size, ids)


def _opened(path: Path) -> Image.Image:
    """Opens and decodes a file; every way in which it can fail becomes one clear error."""
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path} is not an image that can be read: replace it by one of {', '.join(FORMATS)}"
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} claims too many pixels ({error}): shrink it") from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever they like
        raise UserError(f"{path} can't be opened ({error}): replace it") from error
    try:
        image.load()
    except Exception as error:
        image.close()
        raise UserError(f"{path} can't be decoded ({error}): replace it") from error
    return image


def _rgb(image: Image.Image, path: Path, size: int) -> Pixel8:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # From 0..65535 to 0..255; Pillow's own conversion would cut off at 255.
        wide = np.asarray(image).clip(0, 65535)
        image = Image.fromarray((wide // 257).astype(np.uint8))
    elif image.mode not in _IMAGE_MODES:
        raise UserError(f"{path} has pixels of type {image.mode}: convert it to 8-bit RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _class_ids(mask: Image.Image, path: Path, size: int, ids: Callable[[Mask, Path], Mask]) -> Mask:
    if mask.mode not in _MASK_MODES:
        raise UserError(
            f"{path} is a mask with pixels of type {mask.mode}, but masks hold one 8-bit number a "
            "pixel: store it as a greyscale or palette PNG"
        )
    resized = Image.fromarray(ids(np.asarray(mask).astype(np.uint8), path))
    if resized.size != (size, size):
        resized = resized.resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(resized)


class Pixels:
    """The decoded pixels of samples, at one size.

    All files are decoded and checked when it is made, in threads, so that a bad file stops a run
    before the first step. The pixels are kept where they fit into `MEMORY_FRACTION` of the
    memory, and else decoded at each access.

    Args:
        samples: Whose pixels; a sample that is listed twice is decoded once.
        size: Height and width in pixels.
        ids: See `Source.mask_ids`.

    Attributes:
        in_memory: Whether the pixels are kept.
        fingerprint: A hash of all files' bytes and names, which names the data in a summary.

    Raises:
        UserError: Files can't be used; the message names the first of them and counts the rest.
    """

    def __init__(
        self, samples: Sequence[Sample], *, size: int, ids: Callable[[Mask, Path], Mask]
    ) -> None:
        self._samples = sorted({s.name: s for s in samples}.values(), key=lambda s: s.name)
        self._row = {sample.name: row for row, sample in enumerate(self._samples)}
        self._size, self._ids = size, ids
        count = len(self._samples)
        self.in_memory = count * size * size * 4 <= MEMORY_FRACTION * _physical_memory()
        kept = count if self.in_memory else 0
        # Tensors, since workers share them however they are started. But NumPy writes and copies:
        # torch would wake its threads for each image, and wait for them when the cores are busy.
        self._images = torch.empty((kept, 3, size, size), dtype=torch.uint8)
        self._masks = torch.empty((kept, size, size), dtype=torch.uint8)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            outcomes = list(threads.map(self._check, range(count)))
        errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
        if errors:
            others = f". {len(errors) - 1} more can't be used either" if errors[1:] else ""
            raise UserError(f"{errors[0]}{others}")
        digest = hashlib.blake2b(digest_size=8)
        for sample, outcome in zip(self._samples, outcomes, strict=True):
            digest.update(f"{sample.name} {outcome}\n".encode())
        self.fingerprint = digest.hexdigest()

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        """Gives image, uint8 (3, size, size), and mask, uint8 (size, size): read-only views."""
        row = self._row[name]
        if self.in_memory:
            return self._images[row], self._masks[row]
        image, mask = self._decode(row)
        return torch.from_numpy(image), torch.from_numpy(mask)

    def _decode(self, row: int) -> tuple[Pixel8, Mask]:
        """Decodes a sample to writable arrays, (3, size, size) and (size, size)."""
        sample = self._samples[row]
        with _opened(sample.image) as image, _opened(sample.mask) as mask:
            if image.size != mask.size:
                raise UserError(
                    f"{sample.image} has {image.width}x{image.height} pixels, but its mask "
                    f"{sample.mask} has {mask.width}x{mask.height}: they must be the same"
                )
            rgb = _rgb(image, sample.image, self._size)
            ids = _class_ids(mask, sample.mask, self._size, self._ids)
        return np.moveaxis(rgb, -1, 0).copy(order="C"), ids.copy()

    def _check(self, row: int) -> str | UserError:
        """Decodes one sample; gives a hash of its files, or what is wrong with them."""
        sample = self._samples[row]
        try:
            image, mask = self._decode(row)
        except UserError as error:
            return error
        if self.in_memory:
            self._images[row].numpy()[:] = image
            self._masks[row].numpy()[:] = mask
        digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16)
        digest.update(sample.mask.read_bytes())
        return digest.hexdigest()


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
