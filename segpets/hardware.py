"""Settings with which this machine computes fastest."""

import ctypes
import functools
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier
from typing import Final, TypeVar

import torch

from segpets.errors import UserError

T = TypeVar("T")

_STATUS: Final = Path("/proc/self/status")
_CLEAR_REFS: Final = Path("/proc/self/clear_refs")
_MB: Final = 1e6

MATMUL: Final = ("highest", "high", "medium")


def fastest_precision(accelerator: str = "auto") -> str:
    """Lightning's name of the precision that a device computes fastest with.

    bf16 autocast where the hardware multiplies in bf16: on GPUs that do, and on CPUs with
    AVX-512 BF16 or AMX; fp16 autocast with loss scaling on other NVIDIA GPUs; bf16 throughout on
    TPUs, which know no autocast in Lightning; else fp32.

    Args:
        accelerator: Lightning's name of the device: auto, cpu, gpu, cuda, mps or tpu.
    """
    if accelerator == "tpu":
        return "bf16-true"
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "16-mixed"
    if accelerator != "cpu" and torch.backends.mps.is_available():
        return "32-true"
    return "bf16-mixed" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "32-true"


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Computes with so many threads meanwhile, as results depend on it in their last digits.

    Args:
        count: How many; None leaves it as it is.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_each(function: Callable[[T], object], items: Sequence[T]) -> None:
    """Calls a function with each item, as many at a time as PyTorch has threads, each on one.

    That is faster for computations which are too small to be shared among threads.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else sys.maxsize
    count = min(torch.get_num_threads(), allowed)
    alone = count == 1 or len(items) == 1
    for _ in map(function, items) if alone else _pool(count, os.getpid()).map(function, items):
        pass


@functools.lru_cache(maxsize=1)
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Starts threads that compute on one core each; a forked process has none of its parent's."""
    before, started = torch.get_num_threads(), Barrier(count)

    def begin() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread's first call takes over the number of the others
        started.wait()

    pool = ThreadPoolExecutor(count, initializer=begin)
    for _ in pool.map(lambda _: None, range(count)):
        pass
    torch.set_num_threads(before)  # for this thread and later ones: those of the pool keep theirs
    return pool


@contextmanager
def float32_matmul(precision: str) -> Iterator[None]:
    """Multiplies fp32 matrices with so much precision meanwhile.

    Args:
        precision: `highest`; `high`, by TF32 on a GPU that has it; or `medium`, by bf16, on CPUs
            that multiply in it, too.

    Raises:
        UserError: It is none of these.

    Source: torch.set_float32_matmul_precision.
    """
    if precision not in MATMUL:
        raise UserError(
            f"trainer.float32_matmul={'null' if precision is None else precision}: give highest, "
            "high or medium"
        )
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for the next step; tells whether it does.

    glibc gives large blocks back to the system, and every step of a training fetches them anew, a
    page of 4 kB at a time: up to 50,000 pages a step of a separable SegNet on a CPU. The peak of
    the memory stays the same. Elsewhere than on glibc nothing happens. See docs/PERFORMANCE.md.

    Source: mallopt(3), M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_TOP_PAD.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(-1, 2**31 - 1), mallopt(-3, 2**30), mallopt(-2, 2**26)])
    return False


def data_workers() -> int:
    """Chooses how many processes augment beside the training.

    None where the training itself is on the CPU: they would take its cores. Beside a GPU, up to
    eight of the other cores.
    """
    if not torch.cuda.is_available():
        return 0
    return min(8, max((os.cpu_count() or 1) - 1, 0))


def cpu_flags() -> set[str]:
    """The instruction sets that Linux reports for the CPU; empty elsewhere."""
    lines = _cpu_lines()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def cpu_name() -> str:
    """Reads the name of the CPU."""
    names = (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model n"))
    return next(names, "") or platform.processor() or platform.machine() or "unknown CPU"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def usable_device(name: str, *, key: str) -> torch.device:
    """The device of that name.

    Args:
        name: PyTorch's, such as `cpu`, `cuda:1` or `mps`.
        key: By which the user gave it, for the message of an error.

    Raises:
        UserError: There is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"{key}={name} can't be used ({reason}): choose auto, cpu, cuda or mps"
        ) from error
    return device


def device_name(device: torch.device) -> str:
    """Names a device for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        count = torch.get_num_threads()
        return f"cpu, {count} thread{'s' * (count > 1)}"
    return device.type


def forget_peak_memory(device: torch.device) -> None:
    """Lets the peak begin anew, so that a job of a sweep doesn't report that of the one before.

    On a CPU, on Linux only: proc(5), clear_refs.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR_REFS.exists():
        with suppress(OSError):
            _CLEAR_REFS.write_text("5", encoding="utf-8")


def peak_memory_mb(device: torch.device) -> float:
    """Measures the peak of the GPU's allocated, or the process's resident memory, in MB (1e6)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    peak = _status("VmHWM")
    if peak is None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB


def _status(field: str) -> float | None:
    """Reads bytes that this process holds, by the name that proc(5) has; None elsewhere."""
    if not _STATUS.is_file():
        return None
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    kilobytes = next((line.split()[1] for line in lines if line.startswith(f"{field}:")), None)
    return None if kilobytes is None else 1024.0 * int(kilobytes)
