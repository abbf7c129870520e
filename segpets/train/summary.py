"""The summary of a training: protocol, best and last metrics, cost, speed and memory."""

import logging
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig

from segpets.build.cost import Cost
from segpets.callback import BestAndLast
from segpets.data import SegmentationDataModule
from segpets.hardware import forget_peak_memory, peak_memory_mb
from segpets.loss.base import weighted_parts
from segpets.module import SegmentationModule
from segpets.run.checkpoint import read_checkpoint
from segpets.run.directory import Run
from segpets.run.files import point
from segpets.run.protocol import SPLIT_NAMES, protocol, split_names
from segpets.run.ranks import current, leads
from segpets.settings import table
from segpets.train.console import say_end, say_start
from segpets.train.hparams import log_hparams
from segpets.train.interruption import silence
from segpets.train.resume import check_same_data
from segpets.train.teacher import check_same_teacher

log = logging.getLogger("segpets.train")

SPEED = "train/images_per_second"
_STAGES = ("train", "val", "test")


class PointLatest(Callback):
    """A callback that points the link `latest` to a run when its training or test begins.

    Args:
        link: The link.
        run: The run directory.
    """

    def __init__(self, link: Path, run: Path) -> None:
        self.link, self.run = link, run
        self._moved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Moves the link; not before, since init_from=latest is another run."""
        if trainer.is_global_zero and not self._moved:
            self._moved = True
            point(self.link, self.run)


class Summary(Callback):
    """A callback that keeps a run's summary; it observes the training and changes nothing.

    The best metrics are saved with the checkpoint, so that a resumed run knows them. A process
    spawned for the training writes them to the summary, where the first one finds them.

    Args:
        run: The run.
        cfg: Its config.
        datamodule: Its data, set up.
        cost: The cost of its net.
        module: The module, of which weights by the training's pixels, and a teacher, are noted.
    """

    def __init__(
        self,
        run: Run,
        cfg: DictConfig,
        datamodule: SegmentationDataModule,
        cost: Cost,
        module: SegmentationModule,
    ) -> None:
        self.run, self.cfg, self.cost = run, cfg, cost
        self.splits = datamodule.splits
        self.notices = datamodule.notices(list(cfg.data.classes))
        meant = protocol(datamodule, table(cfg.data), classes=list(cfg.data.classes))
        self.protocol = meant | {"limits": self._limits()}
        if self.splits.val_is_test and cfg.train:  # also of a run that ends before its test
            self.protocol["tested_weights"] = {"checkpoint": "last"}
        self.fingerprint = datamodule.pixels.fingerprint
        self.split_names = split_names(datamodule.splits)
        check_same_data(run.path, run.summary, datamodule)
        self.taught = {} if module.distillation is None else {"teacher": module.distillation.facts}
        if self.taught:
            check_same_teacher(run.summary.get("teacher"), self.taught["teacher"])
        weights = [part.class_weights.tolist() for part in weighted_parts(module.loss)]
        self.weighed = {"class_weights": weights[0]} if weights else {}
        self.monitor: str | None = None
        self.epochs, self.peak_memory = 0, 0.0
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.best_value = -math.inf

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrives in a process that is spawned for the training, and is as quiet as its parent."""
        self.__dict__.update(state)
        silence()

    def begin(self, trainer: Trainer) -> None:
        """Writes and shows what is known before the first step."""
        saving = [c for c in trainer.checkpoint_callbacks if isinstance(c, BestAndLast)]
        self.monitor = saving[0].monitor if saving else None
        self.run.trains = True
        if not leads():
            return
        self.run.files.model.write_text(self.cost.table + "\n", encoding="utf-8")
        self.run.update(
            protocol=self.protocol,
            params=self.cost.params,
            mult_adds=self.cost.mult_adds,
            data_fingerprint=self.fingerprint,
            **{SPLIT_NAMES: self.split_names},
            precision=str(self.cfg.trainer.precision),
            processes=trainer.world_size,
            **self.weighed,
            **self.taught,
        )
        say_start(self.cfg, self.run, self.splits, trainer, self.cost)
        for notice in self.notices:
            log.warning("%s", notice)

    def weights_to_test(self) -> Path | None:
        """Chooses the best weights; the last where val must not choose; None for the current."""
        if (ranks := current()) is None:
            return self._weights_to_test()
        chosen = ranks.same("weights", lambda: str(self._weights_to_test() or ""))
        return Path(chosen) if chosen else None

    def _weights_to_test(self) -> Path | None:
        files = self.run.files
        file = files.last if self.splits.val_is_test or not files.best.exists() else files.best
        return file if self.cfg.train and file.exists() else None

    def end(self, trainer: Trainer) -> dict[str, float]:
        """Completes the summary, and shows the result.

        Returns:
            All final metrics.
        """
        self.run.reload()
        values = _values(trainer)
        kept = ("train/", "val/", "best/")
        metrics = {k: v for k, v in self.run.summary.items() if k.startswith(kept)} | values
        metrics.pop(SPEED, None)
        if self.cfg.test:
            self.run.update(protocol=self.protocol | self._tested(trainer))
        self.run.update(
            **metrics,
            epochs=self.run.summary.get("epochs", 0),
            absent_classes=self._absent(metrics),
            seconds=self.run.seconds,
        )
        log_hparams(self.cfg, self.run, metrics)
        say_end(self.cfg, self.run, metrics)
        return metrics

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resets the peak memory of whatever this process did before."""
        forget_peak_memory(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets an earlier end's test, which was of other weights than there will be."""
        if trainer.is_global_zero and any(key.startswith("test/") for key in self.run.summary):
            self.run.forget("test/")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures memory, and keeps the metrics of the best epoch: that of the best checkpoint."""
        self.epochs = trainer.current_epoch + 1
        self.peak_memory = max(self.peak_memory, peak_memory_mb(pl_module.device))
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        if done < trainer.num_training_batches and trainer.is_global_zero:
            log.info(
                "Epoch %d was cut off after %d of %d batches; resume=RUN would begin the next one, "
                "without the rest",
                *(self.epochs, done, trainer.num_training_batches),
            )
        if self.monitor is None or self.splits.val_is_test:
            return
        measured = _values(trainer)
        values = {k: v for k, v in measured.items() if k.startswith("val/")}
        value = measured.get(self.monitor, math.nan)
        if value > self.best_value:  # as BestAndLast decides
            self.best_value = value
            self.best = {"best/epoch": self.epochs} | {f"best/{k}": v for k, v in values.items()}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the facts of the training."""
        if trainer.is_global_zero:
            self.last |= _values(trainer)
            speed = {"images_per_second": self.last.pop(SPEED, None)}
            facts = {"epochs": self.epochs, "peak_memory_mb": self.peak_memory or None}
            self.run.update(**facts, **speed, **self.best, **self.last)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best metrics so far, and what they were measured with, in what time."""
        return {
            "best": self.best,
            "best_value": self.best_value,
            "peak_memory_mb": self.peak_memory,
            "seconds": self.run.seconds,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes over what a resumed run has measured; it may have nothing left to train."""
        if trainer.state.fn != TrainerFn.FITTING:  # but a test, or predictions of a fold
            return
        metrics = checkpoint.get("metrics", {})
        facts = ("lr-", "epochs", "peak_memory_mb")
        self.last = {k: v for k, v in metrics.items() if not k.startswith(facts)}
        self.epochs = int(checkpoint["epoch"]) + (not checkpoint.get("batches"))
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is not None:
            self.best, self.peak_memory = dict(state["best"]), float(state["peak_memory_mb"])
            self.run.continues_after(float(state.get("seconds", 0.0)))
        if not self.run.files.best.exists():
            self.best = {}
        elif state is None:  # an earlier version's checkpoint holds no such state
            saved = read_checkpoint(self.run.files.best)
            values = {f"best/{k}": v for k, v in saved["metrics"].items() if k.startswith("val/")}
            self.best = {"best/epoch": saved["epoch"] + 1, **values}
        value = (state or {}).get("best_value", self.best.get(f"best/{self.monitor}", -math.inf))
        self.best_value = value if self.best else -math.inf

    def _limits(self) -> dict[str, Any]:
        limits = {stage: self.cfg.trainer[f"limit_{stage}_batches"] for stage in _STAGES}
        return {stage: limit for stage, limit in limits.items() if limit is not None}

    def _tested(self, trainer: Trainer) -> dict[str, Any]:
        """Says which weights were tested, and whether test images influenced that choice."""
        weights: dict[str, Any] = {"checkpoint": "last"}
        if not self.cfg.train:
            weights = {"init_from": self.cfg.init_from}
        elif (file := self._weights_to_test()) is not None and file == self.run.files.best:
            weights = {"checkpoint": "best", "monitor": self.monitor}
        asked = bool(trainer.early_stopping_callbacks) or any(
            config.reduce_on_plateau for config in trainer.lr_scheduler_configs
        )
        return {"tested_weights": weights, "selected_on_test": self.splits.val_is_test and asked}

    def _absent(self, metrics: dict[str, float]) -> list[str]:
        """Names the classes that neither truth nor prediction has; means leave them out."""
        stage = "test" if self.cfg.test else "val"
        return [name for name in self.cfg.data.classes if f"{stage}/iou/{name}" not in metrics]


def _values(trainer: Trainer) -> dict[str, float]:
    logged = trainer.callback_metrics.items()
    return {name: value.item() for name, value in logged if not name.startswith("lr-")}
