"""The most memory that a process, or its part of a GPU, held for a while."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_MB = 1e6


class Memory:
    """Watches memory from now on.

    On Linux the kernel notes the most pages that a process held, and forgets them when asked to
    (proc(5), VmHWM and clear_refs); pages of files, such as the code of libraries, are left out.
    Elsewhere the peak is that of the process's whole life.

    Args:
        device: On a CUDA device, what PyTorch has allocated there; on others, the process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0.0 if self._on_gpu else _resident("VmRSS") - _of_files()

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def forget_peak(self) -> None:
        """Lets the peak begin anew."""
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """The peak in MB, less what the process held in the beginning."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated(self.device) / _MB
        return (_resident("VmHWM") - _of_files() - self._before) / _MB


def _resident(field: str) -> float:
    """The bytes that this process holds now, `VmRSS`, or held at most, `VmHWM`."""
    if (known := _status(field)) is not None:
        return known
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _of_files() -> float:
    """The bytes of files that this process has in memory."""
    return _status("RssFile") or 0.0


def _status(field: str) -> float | None:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * int(next(x for x in lines if x.startswith(f"{field}:")).split()[1])
    return None
