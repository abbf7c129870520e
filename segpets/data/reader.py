"""Opens pictures by the rules of a data set: their pages, bands, depth and orientation.

A training, its test, an evaluation and a prediction all read through a `Reader`: so the same file
gives the same pixels to the net everywhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.data import deep
from segpets.data.decode import DRAFT, MAX_PIXELS, alone, load, open_image
from segpets.data.geometry import Size, place
from segpets.data.picture import Pages, Picture, Rules
from segpets.data.source import Problem, Sample, sample_name
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

_BACK: Final = {6: 8, 8: 6}
_ON_ITS_SIDE: Final = (5, 6, 7, 8)


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
        if len(files) > 1:
            parts = [self._values(file, page, max_pixels) for file in files]
            for file, (part, _) in zip(files, parts, strict=True):
                if part.shape[:2] != parts[0][0].shape[:2]:
                    raise FileError(
                        file,
                        f"has {part.shape[1]}x{part.shape[0]} pixels, but the band {files[0]} has "
                        f"{parts[0][0].shape[1]}x{parts[0][0].shape[0]}",
                        "resample one of them",
                    )
            values = np.concatenate([part for part, _ in parts], axis=2)
            yield self._upright(values, files[0], parts[0][1], masked)
            return
        (file,) = files
        if not self._is_deep(file, page, max_pixels):
            with self._by_pillow(file, page, masked, max_pixels, whole) as picture:
                yield picture
            return
        values, turn = self._values(file, page, max_pixels)
        with alone((values.shape[0], values.shape[1])):
            yield self._upright(values, file, turn, masked)

    def _is_deep(self, file: Path, page: int | None, max_pixels: int) -> bool:
        """Tells whether a file is read as an array: Pillow can't, or would lose something."""
        if file.suffix.lower() == ".npy":
            return True
        try:
            start = read_start(file, 256)
        except OSError:
            return False  # Pillow's reader says what is wrong
        if deep.has_deep_colours(start):
            return True
        if not deep.is_tiff(start):
            return False
        pages = deep.tiff_pages(file, max_pixels)
        chosen = pages[_chosen(file, len(pages), page, self.pages, "pages")[0]]
        plain = chosen.dtype.kind == "b" or chosen.dtype == np.uint8
        stacked = self.pages == "channels" and len(pages) > 1
        usual = chosen.bands in (1, 3) or (chosen.bands == 4 and self.channels in (1, 3))
        return stacked or not plain or not usual or self.channels not in (1, 3)

    def _values(self, file: Path, page: int | None, max_pixels: int) -> tuple[NDArray[Any], int]:
        """Reads a file as an array, (H, W, bands), with its orientation."""
        if file.suffix.lower() == ".npy":
            return deep.read_npy(file), 1
        try:
            start = read_start(file, 256)
        except OSError as error:
            raise FileError(file, f"can't be opened ({error})", "replace it") from error
        if deep.is_tiff(start):
            pages = deep.tiff_pages(file, max_pixels)
            wanted = _chosen(file, len(pages), page, self.pages, "pages")
            return deep.read_tiff(file, wanted), pages[wanted[0]].turn
        with open_image(file, max_pixels=max_pixels) as image:
            turn = orientation(image)
            if deep.has_deep_colours(start):
                return deep.read_deep_colours(file), turn
            values = np.asarray(_unpacked(load(image, file)))
            return (values[:, :, None] if values.ndim == 2 else values), turn

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
            frames = _chosen(file, frame_count(image, file), page, self.pages, "frames")
            if len(frames) > 1:
                yield self._upright(_all_frames(image, file, frames), file, 1, masked)
                return
            if frames[0]:
                image.seek(frames[0])
            stored, turn = (image.height, image.width), orientation(image)
            if image.format == "TIFF" and turn in _ON_ITS_SIDE:
                stored = stored[
                    ::-1
                ]  # Pillow turns a TIFF by itself, and says so when it is opened
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
                pixels = pixels.transpose(_UPRIGHT[turn if turned else _BACK.get(turn, turn)])
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


def _chosen(file: Path, count: int, page: int | None, pages: Pages | None, what: str) -> list[int]:
    """Chooses the pages of a file.

    Raises:
        FileError: It has several, and nothing says which.
    """
    if page is not None and page < count:
        return [page]
    if count == 1:
        return [0]
    if pages == "channels":
        return list(range(count))
    raise FileError(
        file,
        f"has {count} {what}",
        "data.pages=each takes each for a picture, data.pages=channels all for the channels of "
        "one; or store the one that counts",
    )


def page_count(file: Path) -> int:
    """Counts the pages or frames of a file.

    Raises:
        FileError: It can't be read.
    """
    if file.suffix.lower() == ".npy":
        return 1
    with suppress(OSError):
        if deep.is_tiff(read_start(file, 4)):
            return len(deep.tiff_pages(file, MAX_PIXELS))
    with open_image(file) as image:
        return frame_count(image, file)


def open_page(image: Image.Image, file: Path, page: int | None) -> None:
    """Turns an opened mask to a page.

    Raises:
        FileError: It has several, and none is chosen.
    """
    if wanted := _chosen(file, frame_count(image, file), page, None, "pages")[0]:
        image.seek(wanted)


def each_page(
    samples: Sequence[Sample], paths: dict[str, str], problems: list[Problem]
) -> list[Sample]:
    """Makes a sample of each page; a mask must have as many.

    Args:
        samples: Samples of whole files.
        paths: The path of each, by name; those of the pages are added.
        problems: Files that can't be used are added.
    """
    pages = []
    for sample in samples:
        try:
            counts = [page_count(file) for file in (*sample.files, sample.mask, *sample.masks)]
            if len(set(counts)) > 1:
                raise FileError(
                    sample.image,
                    f"has {counts[0]} pages, but its mask {sample.mask} {counts[-1]}",
                    "each page needs a mask of its own",
                )
        except FileError as error:
            problems.append(Problem(sample.name, error))
            continue
        if counts[0] == 1:
            pages.append(sample)
            continue
        for page in range(counts[0]):
            name = sample_name(f"{sample.name}-page{page + 1}")
            paths[name] = paths[sample.name]
            # The pages of a stack are neighbours: a split between them would flatter a model.
            group = sample.group or sample.name
            pages.append(replace(sample, name=name, page=page, group=group))
    return pages


def frame_count(image: Image.Image, path: Path) -> int:
    """Counts a file's frames; other views in a phone's photo don't count."""
    try:
        if image.format == "MPO" or not getattr(image, "is_animated", False):
            return 1
        return int(getattr(image, "n_frames", 1))
    except Exception as error:
        raise FileError(path, f"can't be decoded ({error})", "replace it") from error


def _all_frames(image: Image.Image, path: Path, frames: Sequence[int]) -> NDArray[Any]:
    stacked = []
    if len(frames) > deep.MOST_PAGES or image.width * image.height * len(frames) > deep.MAX_VALUES:
        raise FileError(path, f"has {len(frames):,} frames, too many to be channels", "split it")
    for frame in frames:
        try:
            image.seek(frame)
        except Exception as error:  # of damaged bytes: anything
            raise FileError(path, f"can't be decoded ({error})", "replace it") from error
        values = np.asarray(_unpacked(load(image, path)))
        stacked.append(values[:, :, None] if values.ndim == 2 else values)
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
