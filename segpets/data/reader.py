"""Opens pictures by the rules of a data set: their pages, bands, depth and orientation.

A training, its test, an evaluation and a prediction all read through a `Reader`: so the same file
gives the same pixels to the net everywhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segpets.data import deep
from segpets.data.decode import DRAFT, MAX_PIXELS, alone, load, open_image
from segpets.data.geometry import Size, place
from segpets.data.pages import chosen_pages, frames_of
from segpets.data.picture import Picture, Rules, other_channels
from segpets.data.tiff import MOST_PAGES, TiffPage, is_tiff, open_tiff
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
    """Values of a file, (H, W, bands), with its orientation."""

    values: NDArray[Any]
    turn: int
    lost_alpha: bool = False


class _Plain(NamedTuple):
    """A file that Pillow reads without a loss; the frame that is wanted, if that is known."""

    frame: int | None = None


@dataclass(frozen=True)
class _Array:
    """An opened file that is read as an array.

    Attributes:
        claimed: About how many values it has.
        read: Reads all of it.
        part: Reads a part, (h, w, bands), in the same values; None: not without all the rest.
        size: Height and width, where parts can be read.
        bands: Values of a pixel, where parts can be read.
    """

    claimed: int
    read: Callable[[], _Raw]
    part: Callable[[deep.Box], NDArray[Any]] | None = None
    size: Size | None = None
    bands: int = 0


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
        with ExitStack() as stack:
            lone = len(files) == 1
            found = [self._found(stack, file, page, max_pixels, lone=lone) for file in files]
            if isinstance(first := found[0], _Plain):
                yield stack.enter_context(
                    self._by_pillow(files[0], first.frame, page, masked, max_pixels, whole)
                )
                return
            arrays = [array for array in found if isinstance(array, _Array)]
            stack.enter_context(alone((1, sum(array.claimed for array in arrays))))
            parts = [array.read() for array in arrays]
            for file, part in zip(files, parts, strict=True):
                if part.values.shape[:2] != parts[0].values.shape[:2]:
                    size, other = part.values.shape, parts[0].values.shape
                    raise FileError(
                        file,
                        f"has {size[1]}x{size[0]} pixels, but the band {files[0]} has "
                        f"{other[1]}x{other[0]}",
                        "resample one of them",
                    )
            picture = self._upright(_joined(parts), files[0], parts[0].turn, masked)
            picture.lost_alpha = any(part.lost_alpha for part in parts)
            yield picture

    def part(
        self, files: Sequence[Path], box: deep.Box, *, page: int | None, size: Size
    ) -> Tensor | None:
        """Reads a part of a picture that isn't resized, (C, h, w), without decoding the rest.

        Args:
            files: The file, or one for each band.
            box: The part, within the picture.
            page: Which page of the file; None: it has one.
            size: Height and width of the picture, as its mask has them.

        Returns:
            The values that all of the picture has there; None if the format doesn't allow it, or
            the picture is turned.

        Raises:
            FileError: A file can't be read.
        """
        with ExitStack() as stack:
            arrays = [self._found(stack, file, page, MAX_PIXELS, lone=False) for file in files]
            parts, bands = [], 0
            for array in arrays:
                if not isinstance(array, _Array) or array.part is None or array.size != size:
                    return None
                parts.append(array.part)
                bands += array.bands
            if bands != self.channels and (bands, self.channels) != (1, 3):
                return None
            values = _joined([_Raw(part(box), 1) for part in parts])
            return Picture(values, files[0], self).rows(0, box[2])

    def _found(
        self, stack: ExitStack, file: Path, page: int | None, max_pixels: int, *, lone: bool
    ) -> _Array | _Plain:
        """Opens a file as an array, unless it stands alone and Pillow loses nothing of it."""
        if file.suffix.lower() == ".npy":
            npy = deep.open_npy(file)
            part = None if npy.in_columns or npy.dtype.kind == "b" else npy.read
            count = npy.size[0] * npy.size[1] * npy.bands
            return _Array(count, lambda: _Raw(npy.read(), 1), part, npy.size, npy.bands)
        try:
            start = read_start(file, 256)
        except OSError as error:
            if lone:
                return _Plain()  # Pillow's reader says what is wrong
            raise FileError(file, f"can't be opened ({error})", "replace it") from error
        if not is_tiff(start):
            if lone and not deep.is_deep(start):
                return _Plain()
            return _Array(file.stat().st_size, lambda: self._encoded(file, start, max_pixels))
        tiff = stack.enter_context(open_tiff(file, max_pixels))
        wanted = chosen_pages(file, len(tiff.pages), page, self.pages, "pages")
        pages = [tiff.pages[index] for index in wanted]
        first, bands = pages[0], sum(one.bands for one in pages)
        if len(pages) == 1 and lone and self._is_plain(first):
            return _Plain(first.frame)
        if len(pages) > 1 and bands != self.channels:
            raise other_channels(file, bands, self.channels)
        in_parts = len(pages) == 1 and first.in_parts
        in_parts = in_parts and (first.turn not in _UPRIGHT or self.exif == "ignore")
        return _Array(
            sum(one.size[0] * one.size[1] * one.bands for one in pages),
            lambda: _Raw(tiff.read(wanted), first.turn),
            (lambda box: tiff.read(wanted, box)) if in_parts else None,
            first.size,
            bands,
        )

    def _is_plain(self, page: TiffPage) -> bool:
        """Tells whether Pillow reads a page without a loss."""
        usual = page.bands in (1, 3) or (page.bands == 4 and page.plain_fourth)
        eight_bits = page.dtype.kind == "b" or page.dtype == np.uint8
        return eight_bits and usual and self.channels in (1, 3)

    def _encoded(self, file: Path, start: bytes, max_pixels: int) -> _Raw:
        """Reads a file that is no array of values, but is wanted as one."""
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
        frame: int | None,
        page: int | None,
        masked: Size | None,
        max_pixels: int,
        whole: bool,
    ) -> Iterator[Picture]:
        with open_image(file, max_pixels=max_pixels) as image, alone(image.size):
            frames = [frame] if frame is not None else self._frames(image, file, page)
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

    def _frames(self, image: Image.Image, file: Path, page: int | None) -> list[int]:
        every = frames_of(image, file)
        return [every[i] for i in chosen_pages(file, len(every), page, self.pages, "frames")]

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


def _joined(parts: Sequence[_Raw]) -> NDArray[Any]:
    """Stacks the bands of files."""
    arrays = [part.values for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=2)


def _all_frames(image: Image.Image, path: Path, frames: Sequence[int]) -> NDArray[Any]:
    stacked = []
    if len(frames) > MOST_PAGES or image.width * image.height * len(frames) > deep.MAX_VALUES:
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
