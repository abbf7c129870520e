"""The decoded pixels of a data set: checked once, then read from a cache or from the files."""

import bisect
import errno
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from segpets.data.cache import (
    FullError,
    PixelCache,
    Put,
    Shape,
    build,
    cache_name,
    make_room,
    touch,
)
from segpets.data.decoded import FACTS, Cut, read_piece, read_sample
from segpets.data.geometry import by
from segpets.data.picture import DepthError
from segpets.data.reader import Reader
from segpets.data.source import Sample, Source, refuse
from segpets.errors import FileError, UserError
from segpets.hardware import threads
from segpets.paths import user_cache
from segpets.run.lock import waiting

log = logging.getLogger(__name__)

CACHE_FOLDER: Final = ".segpets_cache"
VERSION: Final = 2
"""Of what decoding gives; another number builds all caches anew."""

_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ENOTEMPTY),
}
_CHUNK = 256

T = TypeVar("T")


class Pixels:
    """The pixels of samples as a net sees them, by row.

    All files are decoded and checked when it is made, in threads, so that a bad file stops a run
    before its first step; but files that a cache holds, and that look as they did, are not.

    Args:
        samples: The samples, sorted by name.
        source: Reads masks.
        reader: The rules by which files become pixels.
        cache: `disk` keeps the pixels in a file, `none` decodes them at each access, `auto` keeps
            them where they fit.
        cache_dir: Where; None is a hidden folder in the data set's own, or, where that can't be
            written, the user's cache folder.
        cache_gb: What the caches of one folder may take together, in GB of 1e9 bytes.

    Attributes:
        cache: The opened cache, if there is one.
        fingerprint: A hash of all files' bytes and names, which names the data in a summary.
        facts: What was noted of each sample, (N,) of `FACTS`.
        sizes: Height and width of what the net sees of each, (N, 2).

    Raises:
        UserError: Files can't be used; the message names the first of them and counts the rest.
            Or `disk` is asked for and impossible.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        source: Source,
        reader: Reader,
        cache: str = "auto",
        cache_dir: str | Path | None = None,
        cache_gb: float = 50,
    ) -> None:
        self._samples, self._source, self.reader = samples, source, reader
        self.facts = np.zeros(len(samples), dtype=FACTS)
        self.sizes = np.zeros((len(samples), 2), dtype=np.int64)
        self._shape = Shape(
            images=len(samples),
            channels=reader.channels,
            dtype=str(reader.dtype).removeprefix("torch."),
            size=reader.size if reader.is_uniform else None,
        )
        self._limit = int(cache_gb * 1e9)
        self._warned = False
        own = source.root / CACHE_FOLDER
        folders = [Path(cache_dir).expanduser()] if cache_dir else [own, user_cache()]
        self.cache: PixelCache | None = None
        if cache != "none":
            self.cache, reason = self._cached(folders)
            if self.cache is None and cache == "disk":
                raise UserError(
                    f"data.cache=disk, but no cache can be kept: {reason}. Make room, set "
                    "data.cache_dir or data.cache_gb, or use data.cache=none"
                )
            if self.cache is None:
                log.warning("Pixels are decoded anew each time, without a cache: %s", reason)
        if self.cache is None:
            self.fingerprint = self._checked(lambda *_: None)
        else:
            table = self.cache.table
            self.fingerprint, self.facts = self.cache.fingerprint, table["facts"]
            self.sizes = np.stack([table["height"], table["width"]], axis=1).astype(np.int64)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """Returns image, uint8 or float32 (C, H, W), and mask, uint8 (H, W): the caller's own."""
        return self._pair(row, None)

    def _pair(self, row: int, cut: Cut | None) -> tuple[Tensor, Tensor]:
        sample = self._samples[row]
        if cut is not None and not self.cache:
            image, mask = read_piece(sample, self._source, self.reader, cut)
            return torch.from_numpy(image), torch.from_numpy(mask)
        kept = self.cache.read(row) if self.cache else None
        if kept is None:
            if self.cache and not self._warned:
                with suppress(OSError):
                    self.cache.path.unlink()  # an opened file can still be read
                log.warning("%s was damaged: the next run builds it anew", self.cache.path)
                self._warned = True
            decoded = read_sample(sample, self._source, self.reader)
            kept = decoded.image, decoded.mask
        image, mask = kept
        return torch.from_numpy(image), torch.from_numpy(mask)

    def several(
        self, rows: Sequence[int], *, cuts: Sequence[Cut | None], threads: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Returns what `[row]` does for each row; threads decode files ahead of need.

        Where there is a cut, the pixels beyond it may be black.
        """
        if self.cache or threads == 1:
            yield from map(self._pair, rows, cuts)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(self._pair, rows, cuts)

    def of(self, name: str) -> tuple[Tensor, Tensor]:
        """Returns the pixels of a sample by its name, as `[row]` does.

        Raises:
            KeyError: There is none of that name.
        """
        return self[self._row(name)]

    def facts_of(self, name: str) -> NDArray[np.void]:
        """Returns what was noted of a sample, by its name; see `FACTS`.

        Raises:
            KeyError: There is none of that name.
        """
        facts: NDArray[np.void] = self.facts[self._row(name)]
        return facts

    def _row(self, name: str) -> int:
        row = bisect.bisect_left(self._samples, name, key=lambda sample: sample.name)
        if row == len(self) or self._samples[row].name != name:
            raise KeyError(name)
        return row

    def _cached(self, folders: list[Path]) -> tuple[PixelCache | None, str]:
        """Opens or builds the cache in the first folder that can hold it; or says why none can."""
        reason = ""
        reader = self.reader
        words = "native" if reader.fit == "none" else f"{by(reader.size)}{reader.fit}"
        name = cache_name(words, self._key())
        for folder in folders:
            path = folder / name
            try:
                with waiting(
                    path.with_suffix(".lock"),
                    f"Another process builds the cache {path}: waiting for it",
                ):
                    if cache := self._opened(path):
                        touch(path)
                        return cache, ""
                    refusal = make_room(path, needed=self._estimate(), limit=self._limit)
                    if refusal is None:
                        if reason:
                            log.info("%s; so it lies elsewhere", reason)
                        refusal = self._build(path)
                        if refusal is None and (cache := self._opened(path)):
                            megabytes = path.stat().st_size / 1e6
                            log.info("Decoded pixels are kept in %s (%.0f MB)", path, megabytes)
                            return cache, ""
                        refusal = refusal or "the data changes while it is read"
                reason = f"{path}: {refusal}"
            except OSError as error:
                if error.errno not in _UNWRITABLE:
                    raise
                if cache := self._opened(path):  # where nothing may be written, not even a lock
                    return cache, ""
                reason = f"{path} can't be written ({error.strerror})"
        return None, reason

    def _opened(self, path: Path) -> PixelCache | None:
        try:
            cache = PixelCache(path, self._shape)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.info("The cache %s is built anew: %s", path, error)
            return None
        looks = map(_looks, self._samples)
        if all(look == known for look, known in zip(looks, cache.table["files"], strict=True)):
            return cache
        log.info("The cache %s is built anew: files have changed", path)
        return None

    def _build(self, path: Path) -> str | None:
        """Builds the cache; returns the reason if it becomes too large."""
        try:
            build(path, self._shape, limit=self._limit, fill=self._checked)
        except FullError:
            return f"it would take more than data.cache_gb allows, {self._limit / 1e9:g} GB"
        return None

    def _estimate(self) -> int:
        """Computes a cache's bytes; where sizes differ, from some samples."""
        if self._shape.size or not self._samples:
            return self._shape.bytes
        some = self._samples[:: max(1, len(self._samples) // 8)]
        sizes = []
        for sample in some:
            with suppress(FileError):  # all are checked later
                sizes.append(read_sample(sample, self._source, self.reader).geometry.canvas)
        records = [self._shape.record(*size) for size in sizes] or [0]
        return self._shape.bytes + len(self._samples) * sum(records) // len(records)

    def _key(self) -> str:
        """Hashes the list of files and the settings; others check that the files are unchanged."""
        digest = hashlib.blake2b(f"{VERSION} {self.reader} {self._source.rules}\n".encode())
        for s in self._samples:
            # What is known of an image can decide over its mask, as a pet's species does.
            words = [s.name, *map(str, (*s.files, s.mask, *s.masks)), *s.attributes.values()]
            words.append(str(s.page))
            digest.update(os.fsencode("\0".join(words) + "\n"))
        return digest.hexdigest()[:16]

    def _checked(self, put: Put | Callable[..., None]) -> str:
        """Decodes all samples, in threads, and passes them on; returns the fingerprint."""
        errors: list[FileError] = []
        fingerprint = hashlib.blake2b(digest_size=8)

        def one(row: int) -> str | FileError:
            sample = self._samples[row]
            try:
                looks = _looks(sample)
                decoded = read_sample(sample, self._source, self.reader)
                self.facts[row], self.sizes[row] = decoded.facts, decoded.geometry.canvas
                put(row, looks, decoded)
                return f"{sample.name} {_content(sample)}\n"
            except FileError as error:
                return error

        for outcome in in_threads(one, len(self._samples), "Reading images"):
            if isinstance(outcome, FileError):
                errors.append(outcome)
            else:
                fingerprint.update(outcome.encode())
        if deep := [error for error in errors if isinstance(error, DepthError)]:
            low, high = min(error.low for error in deep), max(error.high for error in deep)
            raise DepthError(deep[0].file, low, high, others=len(deep) - 1)
        if errors:
            refuse(errors)
        return fingerprint.hexdigest()


def in_threads(function: Callable[[int], T], count: int, title: str) -> Iterator[T]:
    """Yields function(0), function(1), ... in order, computed in threads, with a progress bar."""
    console = Console(stderr=True)
    with (
        threads(1),  # the pool shares the cores already
        ThreadPoolExecutor(max_workers=os.cpu_count()) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task(title, total=count)
        for begin in range(0, count, _CHUNK):
            rows = range(begin, min(begin + _CHUNK, count))
            yield from pool.map(function, rows)
            bar.update(task, completed=rows.stop)


def _looks(sample: Sample) -> int:
    """Hashes what the file system says about a sample's files; 0 if they can't be found."""
    digest = hashlib.blake2b(sample.mask_hash.encode(), digest_size=8)
    for file in (*sample.files, sample.mask, *sample.masks):
        try:
            stat = os.stat(file)
        except OSError:
            return 0
        digest.update(b"%d %d %d\n" % (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return int.from_bytes(digest.digest(), "little")


def _content(sample: Sample) -> str:
    digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16)
    digest.update(sample.mask_hash.encode() or sample.mask.read_bytes())
    for file in (*sample.bands, *sample.masks):
        digest.update(file.read_bytes())
    return digest.hexdigest()
