"""Opens pictures by the rules of a data set: their pages, bands, depth and orientation.

A training, its test, an evaluation and a prediction all read through a `Reader`: so the same file
gives the same pixels to the net everywhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.data import deep
from segpets.data.decode import DRAFT, MAX_PIXELS, alone, load, open_image
from segpets.data.geometry import Size, place
from segpets.data.pages import chosen_pages, frames_of
from segpets.data.picture import Picture, Rules, other_channels
from segpets.errors import FileError
from segpets.reading import read_start

_ORIENTATION: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture as EXIF's orientation wants it."""

BACK: Final = {6: 8, 8: 6}
"""The orientation that undoes another; all but these two undo themselves."""

_ON_ITS_SIDE: Final = (5, 6, 7, 8)


class _Raw(NamedTuple):
    """A file as an array, (H, W, bands), with its orientation."""

    values: NDArray[Any]
    turn: int
    lost_alpha: bool = False


class Reader(Rules):
    """Opens files by the rules of a data set."""

    __slots__ = ()

    @contextmanager
    def opened(
        self,
        files: Sequence[Path],
        *,
        page: int | None = None,
        masked: Size | None = None,
        max_pixels: int = MAX_PIXELS,
        whole: bool = False,
    ) -> Iterator[Picture]:
        """Decodes a picture; meanwhile, no other large one is worked on.

        Args:
            files: The file, or one for each band.
            page: Which page of it; None: it has one, or all are its channels.
            masked: Height and width of its mask, if there is one.
            max_pixels: More are refused.
            whole: Whether a JPEG is decoded at full size though it is shrunk then.

        Raises:
            FileError: It can't be read, or not by these rules.
        """
        if len(files) == 1 and not self._is_deep(files[0], page, max_pixels):
            with self._by_pillow(files[0], page, masked, max_pixels, whole) as picture:
                yield picture
            return
        with alone((len(files), self._claimed(files[0], max_pixels))):
            parts = [self._values(file, page, max_pixels) for file in files]
            for file, part in zip(files, parts, strict=True):
                if part.values.shape[:2] != parts[0].values.shape[:2]:
                    size, first = part.values.shape, parts[0].values.shape
                    raise FileError(
                        file,
                        f"has {size[1]}x{size[0]} pixels, but the band {files[0]} has "
                        f"{first[1]}x{first[0]}",
                        "resample one of them",
                    )
            arrays = [part.values for part in parts]
            values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2)
            picture = self._upright(values, files[0], parts[0].turn, masked)
            picture.lost_alpha = any(part.lost_alpha for part in parts)
            yield picture

    def _claimed(self, file: Path, max_pixels: int) -> int:
        """Estimates the values of a file that is read as an array, from its size on the disk."""
        with suppress(OSError):
            if deep.is_tiff(read_start(file, 4)):
                pages = deep.tiff_pages(file, max_pixels)
                return sum(page.size[0] * page.size[1] * page.bands for page in pages)
            return file.stat().st_size
        return 0

    def _is_deep(self, file: Path, page: int | None, max_pixels: int) -> bool:
        """Tells whether a file is read as an array: Pillow can't, or would lose something."""
        if file.suffix.lower() == ".npy":
            return True
        try:
            start = read_start(file, 256)
        except OSError:
            return False  # Pillow's reader says what is wrong
        if deep.is_deep(start):
            return True
        if not deep.is_tiff(start):
            return False
        pages = deep.tiff_pages(file, max_pixels)
        chosen = pages[chosen_pages(file, len(pages), page, self.pages, "pages")[0]]
        plain = chosen.dtype.kind == "b" or chosen.dtype == np.uint8
        stacked = self.pages == "channels" and len(pages) > 1
        usual = chosen.bands in (1, 3) or (chosen.bands == 4 and chosen.plain_fourth)
        return stacked or not plain or not usual or self.channels not in (1, 3)

    def _values(self, file: Path, page: int | None, max_pixels: int) -> _Raw:
        """Reads a file as an array."""
        if file.suffix.lower() == ".npy":
            return _Raw(deep.read_npy(file), 1)
        try:
            start = read_start(file, 256)
        except OSError as error:
            raise FileError(file, f"can't be opened ({error})", "replace it") from error
        if deep.is_tiff(start):
            pages = deep.tiff_pages(file, max_pixels)
            wanted = chosen_pages(file, len(pages), page, self.pages, "pages")
            bands = sum(pages[index].bands for index in wanted)
            if len(wanted) > 1 and bands != self.channels:
                raise other_channels(file, bands, self.channels)
            return _Raw(deep.read_tiff(file, wanted), pages[wanted[0]].turn)
        with open_image(file, max_pixels=max_pixels) as image:
            turn = orientation(image)
            if not deep.is_deep(start):
                values = np.asarray(_unpacked(load(image, file)))
                return _Raw(np.atleast_3d(values), turn)
        values = deep.read_deep(file, grey_alpha=start[25:26] == b"\x04")
        if deep.has_alpha(start) and self.channels in (1, 3):
            return _Raw(values[..., :-1], turn, lost_alpha=bool(np.ptp(values[..., -1])))
        return _Raw(values, turn)

    @contextmanager
    def _by_pillow(
        self,
        file: Path,
        page: int | None,
        masked: Size | None,
        max_pixels: int,
        whole: bool,
    ) -> Iterator[Picture]:
        with open_image(file, max_pixels=max_pixels) as image, alone(image.size):
            every = frames_of(image, file)
            chosen = chosen_pages(file, len(every), page, self.pages, "frames")
            frames = [every[index] for index in chosen]
            if len(frames) > 1:
                yield self._upright(_all_frames(image, file, frames), file, 1, masked)
                return
            if frames[0]:
                image.seek(frames[0])
            stored, turn = (image.height, image.width), orientation(image)
            if image.format == "TIFF" and turn in _ON_ITS_SIDE:
                stored = stored[::-1]  # Pillow has turned its size, but not yet its pixels
            turned, undecided = self._turns(stored, turn, masked)
            size = stored[::-1] if turned and turn in _ON_ITS_SIDE else stored
            if not whole:
                inner = place(size, self.size, self.fit)
                to = (inner.width, inner.height) if size == stored else (inner.height, inner.width)
                image.draft(None, (DRAFT * to[0], DRAFT * to[1]))  # ignored unless it is a JPEG
            pixels = load(image, file)
            if pixels.mode == "I" or pixels.mode == "F" or pixels.mode.startswith("I;16"):
                values = np.asarray(pixels)[:, :, None]
                yield self._upright(values, file, turn, masked)
                return
            if turn in _UPRIGHT and turned != (image.format == "TIFF"):
                pixels = pixels.transpose(_UPRIGHT[turn if turned else BACK.get(turn, turn)])
            picture = Picture(pixels, file, self, size)
            picture.turned, picture.undecided = turned, undecided
            yield picture

    def _upright(self, values: NDArray[Any], file: Path, turn: int, masked: Size | None) -> Picture:
        turned, undecided = self._turns((values.shape[0], values.shape[1]), turn, masked)
        picture = Picture(_turned(values, turn) if turned else values, file, self)
        picture.turned, picture.undecided = turned, undecided
        return picture

    def _turns(self, stored: Size, turn: int, masked: Size | None) -> tuple[bool, bool]:
        """Decides whether a picture is turned, and whether its mask could lie either way."""
        if turn not in _UPRIGHT or self.exif == "ignore":
            return False, False
        if self.exif == "apply" or masked is None:
            return True, False
        if turn in _ON_ITS_SIDE and stored[0] != stored[1]:
            return masked != stored, False
        return True, True


def _all_frames(image: Image.Image, path: Path, frames: Sequence[int]) -> NDArray[Any]:
    stacked = []
    if len(frames) > deep.MOST_PAGES or image.width * image.height * len(frames) > deep.MAX_VALUES:
        raise FileError(path, f"has {len(frames):,} frames, too many to be channels", "split it")
    for frame in frames:
        try:
            image.seek(frame)
        except Exception as error:  # of damaged bytes: anything
            raise FileError(path, f"can't be decoded ({error})", "replace it") from error
        stacked.append(np.atleast_3d(np.asarray(_unpacked(load(image, path)))))
    return np.concatenate(stacked, axis=2)


def _unpacked(image: Image.Image) -> Image.Image:
    """Turns indices and bits into values."""
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image.convert("L") if image.mode == "1" else image


def _turned(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """Turns an array, (H, W, C), as EXIF's orientation wants it."""
    if turn in _ON_ITS_SIDE:
        values = values.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        values = values[:, ::-1]
    if turn in (3, 4, 7, 8):
        values = values[::-1]
    return values


def upright(image: Image.Image) -> Image.Image:
    """Turns a decoded picture as its EXIF orientation says."""
    way = _UPRIGHT.get(orientation(image))
    return image if way is None else image.transpose(way)


def orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation of a picture, 1 to 8; 1 where its data are damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # of damaged bytes: anything
        return 1
    return value if isinstance(value, int) else 1


def as_stored(image: Image.Image, turn: int) -> Image.Image:
    """Undoes what Pillow makes of a TIFF's orientation when it loads it."""
    way = _UPRIGHT.get(BACK.get(turn, turn))
    return image if way is None else image.transpose(way)
