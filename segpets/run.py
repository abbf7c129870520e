"""The run directory: how an experiment is written down, found again and trusted.

    <run>/  summary.json  config.yaml  train.log  metrics.csv  checkpoints/  predictions/
            tensorboard/  .hydra/  .lock

A live process holds `.lock`; a summary that says `running` without one was interrupted.
"""

import difflib
import fcntl
import functools
import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf

import segpets
from segpets.errors import UserError, disk_is_full

log = logging.getLogger(__name__)

LOCK: Final = ".lock"
SUMMARY: Final = "summary.json"
CONFIG: Final = "config.yaml"
PACKAGES: Final = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")
DOES_NOT_TRAIN: Final = frozenset(
    {
        "__main__",
        "benchmark",
        "browse",
        "cli",
        "compare",
        "comparison",
        "doctor",
        "enlarge",
        "evaluate",
        "evaluation",
        "export",
        "exporting",
        "help",
        "hints",
        "jobs",
        "predict",
        "prediction",
        "report",
        "search",
        "speed",
        "stats",
        "sweep",
        "sweeping",
        "trained",
    }
)
"""Files and folders of the package that change no weight and no metric, only what is said of them,
what runs when, and what is made of finished runs."""


OTHER_FOLDER: Final = "choose another by hydra.run.dir=FOLDER or paths.log_dir=FOLDER"
"""The remedy where results can't be written."""


class HeldError(UserError):
    """Another process writes the run directory."""


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader, or a power cut, sees the old text or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def point(link: Path, target: Path) -> None:
    """Makes a symbolic link, or moves it, in one step; a file or folder in its place stays."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


def make_ready(folder: Path, otherwise: str, *, key: str = "") -> Path:
    """Makes a folder, and finds out before anything long begins whether it can be written.

    Args:
        folder: It may be there already.
        otherwise: What to do where it can't be written, for the message.
        key: What stands before the message, such as `output=out: `.

    Raises:
        UserError: It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{key}{folder} can't be written ({error.strerror}): {otherwise}"
        ) from error
    return folder


def shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


class Run:
    """A run directory that this process writes.

    Args:
        path: The directory; made if it isn't there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.summary: dict[str, Any] = {}
        self._begun, self._seconds_before = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, all its parts together."""
        return self._seconds_before + time.monotonic() - self._begun

    @property
    def checkpoints(self) -> Path:
        """Where `best.ckpt` and `last.ckpt` lie."""
        return self.path / "checkpoints"

    @contextmanager
    def hold(
        self, config: Mapping[str, Any], *, resuming: bool = False, **facts: Any
    ) -> Iterator["Run"]:
        """Owns the directory while a training runs, and records how it ends.

        Args:
            config: The resolved config, as plain data.
            resuming: Whether the directory holds the run that goes on.
            **facts: What stands in `summary.json` from the first moment on.

        Raises:
            UserError: Another process holds the directory, or it holds another run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise HeldError(
                    f"{self.path} is being written by {holder_of(self.path) or 'another process'}: "
                    "wait until it ends"
                ) from error
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            if not resuming and (self.path / SUMMARY).exists():
                raise UserError(
                    f"{self.path} already holds a run: choose another hydra.run.dir, or continue "
                    "it with resume=RUN"
                )
            if resuming:
                self.summary = _summary_or_none(self.path)
                self._seconds_before = self.summary.get("seconds", 0.0)
            write_atomically(self.path / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
            started = datetime.now(UTC).isoformat(timespec="seconds")
            begun = {"status": "running", "started": started, "error": None, "traceback": None}
            self.update(**begun, versions=versions(), **facts)
            try:
                yield self
            except BaseException as error:
                stopped = isinstance(error, KeyboardInterrupt)
                # Of a full disk nothing is to blame on the run: it goes on when there is room.
                status = "interrupted" if stopped or disk_is_full(error) else "failed"
                reason = None if stopped else f"{type(error).__name__}: {error}"
                text = None if stopped else traceback.format_exc()
                with suppress(OSError):  # a full disk must not hide why
                    self.update(status=status, error=reason, traceback=text, seconds=self.seconds)
                raise
            else:
                self.update(status="completed", error=None, traceback=None, seconds=self.seconds)

    def update(self, **facts: Any) -> None:
        """Adds facts to `summary.json`."""
        self.summary.update(facts)
        write_atomically(
            self.path / SUMMARY, json.dumps(self.summary, indent=2, default=str) + "\n"
        )


def read_summary(path: Path) -> dict[str, Any]:
    """Reads a run's summary; `running` becomes `interrupted` where no process holds the run.

    Raises:
        UserError: There is none, or it can't be read.
    """
    try:
        summary: dict[str, Any] = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} holds no {SUMMARY}: it is not a run directory") from error
    except ValueError as error:
        raise UserError(f"{path / SUMMARY} can't be read: {error}") from error
    if not isinstance(summary, dict):
        raise UserError(f"{path / SUMMARY} can't be read: it holds no table of names and values")
    if summary.get("status") == "running" and holder_of(path) is None:
        summary["status"] = "interrupted"
    return summary


def _summary_or_none(path: Path) -> dict[str, Any]:
    """The summary of a run that goes on; where it is damaged, it is kept beside a new one."""
    try:
        return read_summary(path)
    except UserError as error:
        keep_damaged(path, error)
        return {}


def keep_damaged(path: Path, why: object) -> None:
    """Renames a run's damaged summary, since nothing is overwritten, and says so."""
    (path / SUMMARY).rename(path / f"damaged-{SUMMARY}")
    log.warning("%s. A new one is begun; the old one is damaged-%s", why, SUMMARY)


def find_run(run: str | Path, *, log_dir: Path, key: str = "run") -> Path:
    """Finds a run directory.

    Args:
        run: Its path, or `latest`.
        log_dir: Where `latest` is looked for.
        key: The override by which the user gave it, for the message of an error.

    Raises:
        UserError: There is no such run.
    """
    path = Path(log_dir) / "latest" if str(run) == "latest" else Path(run).expanduser()
    if path.is_file():
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        which = ", and checkpoint=best or last" if key == "run" else ""
        raise UserError(
            f"{key}={run} is a file: give the directory of its run, {key}={shown(folder)}{which}"
        )
    if not path.is_dir():
        hint = ""
        if str(run) == "latest":
            hint = f": {train_first('train_log_dir' if key == 'run' else 'paths.log_dir')}"
        elif difflib.get_close_matches(str(run), ["latest"], cutoff=0.7):
            hint = f". Did you mean {key}=latest?"
        raise UserError(f"{key}={run}: there is no folder {path.absolute()}{hint}")
    if not (path / SUMMARY).is_file():
        runs = sorted(folder.parent for folder in path.glob(f"*/{SUMMARY}"))
        hint = f". It holds {len(runs)} runs: choose one, {key}={shown(runs[0])}" if runs else ""
        raise UserError(f"{key}={run}: {path} is no run, it holds no {SUMMARY}{hint}")
    return path.resolve()


def sweep_folder(name: str, log_dir: Path) -> Path | None:
    """The folder of a sweep that is given by its name alone, as in `sweep=NAME`; None if none is.

    Args:
        name: What may be one.
        log_dir: The folder of the trainings' logs.
    """
    if not name or name in (".", "..") or "/" in name:
        return None
    folder = log_dir / "multiruns" / name
    return folder if folder.is_dir() else None


def train_first(key: str) -> str:
    """What to do where `latest` is no run; `key` says where it is looked for."""
    return f"train first, or go to the folder where you trained ({key}=FOLDER says where)"


def holder_of(path: Path) -> str | None:
    """Which process holds a run directory, in words; None if none does."""
    try:
        with (path / LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return lock.read().strip() or "another process"
    except (FileNotFoundError, NotADirectoryError):
        pass
    return None


def versions() -> dict[str, str | None]:
    """The versions of all that a result depends on, and the git revision of segpets' source."""
    found: dict[str, str | None] = {
        "segpets": segpets.__version__,
        "git": git_revision(),
        "code": code_revision(),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_revision() -> str | None:
    """The commit of the checkout that segpets runs from, `+changes` if it was edited since.

    None when segpets is installed from a wheel.
    """
    package = Path(segpets.__file__).resolve().parent
    try:
        if Path(_git("rev-parse", "--show-toplevel")) / "segpets" != package:
            return None
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def code_revision() -> str:
    """Names the code that trains: all of the package but `DOES_NOT_TRAIN`.

    A file that nobody thought of counts, as do the user's own in `segpets/model/` and elsewhere.
    """
    package = Path(segpets.__file__).resolve().parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        place = file.relative_to(package)
        if place.parts[0].removesuffix(".py") not in DOES_NOT_TRAIN:
            digest.update(f"{place}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _git(*words: str) -> str:
    folder = str(Path(segpets.__file__).resolve().parent)
    command = ["git", "-C", folder, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
