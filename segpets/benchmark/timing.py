"""Measures the times and the memory of a variant's passes, in a process of its own."""

import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.benchmark import Timer

from segpets.benchmark.subject import Subject
from segpets.benchmark.variants import VARIANTS, Pass, exported, prepare
from segpets.errors import UserError
from segpets.hardware import forget_peak_memory, peak_memory_mb

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Setup:
    """A variant of a model on a device.

    Attributes:
        subject: The model.
        device: PyTorch's name of the device.
        variant: A name in `VARIANTS`.
    """

    subject: Subject
    device: str
    variant: str


@dataclass(frozen=True)
class Row:
    """The speed of a setup at a batch size.

    Attributes:
        device: PyTorch's name of the device.
        variant: A name in `VARIANTS`.
        batch: Images of a pass.
        passes: The number of timed passes.
        min_ms: The fastest, in milliseconds.
        p50_ms: The median.
        p95_ms: The 95th percentile.
        mean_ms: The mean.
        images_per_second: The images of all passes divided by their total time.
        first_pass_s: Seconds of the very first pass; torch.compile compiles in it.
        peak_memory_mb: The most memory in use during the passes, in MB of 10^6 bytes. On a CPU
            that of the process, less what it held before the model was made.
        missing: The reason why there is no time.
    """

    device: str
    variant: str
    batch: int
    passes: int | None = None
    min_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    mean_ms: float | None = None
    images_per_second: float | None = None
    first_pass_s: float | None = None
    peak_memory_mb: float | None = None
    missing: str | None = None


def time_passes(setup: Setup, batches: Sequence[int], *, seconds: float, threads: int) -> list[Row]:
    """Measures a variant at each batch size; failures have a reason in place of numbers.

    Args:
        setup: The setup to measure.
        batches: The numbers of images of a pass.
        seconds: The approximate time of the measurement at each batch size.
        threads: The number of threads with which the CPU computes.
    """
    if reason := _impossible(setup):
        return [Row(setup.device, setup.variant, batch, missing=reason) for batch in batches]
    with ProcessPoolExecutor(1, mp_context=_context()) as pool:
        try:
            return pool.submit(_measured, setup, batches, seconds, threads).result()
        except BrokenProcessPool:
            reason = "its process ended; was there too little memory?"
        except Exception as error:
            reason = _reason(error)
    return [Row(setup.device, setup.variant, batch, missing=reason) for batch in batches]


def _impossible(setup: Setup) -> str | None:
    """Explains why a setup is impossible, if that is known without starting a process."""
    variant = VARIANTS[setup.variant]
    kind = torch.device(setup.device).type
    if kind not in variant.devices:
        return f"not for {kind}, but for {' and '.join(variant.devices)}"
    try:
        if variant.file is not None:
            exported(variant.file, setup.subject)
    except UserError as error:
        return str(error)
    return None


def _context() -> Any:
    """Forks from a server that has imported the libraries, where that is possible."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _measured(setup: Setup, batches: Sequence[int], seconds: float, threads: int) -> list[Row]:
    """Measures a variant, in the process of its own."""
    logging.disable()  # errors are returned, once
    warnings.simplefilter("ignore")
    # A pool of compilers would outlive this process, and wants the cores of the others.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch.set_num_threads(threads)
    device = torch.device(setup.device)
    before = 0.0
    if device.type != "cuda":  # where nothing lies yet
        forget_peak_memory(device)
        before = peak_memory_mb(device)
    passes = prepare(VARIANTS[setup.variant], setup.subject, device, threads)
    rows = {}
    for batch in sorted(batches):  # memory that is kept can't lower later peaks
        forget_peak_memory(device)
        try:
            first, times = _timed(passes(batch), seconds, threads)
        except Exception as error:
            rows[batch] = Row(setup.device, setup.variant, batch, missing=_reason(error))
            continue
        peak = peak_memory_mb(device) - before
        rows[batch] = _row(setup, batch, first, times, peak)
    return [rows[batch] for batch in batches]


def _timed(one: Pass, seconds: float, threads: int) -> tuple[float, Floats]:
    """Measures the first pass, then passes for a time; returns the seconds of each."""
    begun = time.perf_counter()
    one()
    first = time.perf_counter() - begun
    timer = Timer("one()", globals={"one": one}, num_threads=threads)
    measured = timer.blocked_autorange(min_run_time=max(seconds, 1e-3))
    return first, np.repeat(measured.times, measured.number_per_run)


def _row(setup: Setup, batch: int, first: float, times: Floats, peak: float) -> Row:
    ms = 1000 * times
    return Row(
        device=setup.device,
        variant=setup.variant,
        batch=batch,
        passes=len(ms),
        min_ms=float(ms.min()),
        p50_ms=float(np.median(ms)),
        p95_ms=float(np.percentile(ms, 95)),
        mean_ms=float(ms.mean()),
        images_per_second=float(1000 * batch / ms.mean()),
        first_pass_s=first,
        peak_memory_mb=peak,
    )


def _reason(error: Exception) -> str:
    """Shortens an error to a line; of a library's error, the first one stays."""
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
