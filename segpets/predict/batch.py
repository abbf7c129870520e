"""Predicts many pictures to files: threads decode, predict and write a few at a time."""

import errno
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from segpets.data.decode import LARGE, alone
from segpets.data.geometry import Geometry, Size
from segpets.data.picture import DepthError, Picture
from segpets.errors import FileError, UserError
from segpets.hardware import threads
from segpets.inference.layers import Layers, Net, whole_layers
from segpets.inference.picture import MAX_PIXELS, by_tiles, layers_of, read_picture
from segpets.predict import drawing
from segpets.predict.background import Background
from segpets.predict.sources import FOLDERS, PictureFile
from segpets.run.files import umask

log = logging.getLogger(__name__)

THREADS: Final = 8
"""At most; more would wait for the disk, and hold more pictures."""

_JPEG_SIDE: Final = 65_500
"""The longest side in pixels that a JPEG may have."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    # A higher level makes class ids a little smaller, in three times the time.
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": {"format": "JPEG", "quality": 90},
}


@dataclass(frozen=True)
class Wanted:
    """The outputs requested for each picture.

    Attributes:
        folder: The output's folder.
        outputs: Which of `FOLDERS`.
        classes: Class names.
        foreground: For each class whether cutouts and composites keep it.
        background: The background of composites.
        zoom: The factor by which composites enlarge the foreground.
        tile: Height and width of tiles in pixels; None: pictures are resized as a whole.
        batch_size: The number of pictures or tiles that the net takes at once.
        max_pixels: Larger pictures are refused.
        overwrite: Whether existing files are made anew.
    """

    folder: Path
    outputs: Sequence[str]
    classes: Sequence[str]
    foreground: Sequence[bool]
    background: Background = field(default_factory=Background)
    zoom: float = 1.0
    tile: int | None = None
    batch_size: int = 8
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False

    @property
    def needs_opacity(self) -> bool:
        """True if a foreground is cut out."""
        return bool({"cutouts", "composites"} & set(self.outputs))

    def existing(self, source: PictureFile) -> dict[str, Path]:
        """Lists the existing outputs of a picture, by folder."""
        paths: dict[str, Path] = {}
        for folder in self.outputs:
            for suffix in (FOLDERS[folder], ".png"):  # what is too long for a JPEG
                path = self.folder / folder / f"{source.name}{suffix}"
                if path.exists():
                    paths[folder] = path
        return paths


@dataclass(frozen=True)
class Outcome:
    """The result for one picture.

    Attributes:
        source: The picture.
        size: Its height and width as displayed; None if it couldn't be read.
        files: Its outputs, by folder.
        shares: The part of its pixels that each class has.
        confidence: The mean of the largest probability.
        error: What is wrong with it.
    """

    source: PictureFile
    size: tuple[int, int] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    shares: Sequence[float] = ()
    confidence: float | None = None
    error: FileError | None = None


def predict_all(net: Net, sources: Sequence[PictureFile], wanted: Wanted) -> Iterator[Outcome]:
    """Predicts pictures and writes the requested outputs; yields outcomes in their order.

    Raises:
        UserError: The disk is full. An unusable picture raises nothing.
    """
    parallel = max(1, min(os.cpu_count() or 1, THREADS, len(sources)))
    count = max(1, min(wanted.batch_size, len(sources) // parallel))
    chunks = [sources[i : i + count] for i in range(0, len(sources), count)]
    pool = ThreadPoolExecutor(parallel)
    try:
        with threads(1 if parallel > 1 else None):  # those of the pool share the cores already
            for outcomes in pool.map(lambda chunk: _chunk(net, chunk, wanted), chunks):
                yield from outcomes
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk(net: Net, sources: Sequence[PictureFile], wanted: Wanted) -> list[Outcome]:
    if by_tiles(net, wanted.tile) is not None or not net.reader.is_uniform:
        return [_alone(net, source, wanted) for source in sources]
    outcomes: dict[PictureFile, Outcome] = {}
    read: dict[PictureFile, tuple[Tensor, Size, Geometry]] = {}
    for source in sources:
        try:
            with net.reader.opened(
                source.files, page=source.page, max_pixels=wanted.max_pixels
            ) as picture:
                read[source] = picture.fitted(), picture.size, picture.geometry
        except FileError as error:
            outcomes[source] = _failed(source, error)
    if read:
        logits = net.logits(torch.stack([image for image, _, _ in read.values()])).cpu()
        for (source, (_, size, geometry)), one in zip(read.items(), logits, strict=True):
            outcomes[source] = _whole(net, source, size, geometry.inside(one), wanted)
    return [outcomes[source] for source in sources]


def _whole(net: Net, source: PictureFile, size: Size, logits: Tensor, wanted: Wanted) -> Outcome:
    foreground = wanted.foreground if wanted.needs_opacity else None
    try:
        with alone(size):
            layers = whole_layers(logits, size, foreground=foreground)
            return _written(net, source, layers, None, wanted)
    except FileError as error:
        return _failed(source, error)


def _alone(net: Net, source: PictureFile, wanted: Wanted) -> Outcome:
    whole = by_tiles(net, wanted.tile) is not None  # else as the training reads it
    foreground = wanted.foreground if wanted.needs_opacity else None
    try:
        with net.reader.opened(
            source.files, page=source.page, max_pixels=wanted.max_pixels, whole=whole
        ) as picture:
            layers = layers_of(
                net,
                picture,
                tile=wanted.tile,
                foreground=foreground,
                batch_size=wanted.batch_size,
            )
            drawable = picture if whole else None
            return _written(net, source, layers, drawable, wanted)
    except FileError as error:
        return _failed(source, error)


def _failed(source: PictureFile, error: FileError) -> Outcome:
    if isinstance(error, DepthError):  # whose remedy is a training's
        remedy = (
            "the model was trained on 8 bits: convert it to them as you would for looking at it"
        )
        error = FileError(error.file, error.problem, remedy)
    log.error("%s", error)
    return Outcome(source, error=error)


def _written(
    net: Net, source: PictureFile, layers: Layers, picture: Picture | None, wanted: Wanted
) -> Outcome:
    """Draws and writes one output after another, so that only one is in memory."""
    files = {} if wanted.overwrite else wanted.existing(source)
    alpha = drawing.opacity(layers) if wanted.needs_opacity else None
    large = layers.ids.size >= LARGE
    for folder in wanted.outputs:
        if folder in files:
            continue
        if folder != "masks" and picture is None:
            picture = read_picture(
                source.files, net.reader, page=source.page, max_pixels=wanted.max_pixels
            )
            if picture.size != layers.ids.shape:
                raise FileError(source.path, "has changed meanwhile", "predict it again")
        drawn = _drawn(folder, layers, picture, alpha, wanted, spent=large)
        suffix = FOLDERS[folder] if max(drawn.size) <= _JPEG_SIDE else ".png"
        files[folder] = wanted.folder / folder / f"{source.name}{suffix}"
        save(drawn, files[folder])
        del drawn
        if large and folder != "masks":
            picture = None  # it was drawn into
    return Outcome(source, layers.ids.shape, files, layers.shares, layers.confidence)


def _drawn(
    folder: str,
    layers: Layers,
    picture: Picture | None,
    alpha: Image.Image | None,
    wanted: Wanted,
    *,
    spent: bool,
) -> Image.Image:
    if folder == "masks":
        return drawing.mask(layers)
    assert picture is not None
    if folder == "overlays":
        return drawing.overlay(picture, layers, wanted.classes, spent=spent)
    assert alpha is not None
    if folder == "cutouts":
        return drawing.cutout(picture, alpha, spent=spent)
    backdrop = wanted.background.behind(picture, alpha)
    return drawing.composite(picture, alpha, backdrop, zoom=wanted.zoom, spent=spent)


def save(image: Image.Image, path: Path) -> None:
    """Writes a picture as a whole or not at all, as its suffix says.

    Raises:
        UserError: The disk is full, or can't be written.
        FileError: This file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".segpets-")
        try:
            with os.fdopen(handle, "wb") as file:
                image.save(file, **_OPTIONS[path.suffix])
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"{path} can't be written ({error.strerror}): make room; the same command then "
                "goes on with what is missing"
            ) from error
        raise FileError(path, f"can't be written ({error})", "choose another output=") from error
