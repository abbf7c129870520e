"""Runs one step of a training again: `python -m segpets.train debug=replay run=DIR`."""

import copy
import csv
import logging
import math
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.table import Table
from torch import Tensor

from segpets.build.objects import build_trainer
from segpets.callback.finite import watched
from segpets.errors import FileError, UserError
from segpets.hardware import threads
from segpets.module import SegmentationModule
from segpets.report.table import as_text
from segpets.run.checkpoint import read_checkpoint
from segpets.run.directory import find_run, read_summary, thread_count
from segpets.run.failed_step import read_failed_step
from segpets.run.files import RunFiles, shown
from segpets.run.trust import Trust
from segpets.train.interruption import silence
from segpets.train.parts import seeded_parts
from segpets.train.resume import check_same_data, moved, opened
from segpets.train.teacher import check_same_teacher

log = logging.getLogger("segpets.train")

PRECISIONS: Final = ("float32", "bf16")


@dataclass
class Seen:
    """The values of a step in one precision.

    Attributes:
        loss: The loss.
        outputs: The largest absolute value of each layer's output, by its name; NaN if one is.
        gradients: The same of each weight's gradient.
    """

    loss: float = math.nan
    outputs: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Says in a few words where it went wrong, if it did."""
        for what, values in (
            ("output", self.outputs),
            ("gradient", dict(reversed(self.gradients.items()))),
        ):
            if odd := [name for name, value in values.items() if not math.isfinite(value)]:
                return (
                    f"loss {self.loss:.6g}; the first {what} that is no number is that of {odd[0]}"
                )
        return f"loss {self.loss:.6g}; all outputs and gradients are numbers"


class _DoneError(Exception):
    """The step has been run."""


class _Step(Callback):
    """Runs a step in both precisions when it is its turn, and ends the training."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.seen: dict[str, Seen] = {}
        self.images: list[str] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the step's batches; of several that accumulate, at each until one is odd."""
        if trainer.global_step + 1 < self.step:
            return
        if trainer.global_step + 1 > self.step:
            raise _DoneError
        assert isinstance(pl_module, SegmentationModule)
        pl_module.on_train_batch_start(batch, batch_idx)  # Lightning calls it after callbacks
        self.images = list(batch["name"])
        self.seen = {p: _run(pl_module, batch, bf16=p == "bf16") for p in PRECISIONS}
        last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if last or any("no number" in seen.verdict for seen in self.seen.values()):
            raise _DoneError


def _run(module: SegmentationModule, batch: Any, *, bf16: bool) -> Seen:
    """Computes loss and gradients of a batch on a copy, with the step's random numbers."""
    seen, own, teacher = Seen(), (module.net, module.loss, module.preprocess), module.distillation
    copies = dict(zip(("net", "loss", "preprocess"), copy.deepcopy(own), strict=True))
    parts = torch.nn.ModuleDict(copies)
    device = module.device.type
    devices = [module.device] if device == "cuda" else []
    image, mask = batch["image"], batch["mask"]
    try:
        module.net, module.loss, module.preprocess = copies.values()
        with torch.random.fork_rng(devices=devices), watched(parts, _noting(seen.outputs)):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits, loss = module.losses(image, mask)
                if teacher is not None:
                    loss = loss + teacher.term(logits, teacher.logits(image), mask)
        loss.backward()  # type: ignore[no-untyped-call]
    finally:
        module.net, module.loss, module.preprocess = own
    seen.loss = loss.item()
    seen.gradients = {
        name: _largest(weight.grad)
        for name, weight in parts.named_parameters()
        if weight.grad is not None
    }
    return seen


def _noting(values: dict[str, float]) -> Any:
    def note(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            values[name] = _largest(output)

    return note


def _largest(values: Tensor) -> float:
    return values.detach().float().abs().max().item() if values.numel() else 0.0


def replay(cfg: DictConfig, trust: Trust) -> Path:
    """Trains from the nearest checkpoint to a step, and shows it; the run itself stays as it is.

    Returns:
        The table of layers and weights, a CSV file.

    Raises:
        UserError: There is no such run, or it has no such step.
    """
    run = find_run(cfg.run, log_dir=Path(cfg.paths.log_dir))
    files, place = RunFiles(run), str(Path(cfg.paths.output_dir).absolute())
    step = cfg.replay_step if cfg.replay_step is not None else read_failed_step(files).step
    if not isinstance(step, int) or step < 1:
        raise UserError(f"replay_step is {step}: steps are counted from 1")
    moved_to = [word for word in cfg.overrides if word.startswith("teacher=")]
    changes = {"resume": str(run), "overrides": moved_to}
    cfg = OmegaConf.merge(cfg, changes)  # type: ignore[assignment]
    own, _, _ = opened(cfg, trust)
    own = OmegaConf.create(moved(OmegaConf.to_container(own), str(run), place))
    assert isinstance(own, DictConfig)
    checkpoint, watcher = _before(files, step), _Step(step)
    log.info(
        "Running step %d again, from %s", step, shown(checkpoint) if checkpoint else "the start"
    )
    silence()
    summary = read_summary(run)
    with threads(thread_count(summary)):
        datamodule, module, _ = seeded_parts(own, trust, checkpoint=checkpoint)
        check_same_data(run, summary, datamodule)
        if module.distillation is not None:
            check_same_teacher(summary.get("teacher"), module.distillation.facts)
        trainer = build_trainer(own, extra_callbacks=[watcher])
        if trainer.world_size > 1:
            raise UserError(
                f"{shown(run)} was trained by {trainer.world_size} processes, whose steps one "
                "can't run again: begin it with trainer.devices=1, and replay that run"
            )
        with suppress(_DoneError), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")  # no summary
            trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    if not watcher.seen:
        raise UserError(f"replay_step is {step}, but the training has {trainer.global_step} steps")
    return _show(watcher, Path(place))


def _before(files: RunFiles, step: int) -> Path | None:
    """Chooses the checkpoint that is nearest before a step; None for the start."""
    done: dict[int, Path] = {}
    for file in (files.best, files.previous, files.last):
        try:
            done[read_checkpoint(file).get("global_step", step)] = file
        except FileError as error:
            if file.exists():
                log.warning("%s", error)
    return max(((n, f) for n, f in done.items() if n < step), default=(0, None))[1]


def _show(watcher: _Step, folder: Path) -> Path:
    """Prints and writes what was seen."""
    table = Table("", *PRECISIONS, title=f"step {watcher.step}: largest absolute values")
    columns = [watcher.seen[p] for p in PRECISIONS]
    rows: list[tuple[str, list[float]]] = [("loss", [seen.loss for seen in columns])]
    for part in ("outputs", "gradients"):
        one, other = (getattr(seen, part) for seen in columns)
        word = part.removesuffix("s")
        rows += [(f"{word} {k}", [v, other.get(k, math.nan)]) for k, v in one.items()]
    file = folder / "replay.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["value", *PRECISIONS])
        writer.writerows([name, *values] for name, values in rows)
    for name, values in rows:
        table.add_row(name, *(f"{value:.4g}" for value in values))
    log.info("%s", as_text(table))
    log.info("Images: %s", ", ".join(watcher.images))
    for precision, seen in watcher.seen.items():
        log.info("%s: %s", precision, seen.verdict)
    log.info("The table lies in %s", shown(file))
    return file
