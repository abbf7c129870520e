"""Times, memory and layouts against values worked out by hand."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from segpets.benchmark import timing
from segpets.benchmark.subject import Subject
from segpets.benchmark.timing import Setup, time_passes
from segpets.benchmark.variants import ChannelsFirst
from segpets.module import Preprocess

MODEL = {"_target_": "segpets.model.unet.UNet", "num_classes": 3, "widths": [4, 8]}


def subject(**changes: object) -> Subject:
    return Subject(MODEL | changes, mean=[0.5] * 3, std=[0.2] * 3, size=(32, 32), stride=1)


def test_percentiles_are_those_of_the_passes() -> None:
    seconds = np.array([(37 * i % 100 + 1) / 1000 for i in range(100)])  # 1 to 100 ms, each once
    row = timing._row(Setup(subject(), "cpu", "eager"), 4, 0.5, seconds, 12.0)
    assert row.passes == 100
    # Of 100 values the 95th percentile lies at place 0.95 * 99 = 94.05, counted from 0.
    assert row.p50_ms == pytest.approx(50.5)
    assert row.p95_ms == pytest.approx(95.05)
    assert row.mean_ms == pytest.approx(50.5)
    assert row.min_ms == pytest.approx(1)
    assert row.images_per_second == pytest.approx(400 / 5.05)
    assert (row.first_pass_s, row.peak_memory_mb) == (0.5, 12.0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux")
def test_the_peak_holds_what_was_freed_until_it_is_forgotten() -> None:
    code = """
    import torch
    from segpets.hardware import forget_peak_memory, peak_memory_mb

    cpu = torch.device("cpu")
    forget_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    torch.ones(50_000_000)  # 200 MB, and gone
    print(peak_memory_mb(cpu) - before)
    forget_peak_memory(cpu)
    print(peak_memory_mb(cpu) - before)
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


def test_what_fails_in_its_process_has_a_reason_and_no_numbers() -> None:
    rows = time_passes(Setup(subject(separabel=1), "cpu", "bf16"), [2, 1], seconds=0, threads=1)
    assert [(row.variant, row.batch, row.p50_ms) for row in rows] == [
        ("bf16", 2, None),
        ("bf16", 1, None),
    ]
    assert all("separabel" in str(row.missing) for row in rows)
    (gpu,) = time_passes(Setup(subject(), "cpu", "fp16"), [1], seconds=0, threads=1)
    assert gpu.missing == "not for cpu, but for cuda and mps"


def test_each_batch_size_is_measured_in_the_order_that_was_asked_for() -> None:
    rows = time_passes(Setup(subject(), "cpu", "bf16"), [2, 1], seconds=0.05, threads=1)
    assert [row.batch for row in rows] == [2, 1]
    for row in rows:
        assert row.missing is None and row.passes and row.mean_ms and row.p50_ms and row.p95_ms
        assert row.passes * row.mean_ms >= 50  # the seconds that were asked for
        assert row.first_pass_s is not None and row.first_pass_s > 0
        assert row.p50_ms <= row.p95_ms
