"""Measures what models cost and how fast they are: `python -m segpets.benchmark model=unet`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.config import own_folders
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.cost import Cost
    from segpets.speed import Measured

log = logging.getLogger("segpets.benchmark")

FILE: Final = "benchmark.json"
METRIC: Final = "test/mean_iou"
METHOD: Final = (
    "A pass computes the logits of a batch of random uint8 images that lie on the device, "
    "normalisation included, and is over when the device has finished. Each variant is a process "
    "of its own. Its first passes warm it up, until they get no faster; then the variants take "
    "turns, five times, each with an uncounted pass first, so that what else the machine does "
    "meets all of them. Percentiles are over single passes by time.perf_counter; images per second "
    "are those of all passes together. Peak memory, in MB of 10^6 bytes, is what a CPU's process "
    "holds at most during the passes, weights and the compiler included, less what it held "
    "before the model was made; on CUDA what PyTorch had allocated at most."
)


@dataclass(frozen=True)
class Result:
    """What a benchmark gives.

    Attributes:
        path: The folder of what was written: the run's own, where one run was given.
        measured: The models, those of several runs in the order in which they were found.
    """

    path: Path
    measured: list[Measured]


def benchmark(cfg: DictConfig, *, folders: Sequence[Path] = ()) -> Result:
    """Measures a model, a run, or several runs, and writes what was found.

    Args:
        cfg: The composed config of `conf/benchmark.yaml`; see `segpets.config.compose`.
        folders: Folders with configs of the user's own, whose classes a run may name.

    Raises:
        UserError: There is no such run, model, device or variant, or a folder can't be written.
    """
    from segpets.run import OTHER_FOLDER, make_ready

    _check(cfg)
    runs = _runs(cfg)
    output = Path(cfg.paths.output_dir)
    for run in runs:
        make_ready(run, f"{FILE} belongs there; copy the run to a folder of yours")
    if len(runs) != 1:
        make_ready(output, OTHER_FOLDER)

    import torch

    from segpets.speed import Job, Plan, measure

    devices = _devices(cfg)
    variants = _variants(cfg)
    plan = Plan(
        batch_sizes=list(dict.fromkeys(cfg.batch_sizes)),
        seconds=float(cfg.seconds),
        repeats=cfg.repeats,
        warmup=cfg.warmup,
        threads=cfg.threads or torch.get_num_threads(),
    )
    models = [_of_run(cfg, run, devices, folders) for run in runs] or [_of_config(cfg, devices)]
    # Neighbours take turns: the variants of one model, but of several the same variant of all.
    jobs = [
        Job(model.subject, device, variant)
        for device in devices
        for variant in variants
        for model in models
        if cfg.variants is not None or _fits(variant, device)
    ]
    busy = os.getloadavg()[0]
    begun = time.monotonic()
    rows = measure(jobs, plan, say=lambda text: log.info("%s", text))
    facts = _facts(plan, seconds=time.monotonic() - begun, busy=busy)
    for model in models:
        model.rows.extend(row for row in rows if row.job.subject is model.subject)
    if busy > (os.cpu_count() or 1):
        log.warning("The machine was busy (load %.1f): compare the spread of the times", busy)
    for model, folder in zip(models, runs or [output], strict=True):
        _write(model, folder, facts)
    if len(runs) > 1:
        _write_several(models, output, facts)
    return Result(runs[0] if len(runs) == 1 else output, models)


def _check(cfg: DictConfig) -> None:
    for key, least in (("warmup", 1), ("repeats", 2), ("threads", 1), ("size", 32)):
        value = cfg[key]
        if value is None and key in ("threads", "size"):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value} must be a whole number of at least {least}")
    if isinstance(cfg.seconds, bool) or not isinstance(cfg.seconds, int | float):
        raise UserError(f"seconds={cfg.seconds} must be a number")
    if not 0 <= cfg.seconds <= 3600:
        raise UserError(f"seconds={cfg.seconds} must be within 0 and 3600")
    sizes = cfg.batch_sizes if OmegaConf.is_list(cfg.batch_sizes) else [None]
    if not sizes or any(isinstance(b, bool) or not isinstance(b, int) or b < 1 for b in sizes):
        raise UserError(
            f"batch_sizes={cfg.batch_sizes} must be a list of whole numbers of at least 1, such "
            "as [1,16]"
        )
    if cfg.run is not None and cfg.runs is not None:
        raise UserError("run and runs are both given: runs=[A,B] takes several")


def _runs(cfg: DictConfig) -> list[Path]:
    """The run directories that were given, each once; none for a model with random weights."""
    from segpets.comparison import find_runs
    from segpets.run import find_run

    log_dir = Path(cfg.train_log_dir)
    several = cfg.run if OmegaConf.is_list(cfg.run) else cfg.runs
    if several is None:
        return [] if cfg.run is None else [find_run(str(cfg.run), log_dir=log_dir)]
    words = [str(word) for word in (several if OmegaConf.is_list(several) else [several])]
    if not words:
        raise UserError("runs names nothing: give a run directory, a sweep's folder, or a list")
    paths, lost = find_runs(words, log_dir=log_dir)
    for one in lost:
        log.warning("%s isn't measured: it %s", one.path, one.reason)
    return [path.resolve() for path in paths]


def _devices(cfg: DictConfig) -> list[str]:
    """PyTorch's names of the devices, GPUs first."""
    import torch

    from segpets.hardware import usable_device

    if cfg.devices == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return [*(name for name, is_there in there.items() if is_there), "cpu"]
    words = cfg.devices if OmegaConf.is_list(cfg.devices) else [cfg.devices]
    if not words:
        raise UserError("devices names nothing: give auto, or a list such as [cpu,cuda]")
    for word in words:
        usable_device(str(word), key="devices")
    return sorted(dict.fromkeys(map(str, words)), key=lambda word: word == "cpu")


def _variants(cfg: DictConfig) -> list[str]:
    from segpets.speed import VARIANTS

    if cfg.variants is None:
        return list(VARIANTS)
    words = cfg.variants if OmegaConf.is_list(cfg.variants) else [cfg.variants]
    for word in words:
        if word not in VARIANTS:
            near = difflib.get_close_matches(str(word), VARIANTS, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise UserError(f"variants={word} is unknown. {hint}Available: {', '.join(VARIANTS)}")
    if not words:
        raise UserError("variants names nothing: give null for all, or a list such as [eager,bf16]")
    return list(dict.fromkeys(map(str, words)))


def _fits(variant: str, device: str) -> bool:
    from segpets.speed import VARIANTS

    return device.partition(":")[0] in VARIANTS[variant].devices


def _of_config(cfg: DictConfig, devices: Sequence[str]) -> Measured:
    """The model of the config, with random weights."""
    from segpets.build import build_net
    from segpets.hardware import fastest_precision
    from segpets.speed import OWN, Measured, Subject

    net, cost = build_net(cfg)
    size = cfg.size or cfg.data.size
    if size != cfg.data.size:
        cost = _cost(net, size)
    plain = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(plain, dict)
    model = {str(key): value for key, value in plain.items()}
    for key in ("weights", "encoder_weights"):  # the speed doesn't depend on them
        if key in model:
            model[key] = None
    subject = Subject(
        model=model,
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        size=size,
        padded=_padded(net, size),
    )
    kind = devices[0].partition(":")[0]
    own = devices[0], OWN[fastest_precision({"cuda": "gpu"}.get(kind, kind))]
    name = f"{str(model['_target_']).rpartition('.')[2]}, random weights"
    return Measured(subject, name, "random: the speed doesn't depend on them", cost, own, [])


def _of_run(
    cfg: DictConfig, run: Path, devices: Sequence[str], folders: Sequence[Path]
) -> Measured:
    """The model of a run."""
    from segpets.run import shown
    from segpets.speed import OWN, Measured, Subject
    from segpets.trained import load
    from segpets.trust import listed

    allow = listed(cfg.allow)
    trained = load(run, checkpoint=cfg.checkpoint, device=devices[0], allow=allow, folders=folders)
    net = trained.segmenter.net
    size = cfg.size or trained.size
    subject = Subject(
        model=trained.config["model"],
        mean=trained.config["data"]["mean"],
        std=trained.config["data"]["std"],
        size=size,
        padded=_padded(net, size),
        run=run,
        checkpoint=trained.checkpoint.stem,
        allow=allow,
        folders=folders,
    )
    weights = f"{trained.checkpoint.name}, epoch {trained.epoch}"
    own = devices[0], OWN[trained.precision]
    return Measured(subject, shown(run), weights, _cost(net, size), own, [])


def _padded(net: Any, size: int) -> int:
    stride = int(getattr(net, "stride", 1))
    return -(-size // stride) * stride


def _cost(net: Any, size: int) -> Cost:
    from segpets.cost import measure
    from segpets.hardware import threads

    try:
        with threads(1):  # where other programs keep the cores busy, more would wait
            return measure(net, (size, size))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the model doesn't take images of {size}x{size}: {error}") from error


def _facts(plan: Any, *, seconds: float, busy: float) -> dict[str, Any]:
    """What is the same for all models of a measurement."""
    from segpets.hardware import cpu_name
    from segpets.run import versions
    from segpets.speed.words import runtime_versions

    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "plan": asdict(plan),
        "threads": plan.threads,
        "cpu": cpu_name(),
        "load_before": round(busy, 2),
        "method": METHOD,
        "versions": versions() | runtime_versions(),
    }


def _write(model: Measured, folder: Path, facts: dict[str, Any]) -> None:
    """Writes one model's files, and shows its table."""
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown, write_atomically
    from segpets.speed import words

    told = words.told(model, facts)
    grid = words.variant_grid(model.rows)
    try:
        for name in (FILE, "benchmark.md"):
            _keep(folder / name)
        write_atomically(folder / FILE, json.dumps(told, indent=2) + "\n")
        write_atomically(folder / "benchmark.md", words.page(model.name, told, grid, model.cost))
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}") from error
    log.info("%s", as_text(grid_table(grid, title=words.heading(model.name, told)), width=120))
    for line in words.missing(model.rows):
        log.info("  %s", line)
    log.info(
        "%s/benchmark.md tells the method and the layers; %s holds it all", shown(folder), FILE
    )


def _write_several(models: Sequence[Measured], folder: Path, facts: dict[str, Any]) -> None:
    """Ranks runs by accuracy, each protocol by itself, and draws them against their latency."""
    from segpets.comparison import grouped, read_record
    from segpets.report.figure import as_png
    from segpets.report.grid import as_csv
    from segpets.report.latency import accuracy_latency_figure
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown, write_atomically
    from segpets.speed import ranking

    by_path = {model.subject.run: model for model in models}
    # benchmark.json, which was just written, gives the records their latencies.
    groups, others = grouped([read_record(path) for path in by_path if path], metric=METRIC)
    parts = []
    for index, group in enumerate(groups, 1):
        name = "accuracy_latency.png" if len(groups) == 1 else f"accuracy_latency_{index}.png"
        title = ranking.heading(group, index, len(groups))
        grid = ranking.grid(group, by_path, METRIC)
        log.info("%s", as_text(grid_table(grid, title=title), width=150))
        spots = ranking.spots(group, METRIC)
        if spots:
            label = ranking.latency_label(group, by_path)
            figure = accuracy_latency_figure(spots, x_label=label, y_label=METRIC, title=title)
            _keep(folder / name)
            (folder / name).write_bytes(as_png(figure))
        parts.append(ranking.section(group, grid, title=title, picture=name if spots else None))
        for note in group.notes:
            log.info("  %s", note)
    if len(groups) > 1:
        log.info(
            "%d protocols: their metrics don't mean the same, so each has its plot", len(groups)
        )
    out = [f"{shown(one.path)}: {one.reason}" for one in others]
    for line in out:
        log.info("not ranked: %s", line)
    for name in ("benchmark.md", "benchmark.csv"):
        _keep(folder / name)
    write_atomically(folder / "benchmark.md", ranking.page(parts, out, facts))
    write_atomically(folder / "benchmark.csv", as_csv(list(ranking.rows(models, groups, METRIC))))
    log.info("%s/benchmark.md, benchmark.csv and the plots tell it", shown(folder))


def _keep(file: Path) -> None:
    """Renames what an earlier measurement wrote, since nothing is overwritten."""
    if not file.exists():
        return
    stamp = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%d_%H-%M-%S")
    kept, number = file.with_stem(f"{file.stem}-{stamp}"), 1
    while kept.exists():
        number += 1
        kept = file.with_stem(f"{file.stem}-{stamp}-{number}")
    file.rename(kept)
    log.info("The earlier %s is %s now", file.name, kept.name)


def _task(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import point

    benchmark(cfg, folders=own_folders())
    point(Path(cfg.paths.log_dir) / "latest", Path(cfg.paths.output_dir))


def main() -> None:
    """The command."""
    run_command(_task, name="benchmark", example="python -m segpets.benchmark model=unet")


if __name__ == "__main__":
    main()
