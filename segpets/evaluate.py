"""Measures a trained model: `python -m segpets.evaluate run=latest`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.data import SegmentationDataModule
    from segpets.evaluation import Entry, Interval, Loss, Merge, Slice, Tally, View
    from segpets.evaluation.temperature import Temperature
    from segpets.trained import Trained

log = logging.getLogger("segpets.evaluate")

STAGES = ("train", "val", "test")
RESOLUTIONS = ("model", "original")
_SHOWN = 10


@dataclass(frozen=True)
class Result:
    """What evaluating gives.

    Attributes:
        path: The folder with `evaluation.json`, `images.csv`, `slices.csv`, `confusion.png`,
            `reliability.png` and `boundary.png`.
        metrics: Values under their names, such as `test/mean_iou`.
        report: What `evaluation.json` holds.
    """

    path: Path
    metrics: dict[str, float]
    report: dict[str, Any]


@dataclass(frozen=True)
class _Task:
    """What is judged, and how."""

    cfg: DictConfig
    trained: Trained
    datamodule: SegmentationDataModule
    merged: Merge
    labels: str | None
    widths: list[float]
    views: list[View]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.merged.classes

    @property
    def stage(self) -> str:
        return str(self.cfg.stage)

    @property
    def original(self) -> bool:
        return bool(self.cfg.resolution == "original")

    @property
    def as_trained(self) -> bool:
        """Whether the truth has the model's classes, at the model's size, so that losses are known."""
        return not self.original and self.merged.classes == self.trained.classes


@dataclass(frozen=True)
class _Measured:
    """What one pass over the images has found."""

    plain: Tally
    with_tta: Tally | None
    loss: Loss | None
    temperature: Temperature
    rows: list[dict[str, object]]
    ends: dict[str, Interval]
    slices: list[Slice]
    sizes: list[float] | None
    uncounted: int


def evaluate(cfg: DictConfig) -> Result:
    """Judges a run's model on the images of a stage.

    Args:
        cfg: The composed config of `conf/evaluate.yaml`; see `segpets.config.compose`.

    Raises:
        UserError: The model can't be loaded, the data don't fit it, or an option makes no sense.
    """
    _check(cfg)
    from segpets.build import build
    from segpets.evaluation import merge, views
    from segpets.hardware import threads
    from segpets.trained import load

    trained = load(
        cfg.run,
        log_dir=cfg.train_log_dir,
        checkpoint=cfg.checkpoint,
        device=cfg.device,
        precision=cfg.precision,
        allow=cfg.allow,
    )
    labels = _choose_labels(cfg)
    merged = merge(trained.classes, list(cfg.data.classes), labels)
    datamodule: SegmentationDataModule = build(cfg.data.module, "data")
    seen = views(list(cfg.tta), datamodule.size)
    datamodule.setup()
    widths = sorted({float(width) for width in [cfg.boundary, *cfg.boundaries]})
    task = _Task(cfg, trained, datamodule, merged, labels, widths, seen)
    with threads(trained.summary.get("threads")):
        measured = _measure(task)
        report = _report(task, measured)
    folder = Path(cfg.paths.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, task, measured, report)
    _say(folder, task, measured, report)
    return Result(folder, report["metrics"], report)


def _check(cfg: DictConfig) -> None:
    for key, least in (("seed", 0), ("resamples", 99)):
        value = cfg[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value} must be a whole number of at least {least}")
    for key, words in (("stage", STAGES), ("resolution", RESOLUTIONS)):
        if cfg[key] not in words:
            raise UserError(f"{key}={cfg[key]} is unknown: choose {' or '.join(words)}")
    for key, example in (("tta", "[flip,0.75,1.25]"), ("boundaries", "[0.01,0.02]")):
        if not OmegaConf.is_list(cfg[key]):
            raise UserError(f"{key}={cfg[key]} is no list, such as {key}={example}")
    for width in [cfg.boundary, *cfg.boundaries]:
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= 0.5:
            raise UserError(
                f"a boundary of {width} makes no sense: give a part of the image's diagonal, "
                "above 0 and at most 0.5"
            )
    if (Path(cfg.paths.output_dir) / "evaluation.json").exists():
        raise UserError(
            f"{cfg.paths.output_dir} already holds an evaluation.json: choose another hydra.run.dir"
        )


def _choose_labels(cfg: DictConfig) -> str | None:
    """Chooses the classes of the truth; gives what the data call them, where that matters."""
    from segpets.evaluation.protocols import LABELS

    known = cfg.data.get("label_classes")
    has_border = known is not None and set(LABELS) <= set(known)
    if cfg.labels is not None:
        if cfg.labels not in LABELS:
            raise UserError(f"labels={cfg.labels} is unknown: choose {', '.join(LABELS)}")
        if not has_border:
            raise UserError(
                f"labels={cfg.labels} is for data with a border between pet and background, as "
                f"oxford_pets has: these have the classes {', '.join(cfg.data.classes)}"
            )
        cfg.data.labels = cfg.labels
    if known is not None and cfg.data.labels in known:
        cfg.data.classes = known[cfg.data.labels]  # where data.labels isn't what the run had
    return str(cfg.data.labels) if has_border else None


def _measure(task: _Task) -> _Measured:
    import numpy as np

    from segpets.evaluation import Tally, intervals, slices, walk
    from segpets.evaluation.named import image_row
    from segpets.evaluation.slices import SIZE, sizes
    from segpets.evaluation.temperature import temperature

    cfg, stage, classes = task.cfg, task.stage, task.classes

    def tally() -> Tally:
        return Tally(task.merged, widths=task.widths, resized=task.original)

    plain, with_tta = tally(), tally() if len(task.views) > 1 else None
    loss = _loss(task)
    fitted = temperature(task.trained, task.datamodule, stage, task.merged, seed=cfg.seed)
    entries = walk(
        task.trained,
        task.datamodule,
        stage,
        tally=plain,
        with_tta=with_tta,
        seen=task.views,
        temperatures=fitted.used,
        original=task.original,
        loss=loss,
    )
    width = task.widths.index(cfg.boundary)
    rows, parts = [], []
    attributes: dict[str, list[str]] = {}
    for entry in _progress(entries, len(getattr(task.datamodule.splits, stage))):
        rows.append(image_row(entry, classes, width=width))
        parts.append(entry.judged.parts)
        for key, value in entry.sample.attributes.items():
            attributes.setdefault(key, []).append(value)
    counts = np.stack(parts)  # (N, 3, K)
    counted = counts[:, 1].sum(1) > 0
    if not counted.any():
        raise UserError(
            f"no pixel of {stage} counts: all masks are 255 throughout, or labels={task.labels} "
            "leaves nothing. Choose another stage, or look at the masks with segpets.browse"
        )
    bounds = None
    if found := sizes(counts, classes):
        words, bounds = found
        attributes[SIZE] = words
        for row, word in zip(rows, words, strict=True):
            row[SIZE] = word
    draws = {"resamples": cfg.resamples, "seed": cfg.seed}
    return _Measured(
        plain,
        with_tta,
        loss,
        fitted,
        rows,
        intervals(counts[counted], classes, **draws),
        slices(counts, classes, attributes, **draws),
        bounds,
        int((~counted).sum()),
    )


def _loss(task: _Task) -> Loss | None:
    """The loss of the training, where the truth has its classes."""
    from segpets.build import build
    from segpets.evaluation import Loss

    node = task.trained.config.get("loss")
    if node is None or not task.as_trained:
        return None
    return Loss(build(OmegaConf.create(node), "loss").to(task.trained.device))


def _progress(entries: Iterator[Entry], count: int) -> Iterator[Entry]:
    """Shows on a terminal how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        entries,
        description="images",
        total=count,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _report(task: _Task, measured: _Measured) -> dict[str, Any]:
    """What `evaluation.json` holds: every value with its protocol beside it."""
    from segpets.evaluation.constants import against, constants
    from segpets.evaluation.named import (
        boundary_curves,
        calibration_of,
        interval,
        metrics_of,
        slice_report,
    )
    from segpets.run import versions

    cfg, stage, classes = task.cfg, task.stage, task.classes
    width = task.widths.index(cfg.boundary)
    plain = measured.plain
    named = metrics_of(plain, classes, width=width)
    if measured.loss is not None:
        named["loss"] = measured.loss.mean()
    confusion = plain.metrics.total
    rare, constant = constants(confusion, classes)
    report: dict[str, Any] = {
        "protocol": _protocol(task, measured, [c for c in classes if f"iou/{c}" not in named]),
        "metrics": {f"{stage}/{name}": value for name, value in named.items()},
        "intervals": {
            "protocol": {
                "method": "percentile bootstrap over images, 95 %",
                "resamples": cfg.resamples,
                "seed": cfg.seed,
            },
            **{f"{stage}/{name}": interval(found) for name, found in measured.ends.items()},
        },
        "confusion": {"rows": "truth", "columns": "prediction", "pixels": confusion.tolist()},
        "boundary": {
            "protocol": _BOUNDARY | {"width of the metrics": cfg.boundary},
            "widths": task.widths,
            **boundary_curves(plain.boundary, classes),
        },
        "calibration": {
            "protocol": _CALIBRATION | {"temperature": measured.temperature.words},
            "temperature": measured.temperature.value,
            "temperatures_used": list(measured.temperature.used),
            "pixels_fitted": measured.temperature.pixels,
            **calibration_of(plain.calibration, plain.scaled, classes),
        },
        "slices": {
            "protocol": {
                "object_size": "terciles of the part of the truth that isn't background",
                "bounds": measured.sizes,
            },
            "slices": [slice_report(part) for part in measured.slices],
        },
        "constant_predictions": {
            "rarest_class": rare,
            "predictions": [asdict(one) for one in constant],
            "one_against_all": [asdict(one) for one in against(confusion, classes)],
        },
        "tta": None,
        "versions": versions(),
    }
    if measured.with_tta is not None:
        together = metrics_of(measured.with_tta, classes, width=width)
        report["tta"] = {
            "protocol": {
                "views": [{"scale": scale, "flip": flip} for scale, flip in task.views],
                "averaged": "probabilities, at the model's size",
            },
            "metrics": {f"{stage}/{name}": value for name, value in together.items()},
        }
    return report


_BOUNDARY = {
    "boundary_iou": "Cheng et al. 2021, arXiv 2103.16562: pixels of the class that d erosions by "
    "3x3 take away; the image's edge is a contour",
    "boundary_f": "Csurka et al. 2013: contour pixels with the other contour within d, Euclidean; "
    "the image's edge is no contour",
    "widths": "parts of each image's diagonal, rounded to pixels, at least 1",
    "aggregation": "pixels summed over the split, then divided",
    "ignored": "pixels without a class are of none in truth and prediction",
}
_CALIBRATION = {
    "ece": "of the most probable class: 15 bins of equal width, mean absolute gap weighted by "
    "pixels, as torchmetrics has it",
    "ece_by_class": "of each class against all others, in the same way",
    "nll": "mean negative log-likelihood of the true classes, natural logarithm",
}


def _protocol(task: _Task, measured: _Measured, absent: list[str]) -> dict[str, Any]:
    """What the numbers mean."""
    from segpets.evaluation.protocols import BORDER_WORDS

    trained, datamodule, cfg = task.trained, task.datamodule, task.cfg
    size = [datamodule.size, datamodule.size]
    return {
        "run": str(trained.path),
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "data": str(cfg.data.module.source.get("_target_")).rpartition(".")[2],
        "data_fingerprint": datamodule.pixels.fingerprint,
        "data_of_the_training": datamodule.pixels.fingerprint
        == trained.summary.get("data_fingerprint"),
        "split": cfg.data.get("split"),
        "split_seed": cfg.data.seed,
        "overfit": cfg.data.overfit,
        "stage": task.stage,
        "images": len(measured.rows),
        "images_without_a_pixel_that_counts": measured.uncounted,
        "augmentation": "none",
        "seen_at": size,
        "resolution": "each image's own size" if task.original else size,
        "resize": {
            "image": "bilinear with antialiasing",
            "mask": "none" if task.original else "nearest",
            "logits": "bilinear, then the largest" if task.original else "none",
        },
        "classes": list(task.classes),
        "labels": task.labels,
        "trained_classes": list(trained.classes),
        "trained_labels": trained.config["data"].get("labels"),
        "prediction": task.merged.words,
        "border": BORDER_WORDS.get(task.labels or ""),
        "ignored_value": 255,
        "aggregation": "one confusion matrix over the split",
        "absent_classes": "left out of macro means",
        "absent": absent,
        "tta": "none; beside it under tta" if measured.with_tta else "none",
        "precision": trained.precision,
        "device": str(trained.device),
        "batch_size": datamodule.batch_size,
    }


def _write(folder: Path, task: _Task, measured: _Measured, report: dict[str, Any]) -> None:
    from segpets.evaluation.boundary import widths_in_pixels
    from segpets.evaluation.named import slice_row
    from segpets.report.evaluation import boundary_figure, reliability_figure
    from segpets.report.figure import confusion_figure
    from segpets.report.grid import as_csv
    from segpets.run import write_atomically

    plain, size = measured.plain, (task.datamodule.size, task.datamodule.size)
    write_atomically(folder / "images.csv", as_csv(measured.rows))
    write_atomically(folder / "slices.csv", as_csv([slice_row(s) for s in measured.slices]))
    confusion = confusion_figure(plain.metrics.total, task.classes, counts_too=True)
    confusion.savefig(folder / "confusion.png")
    calibration, temperature = report["calibration"], measured.temperature.value
    notes = tuple(
        f"{words}\nECE {calibration[when]['ece'] or 0:.4f}, NLL {calibration[when]['nll'] or 0:.4f}"
        for when, words in (
            ("before", "as trained"),
            ("after", f"temperature {temperature:.3f}" if temperature else ""),
        )
    )
    bins = plain.calibration.reliability(), plain.scaled.reliability()
    reliability_figure(*bins, notes=(notes[0], notes[1])).savefig(folder / "reliability.png")
    pixels = None if task.original else widths_in_pixels(task.widths, size)
    boundary_figure(task.widths, report["boundary"], pixels=pixels).savefig(folder / "boundary.png")
    # Last, so that a folder with it holds all the others.
    text = json.dumps(report, indent=2, allow_nan=False)
    write_atomically(folder / "evaluation.json", text + "\n")


def _say(folder: Path, task: _Task, measured: _Measured, report: dict[str, Any]) -> None:
    from segpets.report.evaluation import score_grid
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown

    stage, cfg = task.stage, task.cfg
    named = {name.removeprefix(f"{stage}/"): v for name, v in report["metrics"].items()}
    ends = {name: (found.low, found.high) for name, found in measured.ends.items()}
    size = f"{task.datamodule.size}x{task.datamodule.size}"
    where = "each image's own size" if task.original else size
    title = f"{shown(task.trained.path)}, epoch {task.trained.epoch}: {stage}, "
    title += f"{len(measured.rows):,} images at {where}"
    title += f", labels {task.labels}" if task.labels else ""
    grid = score_grid(named, ends, task.classes)
    log.info("%s", as_text(grid_table(grid, title=title)))
    for line in _lines(task, measured, report, named):
        log.info("%s", line)
    log.info("Everything lies in %s:", shown(folder))
    log.info(
        "  evaluation.json  images.csv  slices.csv  confusion.png  reliability.png  boundary.png"
    )


def _lines(
    task: _Task, measured: _Measured, report: dict[str, Any], named: dict[str, float]
) -> Iterator[str]:
    """What is said below the table."""
    low, high = measured.ends["pixel_accuracy"].low, measured.ends["pixel_accuracy"].high
    yield f"Pixel accuracy {named['pixel_accuracy']:.4f} (95 %: {low:.3f}-{high:.3f})"
    if task.merged.classes != task.trained.classes:
        yield f"Judged by {task.merged.words}"
    before, after = report["calibration"]["before"], report["calibration"]["after"]
    if (temperature := measured.temperature.value) is not None:
        yield (
            f"ECE {before['ece']:.4f}, NLL {before['nll']:.4f}; with temperature "
            f"{temperature:.3f} {after['ece']:.4f} and {after['nll']:.4f}"
        )
    if measured.with_tta is not None:
        together = report["tta"]["metrics"]
        parts = [
            f"{words} {named[name]:.4f} -> {together[f'{task.stage}/{name}']:.4f}"
            for name, words in (("mean_iou", "mean IoU"), ("pixel_accuracy", "pixel accuracy"))
        ]
        yield f"With {len(task.views)} views: {', '.join(parts)}"
    against = min(report["constant_predictions"]["one_against_all"], key=lambda one: one["share"])
    yield (
        f"Never predicting {against['name']} ({against['share']:.1%} of the pixels) is right in "
        f"{against['never_accuracy']:.1%} of the pixels, with an IoU of 0; the model in "
        f"{against['accuracy']:.1%}, with {against['iou']:.3f}"
    )


def _run(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import point

    result = evaluate(cfg)
    latest = Path(cfg.paths.log_dir) / "latest"
    latest.parent.mkdir(parents=True, exist_ok=True)
    point(latest, result.path)


def main() -> None:
    """The command."""
    run_command(_run, name="evaluate", example="python -m segpets.evaluate run=latest", needs="run")


if __name__ == "__main__":
    main()
