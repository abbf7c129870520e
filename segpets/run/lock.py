"""Locks: that of a run, whose holder others can see, and those that are waited for.

Some file systems have no locks (Lustre, NFS and FUSE by their mount options, Colab's Drive). There
a command goes on and says that nobody else is kept out.
"""

import errno
import fcntl
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from segpets.errors import UserError
from segpets.reading import in_one_line, read_json, read_start
from segpets.run.files import NEVER_BEGAN, OTHER_FOLDER, RECORDS, SUMMARY, TRIAL, RunFiles

log = logging.getLogger(__name__)

_NO_LOCKS: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_TRIES: Final = 3
_HOLDER: Final = re.compile(r"process (\d+) on (\S+)")


_HELD: Final[set[IO[Any]]] = set()


def _let_go_in_child() -> None:
    """Closes the locks that a forked process has of its parent.

    A lock belongs to whoever has the file open: the data workers of a killed training, which end
    seconds after it, would keep the run from being resumed.
    """
    for lock in _HELD:
        with suppress(OSError):
            lock.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


class HeldError(UserError):
    """Another process writes the run directory."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a run directory, or another folder that a command writes.

    The lock is removed in the end, so one that nobody holds was left by a command that was killed.

    Raises:
        HeldError: Another process does.
        UserError: Something else lies in the place of the lock.
    """
    file = RunFiles(path).lock
    with _current(file) as lock:
        for _ in range(_TRIES):  # who only looks whether it is held has it for an instant
            if not (taken := _taken(lock, fcntl.LOCK_EX)):
                break
            time.sleep(0.02)
        if taken:
            raise HeldError(
                f"{path} is being written by {holder_of(path) or 'another process'}: wait until "
                "it ends"
            )
        _sign(lock)
        _HELD.add(lock)
        owner = os.getpid()
        try:
            yield
        finally:
            _HELD.discard(lock)
            if os.getpid() == owner:
                with suppress(OSError):
                    file.unlink()


def keep(file: Path) -> IO[Any] | None:
    """Takes a lock until this process ends, or closes what is returned; None if another has it.

    Raises:
        OSError: The file can't be opened.
    """
    lock = _opened(file, os.O_RDWR | os.O_CREAT)
    if _taken(lock, fcntl.LOCK_EX):
        lock.close()
        return None
    _sign(lock)
    return lock


def _sign(lock: IO[Any]) -> None:
    """Writes down who holds a lock."""
    lock.seek(0)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


def check_new(folder: Path, task: str, *, before_hydra: bool = False) -> None:
    """Refuses a folder in which a command would write among files that aren't its own.

    Its own are Hydra's, and whatever stands beside a lock that nobody removed: a command that was
    killed before it had written its record goes on there.

    Args:
        folder: It may be missing.
        task: The command.
        before_hydra: Hydra has written nothing there yet, so a log by itself is the user's.

    Raises:
        UserError: It holds other files; the message names the first.
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{folder} can't be read ({error.strerror}): {OTHER_FOLDER}") from error
    for record, what in RECORDS.items():
        if record in names:
            what = NEVER_BEGAN if record == SUMMARY and _never_began(RunFiles(folder)) else what
            raise UserError(f"{folder} {what}")
    if _is_lock(RunFiles(folder).lock):
        return
    hydras = {".hydra", f"{task}.log", TRIAL}
    if before_hydra and ".hydra" not in names:
        hydras = set()
    if others := sorted(names - hydras):
        raise UserError(
            f"{folder} isn't empty, it holds {in_one_line(others[0])}: choose a new or empty "
            "folder by hydra.run.dir=FOLDER"
        )


def _is_lock(file: Path) -> bool:
    """Tells whether a file is a lock of ours."""
    try:
        return _HOLDER.match(read_start(file, 200).decode(errors="replace")) is not None
    except OSError:
        return False


def _never_began(files: RunFiles) -> bool:
    """Tells whether a run failed before its first checkpoint, so that nothing can go on."""
    try:
        failed = read_json(files.summary).get("status") == "failed"
    except (OSError, ValueError):
        return False
    return failed and not any(files.checkpoints.glob("*.ckpt"))


@contextmanager
def waiting(lock: Path, message: str = "") -> Iterator[None]:
    """Holds a lock file; while another process does, logs a message and waits.

    Who holds it may remove it: those that wait then take the one that has its name.

    Raises:
        OSError: The folder can't be written.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _opened(lock, os.O_RDWR | os.O_CREAT) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if message:
                    log.info("%s", message)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                _say_no_locks(lock, error)
            if _is_named(file, lock):
                yield
                return


def holder_of(path: Path) -> str | None:
    """Names the process that holds a run directory; None if none does."""
    # filelock would empty the file, and two simultaneous readers would see each other as holder.
    try:
        with _opened(RunFiles(path).lock, os.O_RDONLY) as lock:
            if not _taken(lock, fcntl.LOCK_SH, quiet=True):
                return None
            lock.seek(0)
            return in_one_line(lock.read(200).strip()) or "another process"
    except OSError:
        return None


def _current(file: Path) -> IO[Any]:
    """Opens the lock that has its name now, and not one that was just removed."""
    while True:
        try:
            lock = _opened(file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO):
                raise UserError(f"{in_one_line(file)} is no regular file: remove it") from error
            raise
        if _is_named(lock, file):
            return lock
        lock.close()


def _is_named(lock: IO[Any], file: Path) -> bool:
    """Tells whether an opened lock still has its name, and wasn't removed."""
    try:
        return os.fstat(lock.fileno()).st_ino == os.stat(file).st_ino
    except FileNotFoundError:
        return False


def _opened(file: Path, flags: int) -> IO[Any]:
    """Opens a lock file itself, whatever a link or a pipe in its place would do.

    Raises:
        OSError: It can't be opened, or is something else.
    """
    descriptor = os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(file))
    mode = "r+" if flags & os.O_RDWR else "r"
    return open(file, mode, encoding="utf-8", errors="replace", opener=lambda *_: descriptor)


def _taken(lock: IO[Any], operation: int, *, quiet: bool = False) -> bool:
    """Tries to lock an opened lock of a run; tells whether another process has it."""
    try:
        fcntl.flock(lock, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if not quiet:
            _say_no_locks(Path(lock.name), error)
        lock.seek(0)
        return _names_another(lock.read(200))
    return False


def _say_no_locks(lock: Path, error: OSError) -> None:
    if error.errno not in _NO_LOCKS:
        raise error
    log.warning(
        "%s has no locks (%s), so nobody else is kept out: start no second command that writes "
        "there",
        in_one_line(lock.parent),
        error.strerror,
    )


def _names_another(text: str) -> bool:
    """Tells whether a lock names a living process of this machine besides this one.

    Where there are no locks, a holder is seen by this. Who lets a lock go empties it, and who is
    killed is gone.
    """
    holder = _HOLDER.match(text)
    if holder is None or holder[2] != socket.gethostname() or int(holder[1]) == os.getpid():
        return False
    try:
        os.kill(int(holder[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
