"""Fetches one file from the first of several addresses that gives it whole.

A file grows as `NAME.part` and takes its name once its checksum is right, so that what has its
name is whole. A note beside it, `NAME.note`, tells what the server called that version of the file;
with it, the next process goes on where a killed one stopped.
"""

import email.utils
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.filesize import decimal
from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from segpets.errors import UserError

log = logging.getLogger(__name__)

FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where a disk or a quota has no room."""

_ALGORITHMS: Final = {32: "md5", 40: "sha1", 64: "sha256"}
_CHUNK: Final = 2**18
_PROGRESS: Final = 2**16  # bytes after which a dropped connection has been of use
_LONGEST_WAIT: Final = 60.0  # seconds
_TELL_EVERY: Final = 30.0  # seconds between lines where there is no terminal
_BUSY: Final = {408, 425, 429, 500, 502, 503, 504}
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Tell = Callable[[int, int | None], None]


class _Refusal(Exception):
    """An address doesn't give the file: why."""


class _Failure(Exception):
    """It may give the file at the next attempt: why not now, and the seconds that it asks for."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Misfit(Exception):
    """What the server sends doesn't follow on what is there: why, and how long its file is."""

    def __init__(self, reason: str, length: int | None = None) -> None:
        super().__init__(reason)
        self.length = length


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an address answers.

    Attributes:
        read: Gives the next bytes, and none at the end.
        start: The position of the first of them in the file.
        total: The length of the whole file, where it is told.
        version: What the server calls this version of the file, or nothing.
    """

    read: Callable[[], bytes]
    start: int
    total: int | None
    version: str


class _Part:
    """The beginning of a file, and what the server called the version that it is of."""

    def __init__(self, path: Path, note: Path) -> None:
        self.path, self._note = path, note

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, address: str) -> str:
        """What that address called the version; empty if the beginning is from elsewhere."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return str(note["version"]) if note["address"] == address else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, address: str, version: str) -> None:
        """Forgets what there is; other bytes follow."""
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
    """Gives a checksum in small letters.

    Raises:
        UserError: It is none of MD5 (32 hexadecimal digits), SHA-1 (40) or SHA-256 (64).
    """
    text = str(checksum).lower()
    if len(text) not in _ALGORITHMS or not re.fullmatch("[0-9a-f]+", text):
        raise UserError(
            f"{key}={checksum} is no checksum: give the MD5 (32 hexadecimal digits), SHA-1 (40) "
            "or SHA-256 (64) of the archive"
        )
    return text


def check_mirrors(key: str, mirrors: object) -> list[str]:
    """Gives addresses as texts without a slash at their end.

    Raises:
        UserError: They are no list of http://, https:// and file:// addresses and folders.
    """
    if isinstance(mirrors, str) or not isinstance(mirrors, Sequence):
        raise UserError(f"{key}={mirrors} is no list: '{key}=[{mirrors}]' is one of one address")
    for mirror in mirrors:
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", str(mirror))
        if not mirror or not isinstance(mirror, str) or (scheme and not _known(scheme[1], mirror)):
            raise UserError(
                f"{key}: {mirror!r} is no address: give http://..., https://..., file:///... or "
                "a folder"
            )
    return [mirror.rstrip("/") or "/" for mirror in mirrors]


def _known(scheme: str, mirror: str) -> bool:
    if scheme.lower() == "file":
        return mirror[5:].startswith("///") or mirror[5:].startswith("//localhost/")
    return scheme.lower() in ("http", "https") and mirror[len(scheme) :].startswith("://")


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
    """Fetches `NAME` to a folder, going on with what is there.

    Args:
        name: The file's name at each address and in the folder.
        mirrors: The addresses that it may lie under, or folders; as `check_mirrors` gives them.
        checksum: Its MD5, SHA-1 or SHA-256; as `check_checksum` gives it.
        folder: Where to; no other process may be at it.
        limit: What no such file can be longer than, in bytes.
        attempts: Of each address, without getting on, before the next one is tried.
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
        return whole  # a process was killed before it used it
    if part.size and _digest(part.path, checksum) == checksum:
        return part.finish(whole)
    whole.unlink(missing_ok=True)
    reasons = []
    for mirror in mirrors:
        address = f"{mirror}/{name}"
        patience = _Patience(attempts, delay)
        try:
            with _progress(f"Downloading {name}") as tell:
                log.info("Downloading %s", address)
                in_one_piece = _transfer(address, part, patience, limit, timeout, tell)
                found = _digest(part.path, checksum)
                if found != checksum and not in_one_piece:
                    log.warning("%s: its pieces don't fit together; it begins anew", address)
                    part.discard()
                    _transfer(address, part, patience, limit, timeout, tell)
                    found = _digest(part.path, checksum)
        except _Refusal as refusal:
            reason = str(refusal)
            if part.size > limit:
                part.discard()
        else:
            if found == checksum:
                return part.finish(whole)
            part.discard()
            reason = f"its checksum is {found}, not {checksum}: it is another file, or damaged"
        log.warning("%s: %s", address, reason)
        reasons.append(f"  {address}: {reason}")
    raise UserError(
        "\n".join([f"{name} can't be downloaded:", *reasons])
        + "\nThe same command goes on where this one stopped; data.mirrors takes other addresses, "
        "or a folder that the file lies in"
    )


class _Patience:
    """Counts the attempts that got on no further."""

    def __init__(self, attempts: int, delay: float) -> None:
        self._attempts, self._delay = attempts, delay
        self._failures, self._furthest = 0, 0

    def wait(self, address: str, failure: _Failure, size: int) -> None:
        """Waits before the next attempt.

        Raises:
            _Refusal: There have been enough.
        """
        # Only what was never reached before counts: a server that always begins anew and always
        # stops would go on for ever.
        got_on = size >= self._furthest + _PROGRESS
        self._furthest = max(size, self._furthest)
        self._failures = 1 if got_on else self._failures + 1
        if self._failures >= self._attempts:
            raise _Refusal(f"{failure} ({self._attempts} attempts)")
        seconds = max(self._delay * 2 ** (self._failures - 1), failure.wait)
        if seconds > _LONGEST_WAIT:
            raise _Refusal(f"{failure}, and it asks for a pause of {seconds:.0f} s")
        log.warning("%s: %s; trying again in %.1f s", address, failure, seconds)
        time.sleep(seconds)


def _transfer(
    address: str, part: _Part, patience: _Patience, limit: int, timeout: float, tell: Tell
) -> bool:
    """Appends to a part until it is whole, as far as the server tells.

    Returns:
        Whether all bytes came in one answer.
    """
    while True:
        try:
            return _receive(address, part, limit, timeout, tell) == 0
        except _Failure as failure:
            patience.wait(address, failure, part.size)


def _receive(address: str, part: _Part, limit: int, timeout: float, tell: Tell) -> int:
    """Makes one attempt.

    Returns:
        The position of the first byte that it gave.
    """
    size = part.size
    try:
        with _opened(address, size, part.version(address), timeout) as answer:
            total = answer.total or 0
            if total > limit:
                raise _Refusal(f"it has {total:,} bytes, more than {limit:,}")
            # As much again is for what it holds: pictures don't shrink in an archive.
            check_room(part.path.parent, 2 * total - answer.start)
            if answer.start == 0:
                part.begin(address, answer.version)
            try:
                _append(answer, part.path, limit, tell)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                needed = max(2 * total, part.size + _CHUNK) - part.size
                raise no_room(part.path.parent, needed) from error
            return answer.start
    except _Misfit as misfit:
        if misfit.length == size:  # all of it is there already
            return size
        part.discard()
        raise _Failure(str(misfit)) from misfit


def _append(answer: _Answer, path: Path, limit: int, tell: Tell) -> None:
    size = answer.start
    with path.open("ab", buffering=0) as file:
        while block := answer.read():
            view = memoryview(block)
            while view:
                view = view[file.write(view) :]
            size += len(block)
            tell(size, answer.total)
            if size > limit:
                raise _Refusal(f"it has more than {limit:,} bytes")
    if answer.total is not None and size < answer.total:
        raise _Failure(f"the connection ended after {size:,} of {answer.total:,} bytes")


@contextmanager
def _opened(address: str, start: int, version: str, timeout: float) -> Iterator[_Answer]:
    """Asks for a file from some position on.

    Raises:
        _Failure: Another attempt may help.
        _Refusal: None will.
        _Misfit: What it sends begins elsewhere, or the file ends before that position.
    """
    if not address.lower().startswith(("http://", "https://")):
        with _opened_file(address, start) as answer:
            yield answer
        return
    headers = {"User-Agent": "segpets", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    try:
        response = _OPENER.open(urllib.request.Request(address, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(error) from error
    except Exception as error:
        raise _of_error(error) from error
    with response:
        yield _answer(response, start)


def _answer(response: http.client.HTTPResponse, start: int) -> _Answer:
    begin, total = 0, response.length
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if span is None or int(span[1]) != start:
            raise _Misfit(f"asked for what follows byte {start:,}, it sends something else")
        begin, total = start, int(span[2]) + 1 if span[3] == "*" else int(span[3])
    elif response.status != http.HTTPStatus.OK:
        raise _Refusal(f"it answers {response.status} {response.reason}")

    left = response.length

    def read() -> bytes:
        nonlocal left
        try:
            block = response.read1(_CHUNK if left is None else min(left, _CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise _of_error(error) from error
        if left is not None:
            left -= len(block)
        return block

    etag = response.headers.get("ETag", "")
    version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    return _Answer(read=read, start=begin, total=total, version=version)


@contextmanager
def _opened_file(address: str, start: int) -> Iterator[_Answer]:
    path = Path(address).expanduser()
    if address.lower().startswith("file:"):
        path = Path(unquote(urlsplit(address).path))
    try:
        if not path.is_file():  # a pipe would keep us waiting
            raise _Refusal("there is no such file")
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise _Refusal(f"it can't be read ({error.strerror})") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        if start > total:
            raise _Misfit("it has fewer bytes than there are already")
        file.seek(start)

        def read() -> bytes:
            try:
                return file.read(_CHUNK) or b""
            except OSError as error:
                raise _Failure(f"it can't be read ({error.strerror})") from error

        yield _Answer(read=read, start=start, total=total, version="")


def _of_status(error: urllib.error.HTTPError) -> Exception:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        length = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        reason = "it has fewer bytes than there are already"
        return _Misfit(reason, int(length[1]) if length else None)
    reason = f"it answers {error.code} {error.reason}".strip()
    if error.code in _BUSY:
        return _Failure(reason, wait=_seconds(error.headers.get("Retry-After", "")))
    return _Refusal(reason)


def _of_error(error: Exception) -> Exception:
    """Whether an error can pass, and in words what it is."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _Refusal(f"its certificate can't be trusted ({cause.verify_message})")
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return _Refusal(f"there is no such host ({words})")
    if isinstance(cause, http.client.InvalidURL | ValueError | OverflowError | str):
        return _Refusal(words)
    if isinstance(cause, OSError | http.client.HTTPException):
        return _Failure(words)
    return error


def _seconds(retry_after: str) -> float:
    """The pause that a server asks for, as a number of seconds or as a date."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    except (ValueError, OverflowError):
        return 0


def _only_http() -> urllib.request.OpenerDirector:
    """Opens http and https and, where redirected, nothing else, so that no file is read."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


_OPENER: Final = _only_http()


def check_room(folder: Path, needed: int) -> None:
    """Refuses to begin what a disk has no room for.

    Raises:
        UserError: It hasn't.
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
    """The checksum of a file, by the algorithm of another checksum."""
    algorithm = partial(hashlib.new, _ALGORITHMS[len(checksum)], usedforsecurity=False)
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


@contextmanager
def _progress(title: str) -> Iterator[Tell]:
    """Gives tell(bytes, of how many): a bar in a terminal, else a line now and then."""
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
