"""The jobs of a sweep, as their directories show them: done, left to do, or running.

    <sweep>/  sweep.json  <one run directory a job>/  <job>.failed-1/  <job>.replaced-1/

All that is known about a job is in its own directory, so any process can finish a sweep that
another one began, and several can share one.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.reading import in_one_line, read_json
from segpets.run.directory import keep_damaged, read_summary
from segpets.run.files import CONFIG, SUMMARY, SWEEP, set_aside, shown, write_atomically
from segpets.run.lock import holder_of, waiting
from segpets.run.versions import code_revision

log = logging.getLogger(__name__)

MISMATCH: Final = ("refuse", "restart", "accept")
_STOP: Final = ".stop"
_LOCK: Final = ".lock"
_SECONDS_FOR_AN_ORPHAN: Final = 10.0
ASIDE = re.compile(r"\.(failed|replaced)-\d+$")


class State(StrEnum):
    """The state of a job, by its directory."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    COMPLETED = "completed"


class Plan(StrEnum):
    """The plan of a sweep's start for a job."""

    BEGIN = "new"
    GO_ON = "to go on"
    AGAIN = "to try again"
    DONE = "complete"
    ELSEWHERE = "run by others"


@dataclass(frozen=True)
class Job:
    """One combination of a sweep.

    Attributes:
        path: Its run directory.
        overrides: What distinguishes it from the default.
        fingerprint: Names its config; see `segpets.config.fingerprint`.
        trainer: The group `trainer` of its config.
        latest: The run that is the latest now, if its config names that.
    """

    path: Path
    overrides: tuple[str, ...]
    fingerprint: str
    trainer: Any = None
    latest: Path | None = None


def look(path: Path) -> tuple[State, dict[str, Any]]:
    """Reads the state of a job and its summary; a damaged summary counts as none.

    A damaged summary beside a config means that the job was interrupted: it resumes from its last
    checkpoint, and its measurements are taken again.
    """
    if not (path / SUMMARY).is_file():  # a process that has just begun locks before it writes
        return State.NEW if holder_of(path) is None else State.RUNNING, {}
    try:
        summary = read_summary(path)
    except UserError:
        held = holder_of(path) is not None
        if held:
            return State.RUNNING, {}
        return (State.INTERRUPTED if (path / CONFIG).is_file() else State.FAILED), {}
    try:
        return State(summary.get("status", State.FAILED)), summary
    except (ValueError, TypeError):
        return State.FAILED, summary


def settled(path: Path) -> tuple[State, dict[str, Any]]:
    """Waits up to 10 s for the lock of a process that was just killed, then acts as `look`."""
    until = time.monotonic() + _SECONDS_FOR_AN_ORPHAN
    while (found := look(path))[0] == State.RUNNING and time.monotonic() < until:
        time.sleep(0.2)
    return found


def mend(path: Path, **facts: Any) -> None:
    """Gives a job whose summary is damaged a new one; the old one is kept beside it."""
    keep_damaged(path, f"{path / SUMMARY} is damaged")
    text = json.dumps({"status": "interrupted", "task": "train", **facts}, indent=2) + "\n"
    write_atomically(path / SUMMARY, text)


def plan(jobs: Sequence[Job], *, mismatch: str) -> list[tuple[Job, Plan]]:
    """Decides what a start does with each job, and makes room for those that begin again.

    The directory of a failed job is kept beside the new one, under another name.

    Args:
        jobs: The sweep's jobs.
        mismatch: What happens to jobs that were begun by another config or other code: `refuse`
            raises, `restart` keeps them beside new ones, `accept` takes them as they are.

    Raises:
        UserError: Some were, and `mismatch` is `refuse`; nothing was changed then.
    """
    code = code_revision()
    folder = jobs[0].path.parent
    begun = _noted(folder).get("begun")
    begun = begun if isinstance(begun, dict) else {}
    for job in jobs:
        if job.path.exists() and not job.path.is_dir():
            _put_aside(job.path, "replaced")
    seen = [(job, *look(job.path)) for job in jobs]
    differ: dict[Path, str] = {}
    for index, (job, state, summary) in enumerate(seen):
        known = {"config_fingerprint": begun.get(job.path.name)} | summary
        if state not in (State.NEW, State.FAILED) and (reason := _difference(job, known, code)):
            differ[job.path] = reason
            if state == State.RUNNING and mismatch == "restart":
                seen[index] = (job, *settled(job.path))
    if differ and mismatch == "refuse":
        path, reason = next(iter(differ.items()))
        raise UserError(
            f"{len(differ)} of {len(jobs)} jobs of this sweep were begun otherwise, {path.name} "
            f"for example by {reason}: sweep_mismatch=restart does them again and keeps the old "
            "ones beside, sweep_mismatch=accept takes them as they are, sweep=NAME begins another "
            "sweep"
        )
    planned = []
    for job, state, _ in seen:
        action = _PLANS[state]
        if state == State.FAILED:
            _put_aside(job.path, "failed")
        elif job.path in differ and mismatch == "restart" and state != State.RUNNING:
            _put_aside(job.path, "replaced")
            action = Plan.AGAIN
        planned.append((job, action))
    anew = (Plan.BEGIN, Plan.AGAIN)
    marks = {job.path.name: job.fingerprint for job, action in planned if action in anew}
    _note(folder, begun=begun | marks)
    return planned


_PLANS: Final = {
    State.NEW: Plan.BEGIN,
    State.RUNNING: Plan.ELSEWHERE,
    State.INTERRUPTED: Plan.GO_ON,
    State.FAILED: Plan.AGAIN,
    State.COMPLETED: Plan.DONE,
}


def _difference(job: Job, summary: Mapping[str, Any], code: str) -> str | None:
    if (summary.get("config_fingerprint") or job.fingerprint) != job.fingerprint:
        return "another base config"
    versions = summary.get("versions")
    begun_by = versions.get("code", code) if isinstance(versions, dict) else code
    return None if begun_by == code else f"another revision of the code ({begun_by}, now {code})"


def _put_aside(path: Path, why: str) -> None:
    beside = set_aside(path, why)
    log.info("%s is tried again; what it left is kept in %s", path.name, beside.name)


@contextmanager
def planning(folder: Path) -> Iterator[None]:
    """Keeps other processes from planning the same sweep meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(
            f"{folder} is a file, where a sweep wants its folder: move it, or choose another sweep="
        ) from error
    with waiting(folder / _LOCK):
        yield


def remember(folder: Path, jobs: Sequence[Job], *, metric: str) -> None:
    """Adds jobs to those that `sweep.json` lists, so that others know what is left."""
    known = listed(folder)
    known |= {job.path.name: list(job.overrides) for job in jobs}
    _note(folder, metric=metric, jobs=known)
    now = next((job.latest for job in jobs if job.latest), None)
    if now is None:
        return
    if (then := latest_of(folder)) is None:
        _note(folder, latest=str(now))
    elif then != now:
        _say_latest(then)


@cache
def _say_latest(path: Path) -> None:  # once for all batches of a search
    log.info("latest is %s in this sweep, as when it began", shown(path))


def latest_of(folder: Path) -> Path | None:
    """Reads which run was the latest when a sweep began whose jobs name it; None without any."""
    noted = _noted(folder).get("latest")
    return Path(noted) if isinstance(noted, str) else None


def threads_of(folder: Path, mine: int) -> int:
    """Reads the number of threads that a sweep's jobs compute with, as the first of them set it.

    The last digits of results depend on it, so it belongs to the sweep, and another launcher
    doesn't change it.
    """
    with planning(folder):
        known = _noted(folder).get("threads")
        if not isinstance(known, int):
            _note(folder, threads=mine)
    return known if isinstance(known, int) else mine


def _noted(folder: Path) -> dict[str, Any]:
    try:
        return read_json(folder / SWEEP)
    except (OSError, ValueError):
        return {}


def _note(folder: Path, **facts: Any) -> None:
    text = json.dumps(_noted(folder) | facts, indent=1) + "\n"
    write_atomically(folder / SWEEP, text)


def listed(folder: Path) -> dict[str, list[str]]:
    """Lists a sweep's jobs, with their overrides; without a list, those with directories."""
    jobs = _noted(folder).get("jobs")
    if isinstance(jobs, dict) and all(isinstance(words, list) for words in jobs.values()):
        return {
            name: [in_one_line(word) for word in words]
            for name, words in jobs.items()
            if _is_name(name)  # of a folder within the sweep's, and of nothing else
        }
    return {
        path.name: _texts(look(path)[1].get("overrides"))
        for path in sorted(folder.glob("*/"))
        if (path / SUMMARY).is_file() and not ASIDE.search(path.name)
    }


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 255 and name not in (".", "..") and not set(name) & set("/\\\0\n")


def _texts(words: object) -> list[str]:
    return [in_one_line(word) for word in words] if isinstance(words, list) else []


def metric_of(folder: Path) -> str:
    """Reads the metric that a sweep maximises."""
    return str(_noted(folder).get("metric", "val/mean_iou"))


def record_failure(
    path: Path, overrides: Sequence[str], error: BaseException, text: str, *, goes_on: bool = False
) -> None:
    """Records that a job failed, if it couldn't do so itself.

    Args:
        path: Its directory.
        overrides: Its overrides.
        error: The reason.
        text: The traceback.
        goes_on: Whether what it had reached is still there, and is gone on from the next time.
    """
    state, known = look(path)
    if goes_on:
        told = {"status": "interrupted", "error": f"{type(error).__name__}: {error}"}
        write_atomically(path / SUMMARY, json.dumps({**known, **told}, indent=2) + "\n")
        return
    if state == State.FAILED:
        return
    path.mkdir(parents=True, exist_ok=True)
    facts = {
        "status": "failed",
        "task": "train",
        "overrides": list(overrides),
        "error": f"{type(error).__name__}: {error}",
        "traceback": text,
    }
    write_atomically(path / SUMMARY, json.dumps({**known, **facts}, indent=2) + "\n")


def ask_to_stop(folder: Path) -> None:
    """Keeps further jobs of a sweep from starting, wherever they would run."""
    (folder / _STOP).touch()


def asked_to_stop(folder: Path) -> bool:
    """Tells whether a job failed since the sweep was started with `fail_fast`."""
    return (folder / _STOP).exists()


def may_start(folder: Path) -> None:
    """Lets jobs start again."""
    (folder / _STOP).unlink(missing_ok=True)
