"""Trains a model and tests it: `python -m segpets.train model=segnet loss=soft_iou`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.config import fingerprint, own_folders
from segpets.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from segpets.cost import Cost
    from segpets.data import SegmentationDataModule
    from segpets.module import SegmentationModule
    from segpets.run import Run

log = logging.getLogger("segpets.train")


@dataclass(frozen=True)
class Result:
    """What a training gives.

    Attributes:
        metrics: All final metrics by name, such as `test/mean_iou`; `val/...` are those of the
            last epoch and `best/val/...` those of the best one.
        path: The run directory.
        module: The trained module, with the weights that were tested.
        datamodule: Its data.
    """

    metrics: dict[str, float]
    path: Path
    module: SegmentationModule
    datamodule: SegmentationDataModule


def train(
    cfg: DictConfig,
    *,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
    begins: Callable[[], None] = lambda: None,
) -> Result:
    """Trains and tests as the config says, in a run directory.

    Args:
        cfg: The composed config of `conf/train.yaml`; see `segpets.config.compose`.
        overrides: What distinguishes this run from the default, for its summary.
        folders: Folders with configs of the user's own; a run that goes on may name their classes.
        begins: Called when all is there and the first step is next.

    Raises:
        UserError: Something is wrong that the user can mend.
    """
    import torch

    from segpets.hardware import threads
    from segpets.resume import original_overrides, resumed_config
    from segpets.run import Run, shown

    resuming = cfg.resume is not None
    facts: dict[str, Any] = {"task": "train"}
    if resuming:
        cfg = resumed_config(cfg, overrides, folders)
        if any(not word.startswith(("resume=", "paths.")) for word in overrides):
            facts["config_fingerprint"] = fingerprint(cfg)  # it isn't what it was
    else:
        facts |= {"overrides": list(overrides), "config_fingerprint": fingerprint(cfg)}
        facts |= {"threads": torch.get_num_threads()}
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    facts |= {"seed": config["seed"], "tags": config["tags"]}
    run = Run(Path(config["paths"]["output_dir"]))
    with run.hold(config, resuming=resuming, **facts):
        if resuming:
            begun_with = run.summary.get("overrides", original_overrides(run.path))
            resumed = [*run.summary.get("resumed", []), list(overrides)]
            run.update(overrides=begun_with, resumed=resumed)
        try:
            with threads(run.summary.get("threads")):
                return _train(OmegaConf.create(config), run, resuming=resuming, begins=begins)
        except SystemExit as exit_:
            if not _is_an_interruption(exit_):
                log.debug("the run failed", exc_info=exit_)
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)
            place = shown(run.path)
            raise KeyboardInterrupt(
                f"What is done so far lies in {place}; resume={place} goes on from there"
                if (run.checkpoints / "last.ckpt").exists()
                else f"{place} has no checkpoint yet: give the same command again"
            ) from exit_
        except Exception as error:
            log.debug("the run failed", exc_info=error)
            if type(error).__name__ == "ProcessRaisedException":  # its text is a traceback
                reason = str(error).strip().splitlines()[-1]
                raise UserError(reason.removeprefix("segpets.errors.UserError: ")) from error
            raise


def _train(cfg: DictConfig, run: Run, *, resuming: bool, begins: Callable[[], None]) -> Result:
    _check(cfg)
    from lightning.pytorch import seed_everything

    from segpets.build import build, build_module, build_net, build_trainer, initialise
    from segpets.resume import complete_csv, newest_checkpoint

    _quieten()
    seed_everything(cfg.seed, verbose=False)
    datamodule: SegmentationDataModule = build(cfg.data.module, "data")
    datamodule.setup()
    net, cost = build_net(cfg)
    module = build_module(cfg, net)
    if cfg.init_from is not None:
        log_dir = Path(cfg.paths.log_dir)
        initialise(module, cfg.init_from, log_dir=log_dir, all_of_them=not cfg.train)
    trainer = build_trainer(cfg)
    (run.path / "model.txt").write_text(cost.table + "\n", encoding="utf-8")
    protocol = _protocol(cfg, datamodule)
    run.update(
        protocol=protocol,
        params=cost.params,
        mult_adds=cost.mult_adds,
        data_fingerprint=datamodule.pixels.fingerprint,
        precision=str(cfg.trainer.precision),
    )
    _say_start(cfg, run, datamodule, trainer, cost)
    begins()

    metrics: dict[str, float] = {}
    if cfg.train:
        checkpoint = newest_checkpoint(run.checkpoints) if resuming else None
        if checkpoint is not None:
            complete_csv(trainer, checkpoint)
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
        metrics |= _of_last_epoch(run) | _values(trainer)
        if not datamodule.splits.val_is_test:
            metrics |= _best(run)
    if cfg.test:
        tested = _test(cfg, run, trainer, module, datamodule)
        run.update(protocol=protocol | {"tested_weights": tested} | _selection(trainer, datamodule))
        metrics |= {k: v for k, v in _values(trainer).items() if k.startswith("test/")}
    epochs = metrics.pop("epochs", trainer.current_epoch)
    speed = metrics.pop("train/images_per_second", None)
    memory = metrics.pop("peak_memory_mb", None)
    run.update(
        **metrics,
        epochs=int(epochs),
        absent_classes=_absent(cfg, metrics),
        images_per_second=speed,
        peak_memory_mb=memory,
        seconds=run.seconds,
    )
    _log_hparams(cfg, run, metrics)
    _say_end(cfg, run, metrics)
    return Result(metrics=metrics, path=run.path, module=module, datamodule=datamodule)


def _is_an_interruption(exit_: SystemExit) -> bool:
    """Whether Lightning was stopped by Ctrl-C, after which it ignores SIGINT, or by SIGTERM."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    return isinstance(exit_, SIGTERMException) or isinstance(exit_.__context__, KeyboardInterrupt)


def _quieten() -> None:
    """Silences what Lightning says of itself; warnings go to the log file."""
    logging.captureWarnings(True)
    threading.excepthook = _say_thread_stopped
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _say_thread_stopped(stopped: threading.ExceptHookArgs) -> None:
    """Says it in a line, where Python prints a traceback, such as that of TensorBoard's writer."""
    name = stopped.thread.name if stopped.thread else "A thread"
    log.error("%s stopped: %s: %s", name, stopped.exc_type.__name__, stopped.exc_value)
    log.debug("the traceback", exc_info=stopped.exc_value)


def _check(cfg: DictConfig) -> None:
    if isinstance(cfg.seed, bool) or not isinstance(cfg.seed, int) or not 0 <= cfg.seed < 2**32:
        raise UserError(f"seed={cfg.seed} must be a whole number from 0 to {2**32 - 1}")
    if not cfg.train and cfg.init_from is None:
        raise UserError("train=false tests weights that are there: add init_from=RUN")


def _test(
    cfg: DictConfig,
    run: Run,
    trainer: Trainer,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
) -> str:
    """Tests the best weights; the last ones where val must not choose, or none were saved.

    Returns:
        Which weights were tested.
    """
    name = "last" if datamodule.splits.val_is_test else "best"
    file = run.checkpoints / f"{name}.ckpt"
    saved = cfg.train and file.exists()
    trainer.test(
        module,
        datamodule=datamodule,
        ckpt_path=str(file) if saved else None,
        weights_only=True,
        verbose=False,
    )
    if not cfg.train:
        return f"init_from={cfg.init_from}"
    return "best val/mean_iou" if saved and name == "best" else "last epoch"


def _selection(trainer: Trainer, datamodule: SegmentationDataModule) -> dict[str, bool]:
    """Whether test images, where they serve as val, had a say in which weights were tested."""
    asked = bool(trainer.early_stopping_callbacks) or any(
        config.reduce_on_plateau for config in trainer.lr_scheduler_configs
    )
    return {"selected_on_test": datamodule.splits.val_is_test and asked}


def _absent(cfg: DictConfig, metrics: dict[str, float]) -> list[str]:
    """The classes that neither truth nor prediction of the last stage has: no mean counts them."""
    stage = "test" if cfg.test else "val"
    return [name for name in cfg.data.classes if f"{stage}/iou/{name}" not in metrics]


def _values(trainer: Trainer) -> dict[str, float]:
    logged = trainer.callback_metrics.items()
    return {name: value.item() for name, value in logged if not name.startswith("lr-")}


def _of_last_epoch(run: Run) -> dict[str, float]:
    """The metrics of the last checkpoint: a run that goes on may have nothing left to train."""
    import torch

    file = run.checkpoints / "last.ckpt"
    if not file.exists():
        return {}
    last = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return {k: v for k, v in last["metrics"].items() if not k.startswith("lr-")}


def _best(run: Run) -> dict[str, float]:
    """The val metrics that the best checkpoint holds, under `best/`."""
    import torch

    file = run.checkpoints / "best.ckpt"
    if not file.exists():
        return {}
    best = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    named = {f"best/{k}": v for k, v in best["metrics"].items() if k.startswith("val/")}
    return {"best/epoch": best["epoch"] + 1, **named}


def _protocol(cfg: DictConfig, datamodule: SegmentationDataModule) -> dict[str, Any]:
    splits = datamodule.splits
    return {
        "data": cfg.data.module.source._target_.rpartition(".")[2],
        "split": cfg.data.split,
        "split_seed": cfg.data.seed,
        "overfit": cfg.data.overfit,
        "images": {stage: len(getattr(splits, stage)) for stage in ("train", "val", "test")},
        "limits": {
            stage: cfg.trainer[f"limit_{stage}_batches"]
            for stage in ("train", "val", "test")
            if cfg.trainer[f"limit_{stage}_batches"] is not None
        },
        "resolution": [cfg.data.size, cfg.data.size],
        "resize": {"image": "bilinear with antialiasing", "mask": "nearest"},
        "classes": list(cfg.data.classes),
        "border": "a class of its own" if "border" in cfg.data.classes else None,
        "ignored_value": 255,
        "aggregation": "one confusion matrix over the split",
        "absent_classes": "left out of macro means",
    }


def _say_start(
    cfg: DictConfig,
    run: Run,
    datamodule: SegmentationDataModule,
    trainer: Trainer,
    cost: Cost,
) -> None:
    from segpets.hardware import device_name
    from segpets.report.table import as_text, facts_table
    from segpets.run import shown

    splits = datamodule.splits
    counts = ", ".join(f"{len(getattr(splits, s)):,} {s}" for s in ("train", "val", "test"))
    several = f" x {trainer.world_size}" if trainer.world_size > 1 else ""
    facts = {
        "model": cfg.model._target_.rpartition(".")[2],
        "parameters": f"{cost.params:,}",
        "mult-adds": f"{cost.mult_adds:,} for one {cfg.data.size}x{cfg.data.size} image",
        "loss": cfg.loss._target_.rpartition(".")[2],
        "data": f"{counts} images, batches of {cfg.data.batch_size}",
        "device": device_name(trainer.strategy.root_device) + several,
        "precision": f"{cfg.trainer.precision}, channels last",
        "epochs": str(trainer.max_epochs),
        "run": shown(run.path),
    }
    log.info("%s", as_text(facts_table(facts, title="segpets")))


def _say_end(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> None:
    from segpets.report.table import as_text, class_table
    from segpets.run import shown

    stage = "test" if cfg.test else "val"
    if f"{stage}/mean_iou" in metrics:
        log.info("%s", as_text(class_table(metrics, cfg.data.classes, stage=stage)))
    if absent := run.summary["absent_classes"]:
        log.info("Neither truth nor prediction has %s: left out of the means", ", ".join(absent))
    log.info("%.0f s. Everything lies in %s:", run.seconds, shown(run.path))
    log.info("  summary.json  metrics.csv  checkpoints/  predictions/  tensorboard/")
    if (picture := run.path / "predictions" / "test.png").exists():
        log.info("Look at %s", shown(picture))
    log.info("Compare runs: make tensorboard, or tensorboard --logdir %s", cfg.paths.log_dir)


def _log_hparams(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> None:
    """Fills TensorBoard's HPARAMS tab with the choices, the overrides and all final metrics."""
    if "tensorboard" not in cfg.logger:
        return
    from segpets.report.hparams import write_hparams

    chosen: dict[str, Any] = {
        "model": cfg.model._target_.rpartition(".")[2],
        "loss": cfg.loss._target_.rpartition(".")[2],
        "optimizer.lr": cfg.optimizer.lr,
        "data.batch_size": cfg.data.batch_size,
        "trainer.max_epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
    }
    overrides = [o.lstrip("+~").partition("=")[::2] for o in run.summary["overrides"]]
    for key, word in overrides:
        if not key.startswith(("hydra.", "paths.", "sweep")):
            value = OmegaConf.select(cfg, key) if "[" not in key else None
            # Numbers stay numbers, so that the tab sorts them; a group has the name of its option.
            chosen[key] = value if isinstance(value, int | float | str) else word
    finals = metrics | {k: run.summary[k] for k in ("params", "mult_adds", "seconds")}
    step = max(int(metrics.get("best/epoch", 0)), 1)
    write_hparams(run.path / "tensorboard", chosen, finals, step=step)


def _task(cfg: DictConfig) -> float | None:
    """What Hydra calls: a training, or a job of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from segpets.run import point
    from segpets.sweeping import attempt

    hydra_config = HydraConfig.get()
    output_dir = Path(hydra_config.runtime.output_dir)
    overrides = hydra_config.overrides.task
    if not OmegaConf.is_missing(hydra_config.job, "num"):
        attempt(cfg, overrides, output_dir, train=lambda c, words: train(c, overrides=words))
        return None
    latest = Path(cfg.paths.log_dir) / "latest"
    result = train(
        cfg,
        overrides=overrides,
        folders=own_folders(),
        begins=lambda: point(latest, output_dir),  # not before: init_from=latest is another run
    )
    return result.metrics.get(cfg.optimized_metric)


def main() -> None:
    """The command."""
    run_command(_task, name="train", example="python -m segpets.train model=segnet loss=soft_iou")


if __name__ == "__main__":
    import segpets.train  # by its name, under which the processes of a sweep find it, too

    segpets.train.main()
