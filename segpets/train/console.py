"""Console output of a training, before it begins and when it has ended."""

import logging

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from segpets.build.cost import Cost
from segpets.compiled import wants_compile
from segpets.data import Splits
from segpets.data.geometry import by, trained_size
from segpets.hardware import device_name
from segpets.report.table import as_text, class_table, facts_table
from segpets.run.directory import Run
from segpets.run.files import METRICS, SUMMARY, shown

log = logging.getLogger("segpets.train")


def say_start(cfg: DictConfig, run: Run, splits: Splits, trainer: Trainer, cost: Cost) -> None:
    """Shows model, loss, data and device."""
    counts = ", ".join(f"{len(samples):,} {s}" for s, samples in splits.stages().items())
    several = f" x {trainer.world_size}" if trainer.world_size > 1 else ""
    each = " in each process" if several else ""
    compiled = ", compiled" if wants_compile(cfg.trainer.get("compile", False)) else ""
    facts = {
        "model": cfg.model._target_.rpartition(".")[2],
        "parameters": f"{cost.params:,}",
        "mult-adds": f"{cost.mult_adds:,} for one {by(trained_size(cfg.data))} image",
        "loss": cfg.loss._target_.rpartition(".")[2],
        "data": f"{counts} images, batches of {cfg.data.batch_size}{each}",
        "device": device_name(trainer.strategy.root_device) + several,
        "precision": f"{cfg.trainer.precision}, channels last{compiled}",
        "epochs": str(trainer.max_epochs),
        "run": shown(run.path),
    }
    log.info("%s", as_text(facts_table(facts, title="segpets")))


def say_end(cfg: DictConfig, run: Run, metrics: dict[str, float]) -> None:
    """Shows the scores of each class, and where everything lies."""
    stage = "test" if cfg.test else "val"
    if f"{stage}/mean_iou" in metrics:
        log.info("%s", as_text(class_table(metrics, cfg.data.classes, stage=stage)))
    tested = run.summary.get("protocol", {}).get("tested_weights", {})
    if cfg.train and cfg.test and tested == {"checkpoint": "last"}:
        log.info("Tested are the last weights, as no epoch was chosen by validation")
    if absent := run.summary["absent_classes"]:
        log.info("Neither truth nor prediction has %s: left out of the means", ", ".join(absent))
    log.info("%.0f s. Everything lies in %s:", run.seconds, shown(run.path))
    names = (SUMMARY, METRICS, "checkpoints/", "predictions/", "tensorboard/")
    log.info("  %s", "  ".join(name for name in names if (run.path / name).exists()))
    if run.files.test_picture.exists():
        log.info("Look at %s", shown(run.files.test_picture))
    if (run.path / "tensorboard").exists():
        folder = shown(run.path.parent)
        log.info("Compare runs: make tensorboard, or tensorboard --logdir %s", folder)
