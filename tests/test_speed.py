"""Times, memory and labels against values worked out by hand."""

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segpets.module import Preprocess
from segpets.report.latency import spread
from segpets.speed import Job, Plan, Subject, measure
from segpets.speed.timing import timed, timing, warm_up
from segpets.speed.variants import ChannelsFirst


class Sleeper:
    """Takes the times that it is told, by a clock that stands still otherwise."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.calls = 100.0, 0
        self._seconds = itertools.chain(seconds, itertools.repeat(seconds[-1]))

    def __call__(self) -> None:
        self.now += next(self._seconds)
        self.calls += 1


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sleeper]:
    def make(*seconds: float) -> Sleeper:
        one = Sleeper(*seconds)
        monkeypatch.setattr("time.perf_counter", lambda: one.now)
        return one

    return make


def test_percentiles_are_those_of_the_passes(sleeper: Callable[..., Sleeper]) -> None:
    shuffled = [(37 * i % 100 + 1) / 1000 for i in range(100)]  # 1 to 100 ms, each once
    told = timing(timed(sleeper(*shuffled), passes=100), batch=4)
    assert told.passes == 100
    # Of 100 values the 95th percentile lies at place 0.95 * 99 = 94.05, counted from 0.
    assert told.p50_ms == pytest.approx(50.5)
    assert told.p95_ms == pytest.approx(95.05)
    assert told.p99_ms == pytest.approx(99.01)
    assert told.mean_ms == pytest.approx(50.5)
    assert told.min_ms == pytest.approx(1)
    assert told.images_per_second == pytest.approx(400 / 5.05)


def test_one_stall_is_in_the_tail_and_not_in_the_median(sleeper: Callable[..., Sleeper]) -> None:
    told = timing(timed(sleeper(*[0.01] * 19, 0.5), passes=20), batch=1)
    assert told.p50_ms == pytest.approx(10)
    # Place 0.99 * 19 = 18.81 lies between 10 ms and 500 ms.
    assert told.p99_ms == pytest.approx(10 + 0.81 * 490)


def test_warming_up_ends_when_passes_get_no_faster(sleeper: Callable[..., Sleeper]) -> None:
    assert warm_up(sleeper(4.0, 2.0, 1.0, 0.95, 9.0), least=2, limit=60) == pytest.approx(
        [4, 2, 1, 0.95]
    )
    assert len(warm_up(sleeper(1.0), least=5, limit=60)) == 5


def test_warming_up_has_a_limit(sleeper: Callable[..., Sleeper]) -> None:
    always_faster = sleeper(*[0.5**n for n in range(50)])
    warm_up(always_faster, least=2, limit=1.8)
    assert always_faster.calls == 4  # 1 + 0.5 + 0.25 + 0.125 is the first sum beyond 1.8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux")
def test_the_peak_holds_what_was_freed_until_it_is_forgotten() -> None:
    code = """
    import torch
    from segpets.speed.memory import Memory

    memory = Memory(torch.device("cpu"))
    memory.forget_peak()
    torch.ones(50_000_000)  # 200 MB, and gone
    print(memory.peak_mb())
    memory.forget_peak()
    print(memory.peak_mb())
    """
    # In a process of its own: what others of this one have freed may be used again.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    peak, after = map(float, done.stdout.split())
    assert 195 < peak < 260
    assert after < 60


def test_channels_first_changes_the_layout_and_no_value() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    preprocess = Preprocess(mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    first, last = ChannelsFirst(preprocess)(images), preprocess(images)
    assert torch.equal(first, last)
    assert first.is_contiguous() and not last.is_contiguous()


def test_what_fails_in_its_process_has_a_reason_and_leaves_the_others_alone() -> None:
    model = {"_target_": "segpets.model.unet.UNet", "num_classes": 3, "widths": [4, 8]}
    good = Subject(model, mean=[0.5] * 3, std=[0.2] * 3, size=32, padded=32)
    bad = Subject(model | {"separabel": 1}, mean=[0.5] * 3, std=[0.2] * 3, size=32, padded=32)
    plan = Plan(batch_sizes=[2, 1], seconds=0, repeats=7, warmup=1, threads=1)
    said: list[str] = []
    jobs = [Job(bad, "cpu", "channels_last"), Job(good, "cpu", "bf16"), Job(good, "cpu", "fp16")]
    rows = measure(jobs, plan, say=said.append)
    assert [(row.job, row.batch) for row in rows] == [(j, b) for j in jobs for b in (2, 1)]
    assert all("separabel" in str(row.missing) for row in rows[:2])
    for row in rows[2:4]:
        assert row.missing is None
        assert row.timing is not None
        assert row.timing.passes == 10  # 7 in five equal turns
        assert row.first_pass_s is not None
    assert rows[4].missing == "not for cpu, but for cuda and mps"
    assert said == ["batch 1: channels_last, bf16", "batch 2: channels_last, bf16"]


def test_labels_keep_their_order_and_their_distance() -> None:
    assert spread([0.9, 0.1, 0.5], gap=0.1) == [0.9, 0.1, 0.5]
    assert spread([0.5, 0.5, 0.5], gap=0.1) == pytest.approx([0.5, 0.4, 0.3])
    assert spread([0.0, 0.01, 0.02], gap=0.1) == pytest.approx([0.0, 0.1, 0.2])
    assert spread([1.0, 1.0], gap=0.2) == pytest.approx([1.0, 0.8])
