"""Turns files into arrays, one at a time; each is treated as hostile until decoded."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from segpets.data.png import check_rows
from segpets.data.source import Mask
from segpets.errors import FileError
from segpets.reading import in_one_line, read_bytes

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What a file may hold, whatever its suffix says. Some other formats start programs to be read."""

DRAFT: Final = 2
"""A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where at least this many times the wanted size
is left; benchmarks/data.py shows how far that is from decoding it whole."""

MAX_PIXELS: Final = 89_478_485
"""What a file may claim, decoded 256 MB of RGB: from there on, Pillow takes it for an attack."""

LARGE: Final = 1 << 24
"""Pixels from which on a picture is worked on in strips, and alone: so many are 50 MB of RGB."""

SMALL_FILE: Final = 64_000_000
_MOST_PAGES: Final = 10_000
_BYTES_OF_A_PIXEL: Final = 16
_LARGEST_TILE: Final = 1 << 22
_MOST_SCANS: Final = 100
_MOST_SCANNED: Final = 2_000_000_000
_LARGEST_WEBP: Final = 1 << 26
_LARGEST_PLAIN: Final = 1 << 20
_ALONE: Final = threading.RLock()

# What Pillow warns about is refused here.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_IMAGE_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_INDEX_MODES = {"1", "L", "P"}


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a file without decoding its pixels.

    Args:
        path: The file.
        max_pixels: What it may claim. Beyond twice `MAX_PIXELS`, Pillow refuses it, unless
            `PIL.Image.MAX_IMAGE_PIXELS` is raised, too.

    Raises:
        FileError: It is missing, isn't an image, or claims an absurd size.
    """
    try:
        # Read whole: what Pillow reads later, lazily, could come from a file that has changed.
        content = read_bytes(path, _file_limit(path, max_pixels))
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise Image.DecompressionBombError(f"Image size ({image.width * image.height} pixels)")
        _check_cost(image, content)
        return _bmp_of_greys(content) if _is_bmp_of_greys(content, image) else image
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise FileError(
            path, "is not an image that can be read", f"replace it by one of {names}"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        claim = str(error).partition(" exceeds")[0]
        raise too_many_pixels(path, claim, max_pixels) from error
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever they like
        raise FileError(path, f"can't be opened ({in_one_line(error)})", "replace it") from error


def too_many_pixels(path: Path, claim: str, limit: int) -> FileError:
    """Makes the error of a file that claims more pixels than it may."""
    return FileError(
        path,
        f"claims too many pixels ({claim}), more than {limit:,}",
        "shrink it, or cut it into tiles",
    )


def _file_limit(path: Path, max_pixels: int) -> int:
    """Computes how many bytes a picture's file may have; a few pixels need no gigabytes."""
    if path.stat().st_size <= SMALL_FILE:
        return SMALL_FILE
    with path.open("rb") as stream:  # regular, since a pipe or a device has no size
        with Image.open(stream, formats=FORMATS) as image:
            pixels = min(image.width * image.height, max_pixels) * _pages(image)
    return SMALL_FILE + _BYTES_OF_A_PIXEL * pixels


def _pages(image: Image.Image) -> int:
    """Counts the pages of a TIFF, which lie in one file; those beyond a limit don't count."""
    try:
        return min(int(getattr(image, "n_frames", 1)), _MOST_PAGES) if image.format == "TIFF" else 1
    except Exception:  # damaged; it is found when the picture is read
        return 1


def _check_cost(image: Image.Image, content: bytes) -> None:
    """Refuses what claims little and costs much: each codec has a way of its own.

    Raises:
        ValueError: The picture is such a bomb; the message says why.
    """
    pixels = image.width * image.height
    if image.format == "BMP" and int.from_bytes(content[30:34], "little") in (1, 2):
        raise ValueError("it is a compressed BMP, which few bytes make endless; store it as PNG")
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        tile = int(tags.get(322, 0)) * int(tags.get(323, 0))
        if tile > max(4 * pixels, _LARGEST_TILE):
            raise ValueError(f"its tiles have {tile:,} pixels each, but the picture {pixels:,}")
        check_parts(*_tiff_parts(image, tags))
    if image.format in ("JPEG", "MPO"):
        scans = _scans(content)
        if scans > _MOST_SCANS or scans * pixels > _MOST_SCANNED:
            raise ValueError(f"its {pixels:,} pixels are stored in {scans} scans")
    if image.format == "WEBP" and pixels > _LARGEST_WEBP:
        raise ValueError(f"a WebP of {pixels:,} pixels takes gigabytes; store it as PNG")
    codecs: Any = getattr(image, "tile", None)
    slow = codecs and codecs[0][0] in ("ppm", "ppm_plain")  # decoded by Python
    if slow and pixels > _LARGEST_PLAIN:
        raise ValueError(f"its {pixels:,} pixels are stored in a slow form of PPM; store it as PNG")


def _scans(content: bytes) -> int:
    """Counts the scans of a JPEG's first image, not those of what phones append, or a thumbnail's.

    Source: ITU-T T.81, annex B.
    """
    at, scans = 2, 0
    while (at := content.find(b"\xff", at)) >= 0 and at + 4 <= len(content):
        marker = content[at + 1]
        if marker == 0xD9:  # the end of the image
            break
        scans += marker == 0xDA
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # no segment: data, or filling
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return scans


def _tiff_parts(image: Image.Image, tags: Any) -> tuple[int, int]:
    """Counts the strips or tiles that a TIFF stores, and those that its size asks for."""
    tiled = 324 in tags
    offsets = tags.get(324 if tiled else 273, ())
    wide, high = int(tags[256]), int(tags[257])  # as stored; Pillow's size is that turned upright
    length, width = int(tags.get(323 if tiled else 278, high)), int(tags.get(322, wide))
    asked = -(-high // length) * -(-wide // (width if tiled else wide))
    if int(tags.get(284, 1)) == 2:  # each band apart
        asked *= int(tags.get(277, 1))
    return sum(1 for offset in offsets if offset), asked


def check_parts(stored: int, asked: int) -> None:
    """Refuses a TIFF that leaves out strips or tiles, which readers fill with zeros in silence.

    Raises:
        ValueError: It does.
    """
    if stored < asked:
        raise ValueError(f"only {stored:,} of its {asked:,} strips or tiles are stored")


@contextmanager
def alone(size: tuple[int, int]) -> Iterator[None]:
    """Lets only one thread at a time work on a large picture, given its height and width."""
    if size[0] * size[1] < LARGE:
        yield
    else:
        with _ALONE:
            yield


def _is_bmp_of_greys(content: bytes, image: Image.Image) -> bool:
    """Tells whether Pillow mistakes a BMP of 4 or 8 bits a pixel for one of another depth.

    It does where the palette is black and white, or a ramp of 16 greys, and reads noise then.
    """
    bits = int.from_bytes(content[28:30], "little")
    wrong = {"1": (4, 8), "L": (4,)}
    return image.format == "BMP" and bits in wrong.get(image.mode, ())


def _bmp_of_greys(content: bytes) -> Image.Image:
    """Decodes such a BMP: with a first colour that is no grey, Pillow reads its indices."""
    begin = 14 + int.from_bytes(content[14:18], "little")
    coloured = bytearray(content)
    coloured[begin] ^= 1  # the blue of the first colour; palettes are blue, green, red, 0
    with Image.open(io.BytesIO(coloured), formats=("BMP",)) as opened:
        if opened.mode != "P":
            raise ValueError("its palette is damaged")
        image = Image.frombytes("P", opened.size, opened.tobytes())
        count = len(opened.getpalette() or ()) // 3
    entries = np.frombuffer(content, dtype=np.uint8, count=4 * count, offset=begin).reshape(-1, 4)
    image.putpalette(entries[:, 2::-1].tobytes())
    image.format = "BMP"
    return image


def load(image: Image.Image, path: Path) -> Image.Image:
    """Decodes the pixels of an opened file.

    Raises:
        FileError: They are truncated or damaged.
    """
    stream: Any = getattr(image, "fp", None)  # which Pillow closes when it has decoded
    content = stream.getvalue() if image.format == "PNG" and stream is not None else None
    try:
        image.load()
        if content is not None and _may_lack_rows(image):
            check_rows(content)
    except Exception as error:
        raise FileError(path, f"can't be decoded ({error})", "replace it") from error
    return image


def _may_lack_rows(image: Image.Image) -> bool:
    """Tells whether rows that a PNG leaves out, which Pillow fills with zeros, may be among it."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return bool(image.info.get("interlace")) or not any(last.tobytes())


def to_rgb(image: Image.Image, path: Path) -> Image.Image:
    """Converts decoded pixels of 8 bits to RGB; what is transparent keeps its colour.

    Raises:
        FileError: They are of another type.
    """
    if image.mode not in _IMAGE_MODES:
        raise FileError(path, f"has pixels of type {image.mode}", "convert it to 8-bit RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_indices(path: Path) -> Mask:
    """Decodes a mask that holds one 8-bit number a pixel: grey values or palette indices, (H, W).

    Raises:
        FileError: The file can't be decoded, or has several channels or more bits.
    """
    with open_image(path) as mask, alone(mask.size):
        if mask.mode not in _INDEX_MODES:
            raise FileError(
                path,
                f"is a mask with pixels of type {mask.mode}, but masks hold one 8-bit number a "
                "pixel",
                "store it as a greyscale or palette PNG",
            )
        return np.array(load(mask, path), dtype=np.uint8)


def read_lossless(file: Path) -> Image.Image:
    """Decodes a mask whose values are exactly those that were saved.

    Raises:
        FileError: It can't be decoded, or was compressed with loss.
    """
    with open_image(file) as opened, alone(opened.size):
        if kind := lossy_compression(opened, file):
            raise FileError(
                file, f"is a mask stored as lossy {kind}, which invents values", "store it as PNG"
            )
        return load(opened, file)


def lossy_compression(image: Image.Image, file: Path) -> str | None:
    """Names a compression that changes values; None if there is none."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "JPEG in TIFF"
    if image.format == "WEBP":
        with file.open("rb") as stream:
            stream.seek(12)
            while len(chunk := stream.read(8)) == 8:
                if chunk[:4] == b"VP8 ":
                    return "WebP"
                length = int.from_bytes(chunk[4:], "little")
                stream.seek(length + length % 2, os.SEEK_CUR)
    return None
