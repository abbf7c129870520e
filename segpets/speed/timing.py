"""The times of single passes, and what is told of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

STEADY: Final = 0.9
"""A pass that takes at least this part of the fastest before it is no longer warming up."""


@dataclass(frozen=True)
class Timing:
    """What is told of the times of passes.

    Attributes:
        passes: How many were timed.
        p50_ms: The median, in milliseconds.
        p95_ms: The 95th percentile, interpolated linearly between the passes beside it.
        p99_ms: The 99th; of fewer than 100 passes it lies between the two slowest.
        mean_ms: The mean.
        min_ms: The fastest.
        images_per_second: The images of all passes by the time of all passes.
    """

    passes: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    images_per_second: float


def timing(seconds: Sequence[float], *, batch: int) -> Timing:
    """Sums up passes.

    Args:
        seconds: How long each took.
        batch: How many images each had.
    """
    ms = 1000 * np.asarray(seconds, dtype=np.float64)
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    return Timing(
        passes=len(ms),
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        mean_ms=float(ms.mean()),
        min_ms=float(ms.min()),
        images_per_second=float(1000 * batch * len(ms) / ms.sum()),
    )


def timed(call: Callable[[], object], *, passes: int) -> list[float]:
    """Calls so many times, one after the other; gives the seconds of each call."""
    seconds = []
    for _ in range(passes):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return seconds


def warm_up(call: Callable[[], object], *, least: int, limit: float) -> list[float]:
    """Calls until a call is hardly faster than those before; gives the seconds of each call.

    Args:
        call: What is to be measured afterwards.
        least: So many calls at least.
        limit: After so many seconds it ends in any case.
    """
    seconds = timed(call, passes=max(least, 2))
    while seconds[-1] < STEADY * min(seconds[:-1]) and sum(seconds) < limit:
        seconds += timed(call, passes=1)
    return seconds
