"""What this machine computes fastest with."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segpets.errors import UserError


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


def data_workers() -> int:
    """How many processes should augment beside the training.

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
    """What the CPU calls itself."""
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
        return f"cpu, {torch.get_num_threads()} threads"
    return device.type
