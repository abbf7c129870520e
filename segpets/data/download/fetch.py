"""Fetches one file from the first of several addresses that gives it whole.

A file grows as `NAME.part` and takes its name once its checksum is right, so that what has its
name is whole. A note beside it, `NAME.note`, tells what the server called that version of the file;
with it, the next process resumes where a killed one stopped.
"""

import errno
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from segpets.data.download.transport import CHUNK, Answer, Failure, Misfit, Refusal, opened
from segpets.errors import UserError

log = logging.getLogger(__name__)

FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where a disk or a quota has no room."""

_ALGORITHMS: Final = {32: "md5", 40: "sha1", 64: "sha256"}
_PROGRESS: Final = 2**16  # bytes after which a dropped connection counts as progress
_LONGEST_WAIT: Final = 60.0  # seconds
_WINDOW: Final = 60.0  # seconds over which a speed is measured
_LEAST_SPEED: Final = 1000  # bytes a second; a server that is slower is left for the next
_TELL_EVERY: Final = 30.0  # seconds between lines where there is no terminal

Tell = Callable[[int, int | None], None]


class _Part:
    """The beginning of a file, and what the server called the version that it is of."""

    def __init__(self, path: Path, note: Path) -> None:
        self.path, self._note = path, note

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, address: str) -> str:
        """Returns the version's name at an address; empty if the beginning is from elsewhere."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return str(note["version"]) if note["address"] == address else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, address: str, version: str) -> None:
        """Discards what there is; other bytes follow."""
        self.path.write_bytes(b"")
        self._note.write_text(json.dumps({"address": address, "version": version}), "utf-8")

    def finish(self, whole: Path) -> Path:
        """Gives it the name of the whole file."""
        self._note.unlink(missing_ok=True)
        return self.path.replace(whole)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def check_checksum(key: str, checksum: object) -> str:
    """Returns a checksum in lower case.

    Raises:
        UserError: It isn't an MD5 (32 hexadecimal digits), SHA-1 (40) or SHA-256 (64).
    """
    text = str(checksum).lower()
    if len(text) not in _ALGORITHMS or not re.fullmatch("[0-9a-f]+", text):
        raise UserError(
            f"{key}={checksum} is no checksum: give the MD5 (32 hexadecimal digits), SHA-1 (40) "
            "or SHA-256 (64) of the archive"
        )
    return text


def fetch(
    name: str,
    *,
    mirrors: Sequence[str],
    checksum: str,
    folder: Path,
    limit: int,
    attempts: int = 6,
    delay: float = 0.5,
    timeout: float = 20,
) -> Path:
    """Fetches `NAME` to a folder, resuming from what is there.

    Args:
        name: The file's name at each address and in the folder.
        mirrors: The addresses that it may lie under, or folders; as `check_mirrors` gives them.
        checksum: Its MD5, SHA-1 or SHA-256; as `check_checksum` gives it.
        folder: The target folder; no other process may be using it.
        limit: The greatest possible length of such a file, in bytes.
        attempts: Attempts without progress at each address, before the next one is tried.
        delay: Seconds before the second attempt; twice that before the third, and so on.
        timeout: Seconds to wait for a connection, and for the next bytes.

    Returns:
        The file, whose checksum is right.

    Raises:
        UserError: No address gives the file, or the disk has no room for it and what it holds.
        OSError: The folder can't be written.
    """
    whole = folder / name
    part = _Part(folder / f"{name}.part", folder / f"{name}.note")
    if whole.is_file() and _digest(whole, checksum) == checksum:
        return whole  # a killed process didn't get to use it
    if part.size and _digest(part.path, checksum) == checksum:
        return part.finish(whole)
    whole.unlink(missing_ok=True)
    reasons = []
    for mirror in mirrors:
        address = f"{mirror}/{name}"
        reason = _fetch_from(address, part, checksum, _Patience(attempts, delay), limit, timeout)
        if reason is None:
            return part.finish(whole)
        log.warning("%s: %s", address, reason)
        reasons.append(f"  {address}: {reason}")
    raise UserError(
        "\n".join([f"{name} can't be downloaded:", *reasons])
        + "\nThe same command goes on where this one stopped; data.mirrors takes other addresses, "
        "or a folder that the file lies in"
    )


def _fetch_from(
    address: str,
    part: _Part,
    checksum: str,
    patience: "_Patience",
    limit: int,
    timeout: float,
) -> str | None:
    """Completes a part from one address; returns the reason if that isn't possible."""
    try:
        with _progress(f"Downloading {part.path.stem}") as tell:
            log.info("Downloading %s", address)
            in_one_piece = _transfer(address, part, patience, limit, timeout, tell)
            digest = _digest(part.path, checksum)
            if digest != checksum and not in_one_piece:
                log.warning("%s: its pieces don't fit together; it begins anew", address)
                part.discard()
                _transfer(address, part, patience, limit, timeout, tell)
                digest = _digest(part.path, checksum)
    except Refusal as refusal:
        if part.size > limit:
            part.discard()
        return str(refusal)
    if digest == checksum:
        return None
    part.discard()
    return f"its checksum is {digest}, not {checksum}: it is another file, or damaged"


class _Patience:
    """A count of the attempts that made no progress."""

    def __init__(self, attempts: int, delay: float) -> None:
        self._attempts, self._delay = attempts, delay
        self._failures, self._furthest = 0, 0

    def wait(self, address: str, failure: Failure, size: int) -> None:
        """Waits before the next attempt.

        Raises:
            Refusal: There were enough attempts.
        """
        # Only what was never reached before counts: a server that always begins anew and always
        # stops would go on for ever.
        got_on = size >= self._furthest + _PROGRESS
        self._furthest = max(size, self._furthest)
        self._failures = 1 if got_on else self._failures + 1
        if self._failures >= self._attempts:
            raise Refusal(f"{failure} ({self._attempts} attempts)")
        seconds = max(self._delay * 2 ** (self._failures - 1), failure.wait)
        if seconds > _LONGEST_WAIT:
            raise Refusal(f"{failure}, and it asks for a pause of {seconds:.0f} s")
        log.warning("%s: %s; trying again in %.1f s", address, failure, seconds)
        time.sleep(seconds)


def _transfer(
    address: str, part: _Part, patience: _Patience, limit: int, timeout: float, tell: Tell
) -> bool:
    """Appends to a part until it is complete, as far as the server tells.

    Returns:
        Whether all bytes came in one answer.
    """
    while True:
        try:
            return _receive(address, part, limit, timeout, tell) == 0
        except Failure as failure:
            patience.wait(address, failure, part.size)


def _receive(address: str, part: _Part, limit: int, timeout: float, tell: Tell) -> int:
    """Makes one attempt.

    Returns:
        The position of the first byte that it gave.
    """
    size = part.size
    try:
        with opened(address, size, part.version(address), timeout) as answer:
            total = answer.total or 0
            if total > limit:
                raise Refusal(f"it has {total:,} bytes, more than {limit:,}")
            # As much again is for what it holds: pictures don't shrink in an archive.
            check_room(part.path.parent, 2 * total - answer.start)
            if answer.start == 0:
                part.begin(address, answer.version)
            try:
                _append(answer, part.path, limit, tell)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                needed = max(2 * total, part.size + CHUNK) - part.size
                raise no_room(part.path.parent, needed) from error
            return answer.start
    except Misfit as misfit:
        if misfit.length == size:  # all of it is there already
            return size
        part.discard()
        raise Failure(str(misfit)) from misfit


def _append(answer: Answer, path: Path, limit: int, tell: Tell) -> None:
    size = window = answer.start
    since = time.monotonic()
    with path.open("ab", buffering=0) as file:
        while block := answer.read():
            if time.monotonic() - since > _WINDOW:
                if size - window < _LEAST_SPEED * _WINDOW:
                    raise Failure(f"it sends less than {_LEAST_SPEED:,} bytes a second")
                window, since = size, time.monotonic()
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
            size += len(block)
            tell(size, answer.total)
            if size > limit:
                raise Refusal(f"it has more than {limit:,} bytes")
    if answer.total is not None and size < answer.total:
        raise Failure(f"the connection ended after {size:,} of {answer.total:,} bytes")


def check_room(folder: Path, needed: int) -> None:
    """Refuses to begin a download that the disk has no room for.

    Raises:
        UserError: The disk has too little room.
    """
    if needed > shutil.disk_usage(folder).free:
        raise no_room(folder, needed)


def no_room(folder: Path, needed: int) -> UserError:
    """Says that a disk has no room."""
    free = shutil.disk_usage(folder).free
    return UserError(
        f"{folder} has no room: about {decimal(needed)} more are needed, and {decimal(free)} are "
        "free (a quota may allow less). Make room, or give a data.root on another disk"
    )


def _digest(file: Path, checksum: str) -> str:
    algorithm = partial(hashlib.new, _ALGORITHMS[len(checksum)], usedforsecurity=False)
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


@contextmanager
def _progress(title: str) -> Iterator[Tell]:
    """Yields tell(bytes, of how many): a bar in a terminal, else a line now and then."""
    console = Console(stderr=True)
    columns = (
        *Progress.get_default_columns()[:2],
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    last = time.monotonic()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def tell(size: int, total: int | None) -> None:
            nonlocal last
            bar.update(task, completed=size, total=total)
            if not console.is_terminal and time.monotonic() > last + _TELL_EVERY:
                last = time.monotonic()
                of = f" of {decimal(total)}" if total else ""
                log.info("%s: %s%s", title, decimal(size), of)

        yield tell
