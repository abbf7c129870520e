"""Opens an address, or a folder in its place, from some position of a file on."""

import email.utils
import http.client
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from segpets.errors import UserError

CHUNK: Final = 2**18

T = TypeVar("T")


_BUSY: Final = {408, 425, 429, 500, 502, 503, 504}


_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Refusal(Exception):
    """The reason why an address doesn't give the file."""


class Failure(Exception):
    """The reason why an address can't give the file yet, and the seconds that it asks to wait."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class Misfit(Exception):
    """Bytes from a server that don't continue those that are there."""

    def __init__(self, reason: str, length: int | None = None) -> None:
        super().__init__(reason)
        self.length = length


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of an address.

    Attributes:
        read: Gives the next bytes, and none at the end.
        start: The position of the first of them in the file.
        total: The length of the whole file, if the server tells it.
        version: The server's name for this version of the file, or nothing.
    """

    read: Callable[[], bytes]
    start: int
    total: int | None
    version: str


def check_mirrors(key: str, mirrors: object) -> list[str]:
    """Returns addresses as texts without a trailing slash.

    Raises:
        UserError: They aren't a list of http://, https:// and file:// addresses and folders.
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


@contextmanager
def opened(address: str, start: int, version: str, timeout: float) -> Iterator[Answer]:
    """Asks for a file from some position on.

    Raises:
        Failure: Another attempt may help.
        Refusal: No further attempt will help.
        Misfit: What it sends begins elsewhere, or the file ends before that position.
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
        request = urllib.request.Request(address, headers=headers)
        response = _within(4 * timeout, lambda: _OPENER.open(request, timeout=timeout))
    except urllib.error.HTTPError as error:
        with error:
            raise _of_status(error) from error
    except Exception as error:
        raise _of_error(error) from error
    with response:
        yield _answer(response, start)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """Calls a function in a thread, and waits for it no longer than that.

    A socket's own time limit begins anew with each byte, so a server that sends its head a letter
    at a time would be waited for without end.

    Raises:
        TimeoutError: It takes longer; the thread is left to itself.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"its answer takes more than {seconds:.0f} s") from error


def _answer(response: http.client.HTTPResponse, start: int) -> Answer:
    begin, total = 0, response.length
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if span is None or int(span[1]) != start:
            raise Misfit(f"asked for what follows byte {start:,}, it sends something else")
        begin, total = start, int(span[2]) + 1 if span[3] == "*" else int(span[3])
    elif response.status != http.HTTPStatus.OK:
        raise Refusal(f"it answers {response.status} {response.reason}")

    left = response.length

    def read() -> bytes:
        nonlocal left
        try:
            block = response.read1(CHUNK if left is None else min(left, CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise _of_error(error) from error
        if left is not None:
            left -= len(block)
        return block

    etag = response.headers.get("ETag", "")
    version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    return Answer(read=read, start=begin, total=total, version=version)


@contextmanager
def _opened_file(address: str, start: int) -> Iterator[Answer]:
    path = Path(address).expanduser()
    if address.lower().startswith("file:"):
        path = Path(unquote(urlsplit(address).path))
    try:
        if not path.is_file():  # a pipe would block
            raise Refusal("there is no such file")
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise Refusal(f"it can't be read ({error.strerror})") from error
    with file:
        total = os.fstat(file.fileno()).st_size
        if start > total:
            raise Misfit("it has fewer bytes than there are already")
        file.seek(start)

        def read() -> bytes:
            try:
                return file.read(CHUNK) or b""
            except OSError as error:
                raise Failure(f"it can't be read ({error.strerror})") from error

        yield Answer(read=read, start=start, total=total, version="")


def _of_status(error: urllib.error.HTTPError) -> Exception:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        length = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        reason = "it has fewer bytes than there are already"
        return Misfit(reason, int(length[1]) if length else None)
    reason = f"it answers {error.code} {error.reason}".strip()
    if error.code in _BUSY:
        return Failure(reason, wait=_seconds(error.headers.get("Retry-After", "")))
    return Refusal(reason)


def _of_error(error: Exception) -> Exception:
    """Sorts errors into temporary and permanent ones."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refusal(f"its certificate can't be trusted ({cause.verify_message})")
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return Refusal(f"there is no such host ({words})")
    if isinstance(cause, http.client.InvalidURL | ValueError | OverflowError | str):
        return Refusal(words)
    if isinstance(cause, OSError | http.client.HTTPException):
        return Failure(words)
    return error


def _seconds(retry_after: str) -> float:
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
