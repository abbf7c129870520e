"""Measures what models cost and how fast they are: `python -m segpets.benchmark model=unet`."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from omegaconf import DictConfig
from pydantic import Field
from torch import nn

from segpets.benchmark.ranking import rank
from segpets.benchmark.report import ModelReport, write_report
from segpets.benchmark.subject import Subject
from segpets.benchmark.timing import Setup, time_passes
from segpets.benchmark.variants import OWN, VARIANTS
from segpets.build.cost import Cost, cost_of
from segpets.build.objects import build_net
from segpets.data.geometry import Size, as_size, by, trained_size
from segpets.data.reader import Reader
from segpets.errors import UserError
from segpets.hardware import cpu_name, fastest_precision, threads, usable_device
from segpets.inference.ensemble import load_runs, open_runs
from segpets.inference.trained import without_pretrained
from segpets.run.files import BENCHMARK, OTHER_FOLDER, make_ready, shown
from segpets.run.find import find_runs
from segpets.run.stored import StoredRun, open_run
from segpets.run.trust import Trust
from segpets.run.versions import package_version, versions
from segpets.settings import Positive, Settings, table

log = logging.getLogger("segpets.benchmark")

METHOD: Final = (
    "A pass computes the logits of a batch of random uint8 images that lie on the device, "
    "normalisation included, and is over when the device has finished. Each variant is a process "
    "of its own, timed by torch.utils.benchmark after a warm-up. Percentiles are over single "
    "passes, or over blocks of passes that take a millisecond together. Peak memory, in MB of 10^6 "
    "bytes, is what a CPU's process holds at most during the passes, weights and the compiler "
    "included, less what it held before the model was made; on CUDA what PyTorch had allocated at "
    "most."
)

Variant = Literal[
    "eager", "channels_last", "bf16", "fp16", "compile", "compile_bf16", "onnx", "onnx_int8"
]


Side = Annotated[int, Field(ge=32)]


class BenchmarkSettings(Settings):
    """Keys of `conf/benchmark.yaml`."""

    run: str | int | Sequence[str | int] | None
    runs: str | int | Annotated[Sequence[str | int], Field(min_length=1)] | None
    size: Side | Annotated[Sequence[Side], Field(min_length=2, max_length=2)] | None
    batch_sizes: Annotated[Sequence[Positive], Field(min_length=1, examples=["[1,16]"])]
    variants: Sequence[Variant] | None
    devices: str | Annotated[Sequence[str], Field(min_length=1, examples=["[cpu,cuda]"])]
    threads: Positive | None
    seconds: Annotated[float, Field(ge=0, le=3600)]


@dataclass(frozen=True)
class Result:
    """The outcome of a benchmark.

    Attributes:
        path: The folder of the written files: the run's own, if one run was given.
        measured: The models; those of several runs in the order in which they were found.
    """

    path: Path
    measured: list[ModelReport]


def benchmark(cfg: DictConfig, *, trust: Trust | None = None) -> Result:
    """Measures a model, a run, or several runs, and writes the results.

    Raises:
        UserError: There is no such run, model, device or variant, or a folder can't be written.
    """
    settings = _checked(cfg)
    trust = trust or Trust.of(cfg.allow)
    runs = _runs(settings, Path(cfg.train_log_dir), trust)
    output = Path(cfg.paths.output_dir)
    own = [members[0].path for members in runs if len(members) == 1]
    for run in own:
        make_ready(run, f"{BENCHMARK} belongs there; copy the run to a folder of yours")
    if len(own) != 1:
        make_ready(output, OTHER_FOLDER)
    devices = _devices(settings)
    models = [_of_runs(cfg, members, devices) for members in runs] or [_of_config(cfg, devices)]
    busy, begun = os.getloadavg()[0], time.time()
    count = settings.threads or torch.get_num_threads()
    for device, variant, model in _plan(settings, devices, models):
        log.info("%s: %s on %s", model.name, variant, device)
        setup = Setup(model.subject, device, variant)
        sizes = list(dict.fromkeys(settings.batch_sizes))
        model.rows.extend(time_passes(setup, sizes, seconds=settings.seconds, threads=count))
    if busy > (os.cpu_count() or 1):
        log.warning("The machine was busy (load %.1f): compare the spread of the times", busy)
    facts = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - begun, 1),
        "threads": count,
        "cpu": cpu_name(),
        "load_before": round(busy, 2),
        "method": METHOD,
        "versions": versions() | {"onnxruntime": package_version("onnxruntime")},
    }
    for model, folder in zip(models, own or [output], strict=True):
        write_report(model, folder, facts)
    if len(runs) > 1:
        rank(models, output, facts)
    return Result(own[0] if len(own) == 1 else output, models)


def _checked(cfg: DictConfig) -> BenchmarkSettings:
    for key in ("variants", "devices"):
        if cfg[key] == []:
            example = "null for all" if key == "variants" else "auto"
            raise UserError(f"{key} names nothing: give {example}, or a list")
    if isinstance(cfg.variants, str):
        cfg.variants = [cfg.variants]
    if cfg.run is not None and cfg.runs is not None:
        raise UserError("run and runs are both given: runs=[A,B] takes several")
    if cfg.runs == [] or cfg.run == []:
        raise UserError("runs names nothing: give a run directory, a sweep's folder, or a list")
    return BenchmarkSettings.of(cfg)


def _runs(settings: BenchmarkSettings, log_dir: Path, trust: Trust) -> list[list[StoredRun]]:
    """Opens the runs of each model, which are several for an ensemble; none for random weights."""
    if settings.run is not None:
        return [open_runs(settings.run, log_dir=log_dir, trust=trust)]
    several = settings.runs
    if several is None:
        return []
    words = [str(word) for word in (several if isinstance(several, list) else [several])]
    paths, lost = find_runs(words, log_dir=log_dir)
    for one in lost:
        log.warning("%s isn't measured: it %s", one.path, one.reason)
    return [[open_run(path.resolve(), trust=trust)] for path in paths]


def _devices(settings: BenchmarkSettings) -> list[str]:
    """Lists PyTorch's names of the devices, GPUs first."""
    if settings.devices == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return [*(name for name, is_there in there.items() if is_there), "cpu"]
    given = settings.devices if isinstance(settings.devices, list) else [str(settings.devices)]
    for word in given:
        usable_device(word, key="devices")
    return sorted(dict.fromkeys(given), key=lambda word: word == "cpu")


def _plan(
    settings: BenchmarkSettings, devices: Sequence[str], models: Sequence[ModelReport]
) -> Iterator[tuple[str, str, ModelReport]]:
    """Yields what is measured: each variant for all models in turn."""
    for device in devices:
        for variant in dict.fromkeys(settings.variants or VARIANTS):
            fits = device.partition(":")[0] in VARIANTS[variant].devices
            if settings.variants is not None or fits:
                yield from ((device, variant, model) for model in models)


def _of_config(cfg: DictConfig, devices: Sequence[str]) -> ModelReport:
    """Makes the config's model, with random weights."""
    net, cost = build_net(cfg)
    trained, channels = trained_size(cfg.data), cfg.data.channels
    size = trained if cfg.size is None else as_size(cfg.size)
    if size != trained:
        cost = _cost(net, size, channels)
    model = without_pretrained(table(cfg.model))
    mean, std = list(cfg.data.mean), list(cfg.data.std)
    white = Reader.of(table(cfg.data)).white
    subject = Subject(
        model, mean, std, size, int(getattr(net, "stride", 1)), channels=channels, white=white
    )
    kind = devices[0].partition(":")[0]
    own = devices[0], OWN[fastest_precision({"cuda": "gpu"}.get(kind, kind))]
    name = f"{str(model['_target_']).rpartition('.')[2]}, random weights"
    return ModelReport(subject, name, "random: the speed doesn't depend on them", cost, own, [])


def _of_runs(cfg: DictConfig, runs: Sequence[StoredRun], devices: Sequence[str]) -> ModelReport:
    """Loads the model of a run, or of several."""
    trained = load_runs(runs, checkpoint=cfg.checkpoint, device=devices[0])
    data, reader = trained.config["data"], trained.reader
    size = trained_size(data) if cfg.size is None else as_size(cfg.size)
    subject = Subject(
        model=trained.config["model"],
        mean=data["mean"],
        std=data["std"],
        size=size,
        stride=trained.stride,
        channels=reader.channels,
        white=reader.white,
        run=runs[0],
        others=tuple(runs[1:]),
        checkpoint=cfg.checkpoint if trained.members else trained.checkpoint.stem,
    )
    weights = f"{trained.checkpoint.name}, epoch {trained.epoch}"
    own = devices[0], OWN[trained.precision]
    cost = _cost(trained.segmenter.net, size, reader.channels)
    name = shown(trained.path)
    if trained.members:
        name = f"{len(runs)} models averaged: {', '.join(shown(run.path) for run in runs)}"
        weights = "those of each"
    return ModelReport(subject, name, weights, cost, own, [])


def _cost(net: nn.Module, size: Size, channels: int) -> Cost:
    try:
        with threads(1):  # where other programs keep the cores busy, more would wait
            return cost_of(net, size, channels)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the model doesn't take images of {by(size)}: {error}") from error


def main(cfg: DictConfig, trust: Trust) -> Path:
    """Runs the command; returns the folder of the log."""
    benchmark(cfg, trust=trust)
    return Path(cfg.paths.output_dir)
