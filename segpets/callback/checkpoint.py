"""The best and the last checkpoint: written atomically, one file where they are the same."""

import io
import logging
import math
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from segpets.callback.signals import asked_to_stop, stop_after_step
from segpets.data.batches import batches_done, epochs_done
from segpets.errors import FileError, UserError
from segpets.run.checkpoint import read_checkpoint
from segpets.run.files import BEST, LAST, PREVIOUS

log = logging.getLogger(__name__)

_STEPS_BETWEEN_CLOCKS: Final = 16
"""Several processes agree on the time at every so many steps, since that waits for all."""

_COUNTS: Final = ("ready", "started", "processed", "completed")
"""Lightning's counts of batches."""

_LOSS: Final = "val/loss"


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
        with Path(path).open("wb") as file:
            file.write(whole.getbuffer())
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the new name

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads it as every checkpoint is read; without what others might have put into it."""
        return read_checkpoint(Path(path))


class BestAndLast(Checkpoint):
    """Saves a checkpoint after each epoch, in between, and when stopped; keeps the best epoch's.

    Lightning's ModelCheckpoint can link `last` only to the newest *best* file, or writes the
    weights twice; here the best is a hard link to the file that was the last. Each is written
    under another name and then moved, so a kill leaves the one before; and the one before stays,
    in case a disk damages the last.

    A checkpoint holds the metrics of its epoch under `metrics`, the states of all random numbers,
    with which dropout goes on where it was, and in mid-epoch the number of batches under
    `batches`, and the gradients, where they are being accumulated. SIGTERM, SIGUSR1 and the first
    Ctrl-C save after the step and end the training; a validation begins anew.

    Args:
        folder: Where to.
        monitor: A logged metric; larger is better.
        every_n_steps: Saves in mid-epoch, too, after so many optimizer steps; None doesn't.
        every_n_minutes: Saves in mid-epoch, too, after so many minutes; None doesn't.
    """

    def __init__(
        self,
        *,
        folder: str,
        monitor: str = "val/mean_iou",
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        for name, every in (("steps", every_n_steps), ("minutes", every_n_minutes)):
            if every is not None and not every > 0:
                raise ValueError(f"every_n_{name} is {every}: give a number above 0, or null")
        if not monitor.startswith("val/"):
            raise ValueError(
                f"monitor is {monitor}, which isn't measured on val images: give optimized_metric="
                "val/mean_iou, or another of val"
            )
        if monitor == _LOSS:
            raise ValueError(
                f"monitor is {monitor}, which is better the smaller it is, but the largest is "
                "kept: give optimized_metric=val/mean_iou, or another of val"
            )
        self.folder = Path(folder)
        self.monitor = monitor
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.best = -math.inf
        self._tried = False
        self._saved = time.monotonic()
        self._gradients: dict[str, Tensor] = {}
        self._metrics: dict[str, float] = {}
        self._epoch_is_over = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Has checkpoints written in their own folder, and a resumed training counted by epochs.

        With `max_steps`, Lightning (2.6.6) counts the epoch that a checkpoint ends with twice.
        """
        trainer.strategy.checkpoint_io = InPlace()
        by_epochs = {"_iteration_based_training": lambda: False}
        vars(trainer.fit_loop).update(by_epochs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets signals end the training after a step, and completes what was restored."""
        stop_after_step(together=trainer.world_size > 1)
        _check_validated(trainer)
        self._saved = time.monotonic()
        for name, parameter in pl_module.named_parameters() if self._gradients else ():
            if name in self._gradients:
                parameter.grad = self._gradients[name].to(parameter.device)
        self._gradients = {}
        if not self._epoch_is_over:  # it may have been validated
            restored = {name: torch.tensor(value) for name, value in self._metrics.items()}
            trainer.callback_metrics.update(restored)
            self._metrics = {}
        for config in trainer.lr_scheduler_configs:
            # Lightning shows a plateau schedule an epoch's metrics after the epoch's checkpoint.
            due = epochs_done(trainer) % config.frequency == 0
            if config.reduce_on_plateau and due and config.monitor in self._metrics:
                assert isinstance(config.scheduler, ReduceLROnPlateau)
                counted = trainer.fit_loop.epoch_loop.scheduler_progress
                counted.increment_ready()
                config.scheduler.step(self._metrics[config.monitor])
                counted.increment_completed()
        self._metrics = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Saves what the steps before have reached, if it is time; they are logged by now."""
        if batch_idx % trainer.accumulate_grad_batches:
            return  # in the midst of a step
        stops = self._is_stopped(trainer)
        if batch_idx > 0 and (stops or self._is_due(trainer)):
            self._save(trainer, improved=False)
        if stops:
            raise SIGTERMException

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a metric that the validation doesn't measure; no epoch would be the best."""
        if trainer.sanity_checking or self.monitor in (measured := trainer.callback_metrics):
            return
        names = sorted(name for name in measured if name.startswith("val/") and name != _LOSS)
        raise UserError(
            f"monitor is {self.monitor}, which no validation measures: give optimized_metric=NAME, "
            f"with one of {', '.join(names)}"
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves; after the epoch's validation."""
        value = float(trainer.callback_metrics.get(self.monitor, torch.tensor(math.nan)))
        improved = value > self.best  # False for NaN, and where this epoch measured nothing
        if improved:
            self.best = value
        self._save(trainer, improved=improved)
        # It was resumed in its midst, or not: the schedules count it as any other.
        trainer.fit_loop._restarting = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Saves in mid-epoch when a signal ends a training of one process."""
        stopped = isinstance(exception, SIGTERMException) and trainer.state.fn == TrainerFn.FITTING
        if stopped and trainer.world_size == 1 and batches_done(trainer):
            self._save(trainer, improved=False)

    def _is_stopped(self, trainer: Trainer) -> bool:
        """Tells whether a signal has asked any of several processes to end; all find the same."""
        if trainer.world_size == 1 or (
            trainer.strategy.root_device.type != "cpu"  # where asking waits for the device
            and trainer.global_step % _STEPS_BETWEEN_CLOCKS
        ):
            return False
        return bool(trainer.strategy.reduce_boolean_decision(asked_to_stop(), all=False))

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0:
            return True
        if self.every_n_minutes is None or (
            trainer.world_size > 1 and step % _STEPS_BETWEEN_CLOCKS
        ):
            return False
        due = time.monotonic() - self._saved >= 60 * self.every_n_minutes
        return due if trainer.world_size == 1 else bool(trainer.strategy.broadcast(due))

    def _save(self, trainer: Trainer, *, improved: bool) -> None:
        last = self.folder / LAST
        for logger in trainer.loggers:
            _flush(logger)  # a resumed run keeps what was logged before its checkpoint
        writing = self.folder / f".{LAST}"
        try:
            trainer.save_checkpoint(writing)
        except BaseException:
            writing.unlink(missing_ok=True)  # on a full disk, others need the room
            raise
        if trainer.is_global_zero:
            if not self._tried:
                self._try(writing)
            if last.exists():
                os.replace(last, self.folder / PREVIOUS)
            if improved:
                _link(writing, self.folder / BEST)
            os.replace(writing, last)
        trainer.strategy.barrier("segpets.checkpoint")
        self._saved = time.monotonic()

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
        """Adds the epoch's metrics, the random states, and where in its epoch the training is."""
        checkpoint["metrics"] = {k: v.item() for k, v in trainer.callback_metrics.items()}
        checkpoint["rng_state"] = torch.get_rng_state()
        checkpoint["other_rng_states"] = _random_states()
        if trainer.strategy.root_device.type == "cuda":  # of several, all have drawn alike
            checkpoint["cuda_rng_state"] = torch.cuda.get_rng_state(trainer.strategy.root_device)
        if batches := batches_done(trainer):
            checkpoint["batches"] = batches
            _count_only_whole_batches(checkpoint["loops"]["fit_loop"], trainer, batches)
            if batches % trainer.accumulate_grad_batches:
                gradients = {k: p.grad for k, p in pl_module.named_parameters()}
                checkpoint["gradients"] = {k: g for k, g in gradients.items() if g is not None}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restores the random states, and keeps gradients that were being accumulated."""
        torch.set_rng_state(checkpoint["rng_state"])
        _restore_random_states(checkpoint.get("other_rng_states", {}))
        self._gradients = checkpoint.get("gradients", {})
        self._metrics, self._epoch_is_over = checkpoint["metrics"], not checkpoint.get("batches")
        state, device = checkpoint.get("cuda_rng_state"), trainer.strategy.root_device
        if isinstance(state, list) and state:  # an earlier version's, of all devices
            state = state[0]
        if isinstance(state, Tensor) and device.type == "cuda":
            torch.cuda.set_rng_state(state, device)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best value so far, if its weights are there."""
        if (self.folder / BEST).exists():
            self.best = state_dict["best"]


def _check_validated(trainer: Trainer) -> None:
    """Refuses epochs that don't end with a validation: other weights are kept than it judges."""
    batches, every = trainer.num_training_batches, trainer.val_check_batch
    if trainer.enable_validation and (every is None or batches % every):  # None: after a while
        raise UserError(
            f"trainer.val_check_interval={trainer.val_check_interval}: an epoch of {batches} "
            "batches would not end with a validation, and its weights are kept unjudged: give a "
            f"whole number that divides {batches}, or 1.0 for once an epoch"
        )


def _count_only_whole_batches(loop: dict[str, Any], trainer: Trainer, batches: int) -> None:
    """Makes the saved loop say that so many batches are done and none has begun.

    From any other state in mid-epoch Lightning (2.6.6) counts a batch twice, or logs at other
    steps.
    """
    progress = loop["epoch_loop.batch_progress"]
    progress["is_last_batch"] = False
    for counts in (progress["current"], progress["total"]):
        counts.update(dict.fromkeys(_COUNTS, counts["processed"]))
    if trainer.validating:  # it begins anew
        progress = loop["epoch_loop.val_loop.batch_progress"]
        progress["is_last_batch"] = False
        progress["current"].update(dict.fromkeys(_COUNTS, 0))
        progress["total"].update(dict.fromkeys(_COUNTS, 0) | {"ready": 1, "started": 1})
        return
    every = trainer.val_check_batch
    if isinstance(every, int) and not batches % trainer.accumulate_grad_batches:
        per_epoch = trainer.check_val_every_n_epoch is not None
        if progress["current" if per_epoch else "total"]["processed"] % every == 0:
            # It doesn't validate again, but counts the step again.
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _flush(logger: Logger) -> None:
    for one in (logger, getattr(logger, "experiment", None)):  # ours, and TensorBoard's writer
        if callable(flush := getattr(one, "flush", None)):
            flush()


def _random_states() -> dict[str, Any]:
    """Reads the states of Python's and NumPy's random numbers, as tensors and plain numbers."""
    version, state, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(state), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def _restore_random_states(states: dict[str, Any]) -> None:
    if states:
        version, state, gauss = states["python"]
        random.setstate((version, tuple(state.tolist()), gauss))
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
