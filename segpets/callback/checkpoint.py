"""The best and the last checkpoint: written atomically, one file where they are the same."""

import io
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from segpets.errors import FileError
from segpets.run.checkpoint import read_checkpoint
from segpets.run.files import BEST, LAST, PREVIOUS

log = logging.getLogger(__name__)


def _link(file: Path, name: Path) -> None:
    """Gives a file another name, in one step; copies it where the file system has no links."""
    beside = name.with_name(f".{name.name}.{os.getpid()}")
    try:
        os.link(file, beside)
    except OSError:
        shutil.copyfile(file, beside)
    os.replace(beside, name)


class InPlace(TorchCheckpointIO):
    """Writes a checkpoint where it is asked to; the caller moves it when it is whole.

    Lightning's own writes it to the system's folder for temporary files first, where a kill leaves
    it, and which may lack the room.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Writes it; an OSError of a full disk stays one, which torch.save makes another of."""
        whole = io.BytesIO()
        torch.save(checkpoint, whole)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(whole.getbuffer())

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads it as every checkpoint is read; without what others might have put into it."""
        return read_checkpoint(Path(path))


class BestAndLast(Checkpoint):
    """Saves a checkpoint after each epoch, and keeps the best of them.

    Lightning's ModelCheckpoint can link `last` only to the newest *best* file, or writes the
    weights twice; here the best is a hard link to the file that was the last. Each is written
    under another name and then moved, so a kill leaves the one before; and that of the epoch before
    stays, in case a disk damages the last. A checkpoint holds the
    metrics of its epoch under `metrics`, and the state of torch's random numbers, with which
    dropout goes on where it was.

    Args:
        folder: Where to.
        monitor: A logged metric; larger is better.
    """

    def __init__(self, *, folder: str, monitor: str = "val/mean_iou") -> None:
        self.folder = Path(folder)
        self.monitor = monitor
        self.best = -math.inf
        self._tried = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Has checkpoints written in their own folder."""
        trainer.strategy.checkpoint_io = InPlace()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; after the epoch's validation."""
        last = self.folder / LAST
        value = float(trainer.callback_metrics.get(self.monitor, torch.tensor(math.nan)))
        improved = value > self.best  # False for NaN, and where this epoch measured nothing
        if improved:
            self.best = value
        writing = self.folder / f".{LAST}"
        try:
            trainer.save_checkpoint(writing)
        except BaseException:
            writing.unlink(missing_ok=True)  # on a full disk, others need the room
            raise
        if not self._tried:
            self._try(writing)
        if trainer.is_global_zero:
            if last.exists():
                os.replace(last, self.folder / PREVIOUS)
            if improved:
                _link(writing, self.folder / BEST)
            os.replace(writing, last)
        trainer.strategy.barrier("segpets.checkpoint")

    def _try(self, file: Path) -> None:
        """Reads the first checkpoint back, since what can't be read can't be resumed."""
        self._tried = True
        try:
            read_checkpoint(file)
        except FileError as error:
            log.warning(
                "This run can't be resumed later: what a checkpoint holds %s. A callback's "
                "state_dict may hold tensors, texts, plain numbers, lists and tables only: a "
                "number of NumPy becomes plain by float(x)",
                error.problem,
            )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the epoch's metrics and the random state."""
        checkpoint["metrics"] = {k: v.item() for k, v in trainer.callback_metrics.items()}
        checkpoint["rng_state"] = torch.get_rng_state()
        if torch.cuda.is_available():
            checkpoint["cuda_rng_state"] = torch.cuda.get_rng_state_all()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the random state."""
        torch.set_rng_state(checkpoint["rng_state"])
        states = checkpoint.get("cuda_rng_state", [])
        if states and len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best value so far, if its weights are there."""
        if (self.folder / BEST).exists():
            self.best = state_dict["best"]
