"""The progress of a sweep, by its directories."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from segpets.run.files import SUMMARY, shown
from segpets.run.jobs import State, listed, look, metric_of

_LONGEST_WORD: Final = 60
_LONGEST_REASON: Final = 120
_REASONS: Final = 20
_LARGEST: Final = 1e100


@dataclass(frozen=True)
class Standing:
    """The progress of a sweep.

    Attributes:
        states: The state of each job, by name.
        summaries: The summary of each job, by name; empty where there is none.
        metric: The metric that is maximised.
        labels: The overrides that distinguish a job from the others, by its name.
    """

    states: dict[str, State]
    summaries: dict[str, dict[str, Any]]
    metric: str
    labels: dict[str, str]

    def count(self, state: State) -> int:
        """Counts the jobs in a state."""
        return sum(one == state for one in self.states.values())

    @property
    def left(self) -> int:
        """The number of jobs that have neither ended nor are running."""
        return self.count(State.NEW) + self.count(State.INTERRUPTED)

    def score(self, name: str) -> float | None:
        """Returns a job's metric: that of its best epoch, if one was chosen."""
        summary = self.summaries[name]
        return _number(summary.get(f"best/{self.metric}", summary.get(self.metric)))

    def error(self, name: str) -> str:
        """Returns the error of a job that failed or was interrupted; empty if it isn't known."""
        return str(self.summaries[name].get("error") or "")

    def reason(self, name: str, *, longest: int) -> str:
        """Returns the error of a failed job, in one line."""
        return one_line(self.error(name) or f"its {SUMMARY} is damaged", longest=longest)

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
        """Seconds until all jobs are done, if each takes as long as those before."""
        done = (s for s in self.summaries.values() if s.get("status") == "completed")
        took = [s for one in done if (s := _number(one.get("seconds"))) is not None]
        to_do = self.left + self.count(State.RUNNING)
        if not took or not to_do:
            return None
        ahead = sum(took) / len(took) * to_do
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
    """Reads the progress of a sweep from its directories."""
    jobs = listed(folder)
    looked = {name: look(folder / name) for name in jobs}
    return Standing(
        {name: state for name, (state, _) in looked.items()},
        {name: summary for name, (_, summary) in looked.items()},
        metric_of(folder),
        labels(jobs),
    )


def labels(jobs: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Finds each job's overrides that not all jobs share, by its name; else its name.

    Long ones are shortened, since people read them.
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
    """Shortens a text to one line that can't move the cursor."""
    start = str(text).strip()[: 4 * longest]
    plain = " ".join("".join(c if c.isprintable() else " " for c in start).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 4]} ..."


def failures(now: Standing, folder: Path, names: Sequence[str]) -> list[str]:
    """Lists why jobs failed, and where the whole texts are; empty if none did."""
    failed = [name for name in names if now.states[name] == State.FAILED]
    if not failed:
        return []
    told = [f"  {name}: {now.reason(name, longest=_LONGEST_REASON)}" for name in failed[:_REASONS]]
    more = [f"  and {len(failed) - _REASONS} more"] if len(failed) > _REASONS else []
    head = f"{len(failed)} failed. The whole texts are in {SUMMARY} and train.log of the folders"
    return [f"{head} in {shown(folder)}:", *told, *more]


def duration(seconds: float) -> str:
    """Formats a time for people: `1 h 5 min`, `3 min 20 s`, `9 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _number(value: object) -> float | None:
    """Returns a finite number that can be added to others; None for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LARGEST else None


def _running_for(summary: Mapping[str, Any]) -> float:
    try:
        begun = datetime.fromisoformat(summary["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(time.time() - begun, 0.0)
