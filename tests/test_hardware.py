"""What segpets knows and uses of a machine."""

import os
from threading import Barrier, Thread

import pytest
import torch

from segpets.hardware import one_thread_each, peak_memory_mb, threads


def test_peak_memory_is_in_megabytes() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(100_000_000 // 4)
    after = peak_memory_mb(torch.device("cpu"))
    assert before > 50  # torch alone
    # Memory that was freed before may be used again, so the peak grows by at most the block.
    assert 0 <= after - before <= block.nbytes / 1e6 * 1.05


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_each_item_has_a_thread_of_its_own_and_nothing_else_changes() -> None:
    """Both items wait for each other, so that one thread alone would never end."""
    seen: list[int] = []
    both = Barrier(2, timeout=60)

    def function(item: int) -> None:
        both.wait()
        seen.append(torch.get_num_threads())

    with threads(2):
        one_thread_each(function, [1, 2, 3, 4])
        later: list[int] = []
        thread = Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert (seen, later, torch.get_num_threads()) == ([1] * 4, [2], 2)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    with threads(2):
        one_thread_each(lambda item: None, [1, 2])
        if (child := os.fork()) == 0:
            one_thread_each(lambda item: None, [1, 2])  # would wait for the parent's for ever
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_error_in_a_thread_is_raised() -> None:
    def fails(item: int) -> None:
        raise ValueError(item)

    with threads(2), pytest.raises(ValueError, match="3"):
        one_thread_each(fails, [3, 4])


def test_a_process_that_is_bound_to_one_core_works_alone() -> None:
    allowed = os.sched_getaffinity(0)
    where: list[set[int]] = []
    try:
        os.sched_setaffinity(0, {min(allowed)})
        with threads(2):
            one_thread_each(lambda item: where.append({item, torch.get_num_threads()}), [2, 2])
    finally:
        os.sched_setaffinity(0, allowed)
    assert where == [{2}, {2}]
