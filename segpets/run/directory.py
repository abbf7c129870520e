"""The run directory as it is written, and found again.

A live process holds its lock; a summary that says `running` without one was interrupted.
"""

import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from segpets.errors import UserError, did_you_mean, disk_is_full
from segpets.reading import in_one_line, read_json
from segpets.run.files import (
    CHECKPOINTS,
    LATEST,
    SUMMARY,
    RunFiles,
    remove_unfinished,
    shown,
    write_atomically,
)
from segpets.run.lock import check_new, held, holder_of
from segpets.run.names import safe_name
from segpets.run.versions import versions

log = logging.getLogger(__name__)


class Run:
    """A run directory that this process writes.

    Args:
        path: The directory; created if it is missing.

    Attributes:
        extended: Whether it goes on although it had ended.
        trains: Whether this process has begun to train; until then, a run that was there is left as
            it was where an error ends the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.files = RunFiles(self.path)
        self.summary: dict[str, Any] = {}
        self.extended, self.trains = False, False
        self._begun, self._seconds_before = time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """The time that the run has taken so far, all its parts together."""
        return self._seconds_before + time.monotonic() - self._begun

    def continues_after(self, seconds: float) -> None:
        """Counts the time up to a checkpoint, as a killed process couldn't write it down."""
        self._seconds_before = max(self._seconds_before, seconds)

    @contextmanager
    def hold(self, config: DictConfig, *, resuming: bool = False, **facts: Any) -> Iterator["Run"]:
        """Owns the directory while a training runs, and records how it ends.

        Raises:
            UserError: Another process holds the directory, or it holds another run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not resuming and holder_of(self.path) is None:
            check_new(self.path, "train")
        before: dict[Path, str] = {}
        with held(self.path):
            if not resuming:
                check_new(self.path, "train")  # another process may have been quicker
            if resuming:
                for file in (self.files.summary, self.files.config, self.files.metrics):
                    remove_unfinished(file)
                self.summary = _summary_or_none(self.path)
                self._seconds_before = self.summary.get("seconds", 0.0)
                self.extended = self.summary.get("status") == "completed"
                if self.summary.get("status") not in (None, "failed"):
                    before = {file: _text(file) for file in (self.files.config, self.files.summary)}
            write_atomically(self.files.config, OmegaConf.to_yaml(config))
            started = datetime.now(UTC).isoformat(timespec="seconds")
            begun = {"status": "running", "started": started, "error": None, "traceback": None}
            self.update(**begun, versions=versions(), **facts)
            try:
                yield self
            except BaseException as error:
                if before and not self.trains:
                    with suppress(OSError):  # a full disk must not hide why
                        for file, text in before.items():
                            write_atomically(file, text)
                    raise
                stopped = isinstance(error, KeyboardInterrupt)
                # A full disk is not the run's fault: it goes on when there is room.
                status = "interrupted" if stopped or disk_is_full(error) else "failed"
                reason = None if stopped else f"{type(error).__name__}: {error}"
                trace = None if stopped else traceback.format_exc()
                with suppress(OSError):  # a full disk must not hide why
                    self.update(status=status, error=reason, traceback=trace, seconds=self.seconds)
                raise
            else:
                self.update(status="completed", error=None, traceback=None, seconds=self.seconds)

    def update(self, **facts: Any) -> None:
        """Adds facts to the summary."""
        self.summary.update(facts)
        write_atomically(self.files.summary, json.dumps(self.summary, indent=2, default=str) + "\n")

    def forget(self, prefix: str) -> None:
        """Removes facts whose names begin so."""
        self.summary = {k: v for k, v in self.summary.items() if not k.startswith(prefix)}
        self.update()

    def reload(self) -> None:
        """Takes over what a process spawned for the training has added."""
        self.summary = read_json(self.files.summary)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def read_summary(path: Path) -> dict[str, Any]:
    """Reads a run's summary; `running` becomes `interrupted` where no process holds the run.

    Raises:
        UserError: There is none, or it can't be read.
    """
    file = RunFiles(path).summary
    try:
        summary = read_json(file)
    except FileNotFoundError as error:
        raise UserError(f"{path} holds no {SUMMARY}: it is not a run directory") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{file} can't be read: {in_one_line(error)}") from error
    if summary.get("status") == "running" and holder_of(path) is None:
        summary["status"] = "interrupted"
    return summary


def thread_count(summary: Mapping[str, Any]) -> int | None:
    """Reads the number of threads that a run computes with; its last digits depend on it."""
    count = summary.get("threads")
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 1 <= count <= 8 * (os.cpu_count() or 1) else None


def _summary_or_none(path: Path) -> dict[str, Any]:
    """Reads the summary of a resumed run; a damaged one is kept beside a new one."""
    try:
        return read_summary(path)
    except UserError as error:
        keep_damaged(path, error)
        return {}


def keep_damaged(path: Path, why: object) -> None:
    """Renames a run's damaged summary, since nothing is overwritten, and says so."""
    file = RunFiles(path).summary
    aside, number = file.with_name(f"damaged-{SUMMARY}"), 1
    while aside.exists():
        number += 1
        aside = file.with_name(f"damaged-{number}-{SUMMARY}")
    file.rename(aside)
    log.warning("%s. A new one is begun; the old one is %s", why, aside.name)


def find_run(run: str | Path, *, log_dir: Path, key: str = "run") -> Path:
    """Finds a run directory.

    Args:
        run: Its path, or `latest`.
        log_dir: Where `latest` is looked for.
        key: The override by which the user gave it, for the message of an error.

    Raises:
        UserError: There is no such run.
    """
    path = Path(log_dir) / LATEST if str(run) == LATEST else Path(run).expanduser()
    if path.is_file():
        folder = path.parent.parent if path.parent.name == CHECKPOINTS else path.parent
        which = ", and checkpoint=best or last" if key == "run" else ""
        raise UserError(
            f"{key}={run} is a file: give the directory of its run, {key}={shown(folder)}{which}"
        )
    if not path.is_dir():
        hint = ""
        if str(run) == LATEST:
            hint = f": {train_first('train_log_dir' if key == 'run' else 'paths.log_dir')}"
        else:
            hint = did_you_mean(str(run), [LATEST], f"{key}=", 0.7)
            hint = hint and f".{hint}"
        raise UserError(f"{key}={run}: there is no folder {path.absolute()}{hint}")
    if not RunFiles(path).summary.is_file():
        runs = sorted(folder.parent for folder in path.glob(f"*/{SUMMARY}"))
        hint = f". It holds {len(runs)} runs: choose one, {key}={shown(runs[0])}" if runs else ""
        raise UserError(f"{key}={run}: {path} is no run, it holds no {SUMMARY}{hint}")
    return path.resolve()


def sweep_folder(name: str, log_dir: Path) -> Path | None:
    """Finds a sweep's folder by its name alone, as in `sweep=NAME`; None if there is none."""
    if not name or name in (".", "..") or "/" in name:
        return None
    folders = (log_dir / "multiruns" / one for one in (name, safe_name(name)))
    return next((folder for folder in folders if folder.is_dir()), None)


def train_first(key: str) -> str:
    """Says what to do if `latest` isn't a run; `key` names the folder where it is looked for."""
    return f"train first, or go to the folder where you trained ({key}=FOLDER says where)"
