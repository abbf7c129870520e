"""The jobs of a sweep, as their directories tell: what is done, what is left, what goes on.

    <sweep>/  sweep.json  <one run directory a job>/  <job>.failed-1/  <job>.replaced-1/

All that is known of a job stands in its own directory; so any process can finish a sweep that
another one began, and several can share one.
"""

import fcntl
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.run import (
    CONFIG,
    SUMMARY,
    code_revision,
    holder_of,
    keep_damaged,
    read_summary,
    shown,
    write_atomically,
)

log = logging.getLogger(__name__)

SWEEP: Final = "sweep.json"
MISMATCH: Final = ("refuse", "restart", "accept")
_STOP: Final = ".stop"
_LOCK: Final = ".lock"
_SECONDS_FOR_AN_ORPHAN: Final = 10.0
_LONGEST_WORD: Final = 60
_LONGEST_REASON: Final = 120
_REASONS: Final = 20
ASIDE = re.compile(r"\.(failed|replaced)-\d+$")


class State(StrEnum):
    """What a job's directory says of it."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    COMPLETED = "completed"


class Plan(StrEnum):
    """What a start of the sweep does with a job."""

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
    """

    path: Path
    overrides: tuple[str, ...]
    fingerprint: str


def look(path: Path) -> tuple[State, dict[str, Any]]:
    """What a job's directory says, and its summary; a summary that is damaged counts as none.

    A damaged summary beside a config means that the job was interrupted: it goes on from its last
    checkpoint, and what it had measured is measured again.
    """
    if not (path / SUMMARY).is_file():  # a process that has just begun holds the lock first
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
    except ValueError:
        return State.FAILED, summary


def settled(path: Path) -> tuple[State, dict[str, Any]]:
    """What `look` says; what a process left that was just killed gets a moment to end."""
    until = time.monotonic() + _SECONDS_FOR_AN_ORPHAN
    while (found := look(path))[0] == State.RUNNING and time.monotonic() < until:
        time.sleep(0.2)
    return found


def mend(path: Path, **facts: Any) -> None:
    """Gives a job whose summary is damaged a new one; the old one is kept beside it.

    Args:
        path: Its run directory.
        **facts: What is known of it.
    """
    keep_damaged(path, f"{path / SUMMARY} is damaged")
    text = json.dumps({"status": "interrupted", "task": "train", **facts}, indent=2) + "\n"
    write_atomically(path / SUMMARY, text)


def plan(jobs: Sequence[Job], *, mismatch: str) -> list[tuple[Job, Plan]]:
    """Decides what a start does with each job, and makes way for those that begin again.

    The directory of a failed job is kept beside the new one, under another name.

    Args:
        jobs: The sweep's.
        mismatch: What happens to jobs that were begun by another config or other code: `refuse`
            raises, `restart` keeps them beside new ones, `accept` takes them as they are.

    Raises:
        UserError: Some were, and `mismatch` is `refuse`; nothing was changed then.
    """
    code = code_revision()
    folder = jobs[0].path.parent
    begun = _noted(folder).get("begun", {})
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
    begun_by = summary.get("versions", {}).get("code", code)
    return None if begun_by == code else f"another revision of the code ({begun_by}, now {code})"


def _put_aside(path: Path, why: str) -> None:
    number = 1
    while (beside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    path.rename(beside)
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
    with (folder / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remember(folder: Path, jobs: Sequence[Job], *, metric: str) -> None:
    """Adds jobs to those that `sweep.json` lists, so that others know what is left.

    Args:
        folder: The sweep's.
        jobs: What is added.
        metric: What the sweep maximises.
    """
    known = listed(folder)
    known |= {job.path.name: list(job.overrides) for job in jobs}
    _note(folder, metric=metric, jobs=known)


def threads_of(folder: Path, mine: int) -> int:
    """With how many threads the jobs of a sweep compute, as the first of them said.

    Results depend on it in their last digits; so it belongs to the sweep, and another launcher
    doesn't change it.

    Args:
        folder: The sweep's.
        mine: What this job would take.
    """
    with planning(folder):
        known = _noted(folder).get("threads")
        if not isinstance(known, int):
            _note(folder, threads=mine)
    return known if isinstance(known, int) else mine


def _noted(folder: Path) -> dict[str, Any]:
    """What `sweep.json` holds; nothing if it is missing or damaged."""
    try:
        noted = json.loads((folder / SWEEP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _note(folder: Path, **facts: Any) -> None:
    text = json.dumps(_noted(folder) | facts, indent=1) + "\n"
    write_atomically(folder / SWEEP, text)


def listed(folder: Path) -> dict[str, list[str]]:
    """The names of a sweep's jobs, and their overrides; those with directories, if no list is."""
    jobs = _noted(folder).get("jobs")
    if isinstance(jobs, dict) and all(isinstance(words, list) for words in jobs.values()):
        return {str(name): [str(word) for word in words] for name, words in jobs.items()}
    return {
        path.name: look(path)[1].get("overrides", [])
        for path in sorted(folder.glob("*/"))
        if (path / SUMMARY).is_file() and not ASIDE.search(path.name)
    }


def metric_of(folder: Path) -> str:
    """What a sweep maximises."""
    return str(_noted(folder).get("metric", "val/mean_iou"))


def record_failure(path: Path, overrides: Sequence[str], error: BaseException, text: str) -> None:
    """Writes down that a job failed, if it couldn't do so itself.

    Args:
        path: Its run directory.
        overrides: Its overrides.
        error: Why.
        text: The traceback.
    """
    if look(path)[0] == State.FAILED:
        return
    path.mkdir(parents=True, exist_ok=True)
    facts = {
        "status": "failed",
        "task": "train",
        "overrides": list(overrides),
        "error": f"{type(error).__name__}: {error}",
        "traceback": text,
    }
    write_atomically(path / SUMMARY, json.dumps(facts, indent=2) + "\n")


def ask_to_stop(folder: Path) -> None:
    """Keeps further jobs of a sweep from starting, wherever they would run."""
    (folder / _STOP).touch()


def asked_to_stop(folder: Path) -> bool:
    """Whether a job failed since the sweep was started with `fail_fast`."""
    return (folder / _STOP).exists()


def may_start(folder: Path) -> None:
    """Lets jobs start again."""
    (folder / _STOP).unlink(missing_ok=True)


@dataclass(frozen=True)
class Standing:
    """How far a sweep is.

    Attributes:
        states: The state of each job, by name.
        summaries: The summary of each job, by name; empty where there is none.
        metric: What is maximised.
        labels: The overrides that tell a job from the others, by its name.
    """

    states: dict[str, State]
    summaries: dict[str, dict[str, Any]]
    metric: str
    labels: dict[str, str]

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        return sum(one == state for one in self.states.values())

    @property
    def left(self) -> int:
        """How many jobs have neither ended nor are running."""
        return self.count(State.NEW) + self.count(State.INTERRUPTED)

    def score(self, name: str) -> float | None:
        """The metric of a job: that of its best epoch, where one was chosen."""
        summary = self.summaries[name]
        value = summary.get(f"best/{self.metric}", summary.get(self.metric))
        return float(value) if isinstance(value, int | float) else None

    def error(self, name: str) -> str:
        """Why a job failed or was interrupted; empty if that isn't known."""
        return str(self.summaries[name].get("error") or "")

    def reason(self, name: str, *, longest: int) -> str:
        """Why a job failed, in one line."""
        return one_line(self.error(name) or "its summary.json is damaged", longest=longest)

    @property
    def best(self) -> tuple[str, float] | None:
        """The complete job with the highest metric."""
        scores = {
            name: score
            for name, state in self.states.items()
            if state == State.COMPLETED and (score := self.score(name)) is not None
        }
        return max(scores.items(), key=lambda item: item[1], default=None)

    @property
    def eta(self) -> float | None:
        """Seconds until all are done, as long as jobs take as long as those before."""
        took = [s["seconds"] for s in self.summaries.values() if s.get("status") == "completed"]
        to_do = self.left + self.count(State.RUNNING)
        if not took or not to_do:
            return None
        ahead = float(sum(took)) / len(took) * to_do
        running = [s for s in self.summaries.values() if s.get("status") == "running"]
        return max(ahead - sum(_running_for(s) for s in running), 0.0) / max(len(running), 1)

    def __str__(self) -> str:
        words = [
            f"{self.count(State.COMPLETED)} of {len(self.states)} done",
            f"{self.count(State.RUNNING)} running",
            f"{self.count(State.FAILED)} failed",
            f"{self.left} left",
        ]
        if (eta := self.eta) is not None:
            words.append(f"about {duration(eta)} to go")
        if best := self.best:
            words.append(f"best {self.metric} {best[1]:.4f} ({self.labels[best[0]]})")
        return ", ".join(words)


def standing(folder: Path) -> Standing:
    """How far a sweep is, as its directories say."""
    jobs = listed(folder)
    looked = {name: look(folder / name) for name in jobs}
    return Standing(
        {name: state for name, (state, _) in looked.items()},
        {name: summary for name, (_, summary) in looked.items()},
        metric_of(folder),
        labels(jobs),
    )


def labels(jobs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The overrides of each job that not all jobs have, by its name; the name where there is none.

    Long ones are shortened, as this is for people.

    Args:
        jobs: The overrides of each job, by its name.
    """
    common = set.intersection(*(set(words) for words in jobs.values())) if jobs else set()
    return {
        name: " ".join(
            one_line(word, longest=_LONGEST_WORD) for word in words if word not in common
        )
        or name
        for name, words in jobs.items()
    }


def one_line(text: object, *, longest: int) -> str:
    """A text in one line, shortened; nothing in it moves a cursor."""
    start = str(text).strip()[: 4 * longest]
    plain = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 4]} ..."


def failures(now: Standing, folder: Path, names: Sequence[str]) -> list[str]:
    """Why jobs failed, a line for each, and where the whole texts are; empty if none did.

    Args:
        now: How far the sweep is.
        folder: The sweep's.
        names: The jobs that are asked about.
    """
    failed = [name for name in names if now.states[name] == State.FAILED]
    if not failed:
        return []
    told = [f"  {name}: {now.reason(name, longest=_LONGEST_REASON)}" for name in failed[:_REASONS]]
    more = [f"  and {len(failed) - _REASONS} more"] if len(failed) > _REASONS else []
    head = f"{len(failed)} failed. The whole texts are in summary.json and train.log of the folders"
    return [f"{head} in {shown(folder)}:", *told, *more]


def duration(seconds: float) -> str:
    """A time for people: `1 h 5 min`, `3 min 20 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _running_for(summary: Mapping[str, Any]) -> float:
    from datetime import datetime

    try:
        begun = datetime.fromisoformat(summary["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(time.time() - begun, 0.0)
