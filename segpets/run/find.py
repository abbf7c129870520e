"""Finds the runs that `runs=` refers to."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpets.errors import UserError
from segpets.reading import read_json
from segpets.run.directory import sweep_folder, train_first
from segpets.run.files import CHECKPOINTS, CONFIG, LATEST, METRICS, SUMMARY, RunFiles
from segpets.run.jobs import ASIDE

_TRACES = (".hydra", CONFIG, CHECKPOINTS, METRICS)


@dataclass(frozen=True)
class Unranked:
    """A run that is in no table.

    Attributes:
        path: Its directory.
        status: `completed`, `failed`, `interrupted`, `running`, `pruned` or `unreadable`.
        reason: Why it isn't ranked.
    """

    path: Path
    status: str
    reason: str


def words_of(runs: Any) -> list[str]:
    """Lists the words of a key that takes one run, several or none."""
    if runs is None:
        return []
    single = isinstance(runs, str | bytes | Path) or not isinstance(runs, Iterable)
    return [str(runs)] if single else [str(word) for word in runs]


def pruned_at(path: Path) -> int | None:
    """Reads the epoch at which a search ended a run early; None if it didn't."""
    try:
        epoch = read_json(RunFiles(path).trial).get("pruned_at_epoch")
    except (OSError, ValueError):
        return None
    return epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None


def find_runs(
    runs: Sequence[str], *, log_dir: Path, key: str = "runs"
) -> tuple[list[Path], list[Unranked]]:
    """Finds run directories, each once.

    Args:
        runs: Run directories, folders of runs such as a sweep's, the names of sweeps, `latest`, and
            patterns with `*`, `?`, `[...]` and `**` for any of them. The name of something that
            exists isn't a pattern. In a folder of runs, hidden folders, failed tries that were
            set aside, and anything that isn't a run are skipped.
        log_dir: Where `latest` and sweeps by their names are looked for.
        key: By which the user named them, for messages.

    Returns:
        The run directories, and those that were runs once and have lost their summary.

    Raises:
        UserError: A word finds nothing.
    """
    found: dict[Path, Path] = {}
    lost: dict[Path, Unranked] = {}
    for word in runs:
        seen = False
        for folder in _folders(word, log_dir, key):
            for run in _runs_in(folder):
                seen = True
                if (run / SUMMARY).exists():
                    found.setdefault(run.resolve(), run)
                else:
                    reason = f"holds no {SUMMARY}: delete it, or give its command again"
                    lost.setdefault(run.resolve(), Unranked(run, "unreadable", reason))
        if not seen:
            raise UserError(
                f"{key}={word} holds no run: give a run directory, a sweep's folder, or a pattern "
                "that finds some, such as 'logs/train/multiruns/*'"
            )
    return list(found.values()), list(lost.values())


def _folders(word: str, log_dir: Path, key: str) -> list[Path]:
    if word == LATEST:
        if not (log_dir / LATEST).is_dir():
            place = (log_dir / LATEST).absolute()
            raise UserError(f"{key}=latest: there is no {place}: {train_first('train_log_dir')}")
        return [(log_dir / LATEST).resolve()]
    path = Path(word).expanduser()
    try:
        if path.is_dir():
            return [path]
        if (sweep := sweep_folder(word, log_dir)) is not None:
            return [sweep]
        matches = sorted(Path(m) for m in glob.glob(str(path), recursive=True))
    except (OSError, ValueError, re.error) as error:  # such as a name that is too long
        raise UserError(f"{key}={word} can't be looked for: {error}") from error
    folders = [m for m in matches if m.is_dir() and not ASIDE.search(m.name)]
    if not folders:
        what = "is a file" if path.is_file() else f"finds no folder from {Path.cwd()}"
        raise UserError(
            f"{key}={word} {what}: give a run directory, a sweep's folder, latest, or a list"
        )
    return folders


def _runs_in(folder: Path) -> Iterator[Path]:
    if (folder / SUMMARY).exists():
        yield folder
        return
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError as error:
        raise UserError(f"{folder} can't be listed: {error}") from error
    held = [
        folder / name
        for name in names
        if not name.startswith(".") and not ASIDE.search(name) and _is_run(folder / name)
    ]
    yield from held
    if not held and _is_run(folder):
        yield folder


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (SUMMARY, *_TRACES))
