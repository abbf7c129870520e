"""The progress of a sweep in words and numbers, worked out by hand; and the time of a run."""

import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from segpets.run.jobs import State
from segpets.run.lock import _names_another
from segpets.run.standing import Standing, duration, one_line


def standing(*jobs: tuple[State, dict[str, Any]]) -> Standing:
    names = [str(index) for index in range(len(jobs))]
    return Standing(
        {name: state for name, (state, _) in zip(names, jobs, strict=True)},
        {name: summary for name, (_, summary) in zip(names, jobs, strict=True)},
        "val/mean_iou",
        {name: f"job={name}" for name in names},
    )


def done(seconds: float, score: float = 0.5) -> tuple[State, dict[str, Any]]:
    summary = {"status": "completed", "seconds": seconds, "best/val/mean_iou": score}
    return State.COMPLETED, summary


def running(since: float) -> tuple[State, dict[str, Any]]:
    begun = datetime.now(UTC).astimezone() - timedelta(seconds=since)
    return State.RUNNING, {"status": "running", "started": begun.isoformat()}


NEW = (State.NEW, {})
FAILED = (State.FAILED, {"status": "failed", "seconds": 1.0, "error": "no such data"})


def test_the_rest_takes_as_long_as_those_that_are_done() -> None:
    assert standing(done(60), done(120), NEW, NEW, FAILED).eta == pytest.approx(180)
    assert standing(done(60)).eta is None
    half = standing(done(100), running(40), NEW).eta
    assert half == pytest.approx(160, abs=2)
    two = standing(done(100), running(40), running(20)).eta  # side by side
    assert two == pytest.approx(70, abs=2)
    assert standing(NEW, FAILED).eta is None  # a failure says nothing of how long one takes


def test_a_text_becomes_one_line_that_moves_no_cursor() -> None:
    assert one_line("a\x1b[2J\n  b\tc", longest=10) == "a [2J b c"
    assert one_line("0123456789", longest=10) == "0123456789"
    assert one_line("0123456789a", longest=10) == "012345 ..."
    assert len(one_line("x" * 10_000, longest=10)) == 10


def test_the_best_and_the_counts_in_a_sentence() -> None:
    one = standing(done(60, 0.61), done(60, 0.72), FAILED, NEW)
    assert str(one) == (
        "2 of 4 done, 0 running, 1 failed, 1 left, about 1 min 0 s to go, "
        "best val/mean_iou 0.7200 (job=1)"
    )
    assert one.best == ("1", 0.72)
    assert one.error("2") == "no such data"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (9, "9 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (200, "3 min 20 s"),
        (3600, "1 h 0 min"),
        (3900, "1 h 5 min"),
        (90_061, "25 h 1 min"),
    ],
)
def test_times_are_written_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_lock_names_another_only_if_that_lives_on_this_machine() -> None:
    here = socket.gethostname()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert _names_another(f"process {process.pid} on {here}")
        assert not _names_another(f"process {process.pid} on {here}z")
        assert not _names_another(f"process {process.pid} on 0{here}")
    finally:
        process.communicate(b"\n")
    assert not _names_another(f"process {process.pid} on {here}")
    assert not _names_another("")
    assert not _names_another("anything else")


def test_a_damaged_summary_is_no_best(tmp_path: Path) -> None:
    odd = [(State.COMPLETED, {"status": "completed", "best/val/mean_iou": v}) for v in ("a", None)]
    assert standing(*odd).best is None
    huge = (State.COMPLETED, {"status": "completed", "best/val/mean_iou": 10**400})
    assert standing(huge, done(1, 0.1)).best == ("1", 0.1)
