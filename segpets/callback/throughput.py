"""How fast a training was and how much memory it took."""

import resource
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

STATUS: Final = Path("/proc/self/status")
CLEAR_REFS: Final = Path("/proc/self/clear_refs")


class Throughput(Callback):
    """Logs `train/images_per_second` of each epoch, `peak_memory_mb` and the number of `epochs`.

    The clock runs from the first training batch of an epoch to its last one, data included,
    validation excluded. Images of all processes count.
    """

    def __init__(self) -> None:
        self._seconds, self._since, self._images = 0.0, 0.0, 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the peak of whatever this process did before."""
        forget_peak_memory(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._since, self._images = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts images, and stops the clock before validation."""
        self._images += len(batch["image"]) * trainer.world_size
        if trainer.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self._seconds = time.perf_counter() - self._since

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs."""
        if self._seconds > 0:
            speed = self._images / self._seconds
            pl_module.log("train/images_per_second", speed, rank_zero_only=True)
        pl_module.log("peak_memory_mb", peak_memory_mb(pl_module.device), rank_zero_only=True)
        pl_module.log("epochs", trainer.current_epoch + 1.0, rank_zero_only=True, logger=False)


def forget_peak_memory(device: torch.device) -> None:
    """Lets the peak begin anew, so that a job of a sweep doesn't report that of the one before.

    On a CPU, on Linux only.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5", encoding="utf-8")


def peak_memory_mb(device: torch.device) -> float:
    """The peak of the GPU's allocated memory, or of the process's resident memory, in MB (1e6)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if STATUS.is_file():
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return peak * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
