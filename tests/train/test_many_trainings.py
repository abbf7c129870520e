"""Many trainings in one process, as a notebook or a sweep has them, hold no more than a few."""

import ctypes
import gc
import os
from pathlib import Path

import pytest
from fixture_types import Train

TRAININGS = 200


def held() -> int:
    """Bytes that this process holds, without what the C library keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_the_last_of_many_trainings_leaves_as_much_as_the_third(train_tiny: Train) -> None:
    words = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "data.size=32")
    sizes = []
    for number in range(TRAININGS):
        train_tiny(*words, folder=f"run-{number}")
        sizes.append(held())
    assert sizes[-1] <= sizes[2] * 1.05, [size // 10**6 for size in sizes[2::20]]
