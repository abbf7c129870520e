"""The memory that a process holds."""

import torch

from segpets.hardware import peak_memory_mb


def test_peak_memory_is_in_megabytes() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(100_000_000 // 4)
    after = peak_memory_mb(torch.device("cpu"))
    assert before > 50  # torch alone
    # Memory that was freed before may be used again, so the peak grows by at most the block.
    assert 0 <= after - before <= block.nbytes / 1e6 * 1.05
