"""Locks: that of a run, whose holder others can see, and those that are waited for."""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segpets.errors import UserError
from segpets.run.files import RunFiles

log = logging.getLogger(__name__)


class HeldError(UserError):
    """Another process writes the run directory."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a run directory.

    Raises:
        HeldError: Another process does.
    """
    with RunFiles(path).lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HeldError(
                f"{path} is being written by {holder_of(path) or 'another process'}: wait until "
                "it ends"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield


@contextmanager
def waiting(lock: Path, message: str = "") -> Iterator[None]:
    """Holds a lock file; while another process does, logs a message and waits.

    Raises:
        OSError: The folder can't be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if message:
                log.info("%s", message)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def holder_of(path: Path) -> str | None:
    """Names the process that holds a run directory; None if none does."""
    # filelock would empty the file, and two simultaneous readers would see each other as holder.
    try:
        with RunFiles(path).lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return lock.read().strip() or "another process"
    except (FileNotFoundError, NotADirectoryError):
        pass
    return None
