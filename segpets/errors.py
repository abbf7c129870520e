"""The exceptions for what a user can mend."""

import difflib
import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from segpets.reading import in_one_line

_SHOWN: Final = 60


class UserError(Exception):
    """Something that the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 1.
    """


def disk_is_full(error: BaseException) -> bool:
    """Tells whether the disk, or the quota of the user, was full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def overlong(error: BaseException) -> str | None:
    """Returns the beginning of a name that was longer than the file system takes, if one was."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    parts = str(error.filename or "a path").split(os.sep)
    name = in_one_line(max(parts, key=len))
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def out_of_memory(error: BaseException) -> bool:
    """Tells whether memory ran out, on the CPU or on an accelerator."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "DefaultCPUAllocator: can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def nearest(word: str, words: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Finds the most similar of some words, if any is similar."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return close[0] if close else None


def did_you_mean(word: str, words: Iterable[str], prefix: str = "", cutoff: float = 0.5) -> str:
    """Asks ` Did you mean PREFIXnearest?`; nothing where no word is similar."""
    near = nearest(word, words, cutoff)
    return "" if near is None else f" Did you mean {prefix}{near}?"


class JobError(Exception):
    """One combination of a sweep's values gives no config; `__cause__` says why.

    Args:
        job: What tells the job from the others.
        overrides: All of its overrides.
    """

    def __init__(self, job: str, overrides: Sequence[str]) -> None:
        super().__init__(f"the job {job} can't be composed")
        self.overrides = list(overrides)


class FileError(UserError):
    """A file that can't be used.

    Args:
        file: The file.
        problem: What is wrong with it, as a sentence without its subject: `has no pixels`.
        remedy: What to do.
    """

    def __init__(self, file: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{in_one_line(file)} {problem}: {remedy}")
        self.file, self.problem, self.remedy = file, problem, remedy

    def __reduce__(self) -> tuple[type["FileError"], tuple[Path, str, str]]:
        return type(self), (self.file, self.problem, self.remedy)
