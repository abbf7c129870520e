"""Files to pixels: decode, check and resize once, into arrays that every process shares."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from segpets.data.source import Mask, Sample
from segpets.errors import UserError

MEMORY_FRACTION = 0.25
"""The part of the machine's memory that decoded pixels may take; beyond it they are read anew."""

MAX_PIXELS = 200_000_000
"""Images that claim to be larger are refused before they are decoded."""


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """Decodes an image to RGB, (size, size, 3), bilinear with antialiasing.

    GIF (first frame), palette, grey, alpha (dropped), CMYK and 16 bit are converted.

    Raises:
        UserError: The file is truncated, not an image, or claims an absurd size.
    """
    with _opened(path) as image:
        if image.mode.startswith("I;16") or image.mode == "I":
            wide = np.asarray(image, dtype=np.int64)
            image = Image.fromarray((wide.clip(0, 65535) // 257).astype(np.uint8))  # noqa: PLW2901
        elif image.mode == "F":
            raise UserError(f"{path} holds floating-point pixels: convert it to 8 bit RGB")
        rgb = image.convert("RGB")
        if rgb.size != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(rgb)


def read_mask(path: Path, size: int, ids: Callable[[Mask, Path], Mask]) -> Mask:
    """Decodes a mask to class ids, (size, size), by nearest neighbour.

    Raises:
        UserError: The file is truncated, not an image, not of one channel, or holds a value that
            means nothing; the last is judged before resizing.
    """
    with _opened(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise UserError(
                f"{path} is a mask with pixels of type {image.mode}, but masks hold one 8-bit "
                "number a pixel: store it as a greyscale or palette PNG"
            )
        mask = Image.fromarray(ids(np.asarray(image).astype(np.uint8), path))
        if mask.size != (size, size):
            mask = mask.resize((size, size), Image.Resampling.NEAREST)
        return np.asarray(mask)


def _opened(path: Path) -> Image.Image:
    """Opens and decodes a file; every way in which it can fail becomes one clear error."""
    try:
        image = Image.open(path)
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"{path} claims {image.width}x{image.height} pixels, more than the "
                f"{MAX_PIXELS:,} that are accepted: shrink it first"
            )
        image.load()
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path} is not an image that can be read: replace it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} can't be decoded ({error}): replace it") from error
    return image


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
        self._images = torch.empty((kept, 3, size, size), dtype=torch.uint8)
        self._masks = torch.empty((kept, size, size), dtype=torch.uint8)
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
            outcomes = list(threads.map(self._check, range(count)))
        errors = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
        if errors:
            others = f" ({len(errors) - 1} other files have problems, too)" if errors[1:] else ""
            raise UserError(f"{errors[0]}{others}")
        digest = hashlib.blake2b(digest_size=8)
        for sample, outcome in zip(self._samples, outcomes, strict=True):
            digest.update(f"{sample.name} {outcome}\n".encode())
        self.fingerprint = digest.hexdigest()

    def __getitem__(self, name: str) -> tuple[Tensor, Tensor]:
        """Gives image, uint8 (3, size, size), and mask, uint8 (size, size); not to be written to."""
        row = self._row[name]
        if self.in_memory:
            return self._images[row], self._masks[row]
        return self._decode(row)

    def _decode(self, row: int) -> tuple[Tensor, Tensor]:
        sample = self._samples[row]
        image = torch.tensor(read_image(sample.image, self._size)).permute(2, 0, 1).contiguous()
        return image, torch.tensor(read_mask(sample.mask, self._size, self._ids))

    def _check(self, row: int) -> str | UserError:
        """Decodes one sample; gives a hash of its files, or what is wrong with them."""
        sample = self._samples[row]
        try:
            with Image.open(sample.image) as image, Image.open(sample.mask) as mask:
                if image.size != mask.size:
                    raise UserError(
                        f"{sample.image} has {image.width}x{image.height} pixels, but its mask "
                        f"{sample.mask} has {mask.width}x{mask.height}: they must be the same"
                    )
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            pass  # decoding says it better
        except UserError as error:
            return error
        try:
            decoded = self._decode(row)
        except UserError as error:
            return error
        if self.in_memory:
            self._images[row], self._masks[row] = decoded
        digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16)
        digest.update(sample.mask.read_bytes())
        return digest.hexdigest()


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
