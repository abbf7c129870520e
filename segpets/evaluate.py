"""Measures a trained model: `python -m segpets.evaluate run=latest`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.config import own_folders
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.data import SegmentationDataModule
    from segpets.evaluation import Entry, Loss, Measured, Task
    from segpets.report.errors import Entry as Shown
    from segpets.report.grid import Grid

log = logging.getLogger("segpets.evaluate")

STAGES = ("train", "val", "test")
RESOLUTIONS = ("model", "original")
_SHOWN = 10


@dataclass(frozen=True)
class Result:
    """What evaluating gives.

    Attributes:
        path: The folder with `evaluation.json`, `evaluation.md`, `images.csv`, `slices.csv`,
            `confusion.png`, `reliability.png`, `boundary.png` and `errors.html`.
        metrics: Values under their names, such as `test/mean_iou`.
        record: What `evaluation.json` holds: more values, and what they mean.
    """

    path: Path
    metrics: dict[str, float]
    record: dict[str, Any]


def evaluate(cfg: DictConfig, *, folders: Sequence[Path] = ()) -> Result:
    """Judges a run's model on the images of a stage.

    Args:
        cfg: The composed config of `conf/evaluate.yaml`; see `segpets.config.compose`.
        folders: Folders with configs of the user's own, whose classes are allowed, too.

    Raises:
        UserError: The model can't be loaded, the data don't fit it, or an option makes no sense.
    """
    _check(cfg)
    from segpets.evaluation import as_record, measure
    from segpets.hardware import threads
    from segpets.report.errors import Entry as Shown
    from segpets.run import OTHER_FOLDER, make_ready, versions, write_atomically

    folder = make_ready(Path(cfg.paths.output_dir), OTHER_FOLDER)
    task = _task(cfg, folders)
    progress, shown = _progress(task), list[Shown]()
    with threads(task.trained.summary.get("threads")):
        measured = measure(
            task,
            loss=_loss(task),
            watched=lambda entries: _kept(progress(entries), task, shown if cfg.errors else None),
        )
    facts = {"split": cfg.data.get("split"), "split_seed": cfg.data.seed}
    record = as_record(task, measured, facts) | {"versions": versions()}
    tables = dict(_tables(task, measured, record))
    lines = list(_lines(task, measured, record))
    if shown:
        page = _page(task, shown, record, count=cfg.errors)
        write_atomically(folder / "errors.html", page)
    _write(folder, task, measured, record, tables, lines)
    _say(folder, tables, lines)
    return Result(folder, record["metrics"], record)


def _task(cfg: DictConfig, folders: Sequence[Path]) -> Task:
    """Loads the model and its data; finds out whether they fit."""
    from segpets.build import build
    from segpets.evaluation import Options, Task, merge, views
    from segpets.trained import load

    trained = load(
        cfg.run,
        log_dir=cfg.train_log_dir,
        checkpoint=cfg.checkpoint,
        device=cfg.device,
        precision=cfg.precision,
        allow=cfg.allow,
        folders=folders,
    )
    labels = _choose_labels(cfg)
    merged = merge(trained.classes, list(cfg.data.classes), labels)
    datamodule: SegmentationDataModule = build(cfg.data.module, "data")
    widths = sorted({float(width) for width in [cfg.boundary, *cfg.boundaries]})
    options = Options(
        stage=cfg.stage,
        original=cfg.resolution == "original",
        views=views(list(cfg.tta), datamodule.size),
        widths=widths,
        width=widths.index(cfg.boundary),
        resamples=cfg.resamples,
        seed=cfg.seed,
    )
    datamodule.setup()
    return Task(trained, datamodule, merged, labels, options)


def _check(cfg: DictConfig) -> None:
    for key, least in (("seed", 0), ("resamples", 99), ("errors", 0)):
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
    from segpets.evaluation import LABELS

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


def _loss(task: Task) -> Loss | None:
    """The loss of the training, where the truth has its classes."""
    from segpets.build import build
    from segpets.evaluation import Loss

    node = task.trained.config.get("loss")
    if node is None or not task.as_trained:
        return None
    return Loss(build(OmegaConf.create(node), "loss").to(task.trained.device))


def _progress(task: Task) -> Callable[[Iterator[Entry]], Iterable[Entry]]:
    """Shows on a terminal how far it is."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return partial(
        track,
        description=task.options.stage,
        total=len(getattr(task.datamodule.splits, task.options.stage)),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _kept(entries: Iterable[Entry], task: Task, kept: list[Shown] | None) -> Iterator[Entry]:
    """Passes the images on; keeps each as pictures of few bytes, for the error browser."""
    from segpets.report.errors import Entry as Shown
    from segpets.report.errors import pack

    for entry in entries:
        if kept is not None:
            judged = entry.judged
            kept.append(
                Shown(
                    entry.sample.name,
                    pack(*entry.pictures()),
                    judged.mean_iou(),
                    judged.pixel_accuracy(),
                    dict(zip(task.classes, judged.iou(), strict=True)),
                    entry.sample.attributes,
                )
            )
        yield entry


def _page(task: Task, shown: list[Shown], record: dict[str, Any], *, count: int) -> str:
    """The error browser, of the worst and the best images where they are many."""
    from segpets.report.errors import error_browser
    from segpets.run import shown as path_shown

    total, chosen = len(shown), ""
    if total > count:
        scored = [one for one in shown if one.mean_iou is not None]
        scored.sort(key=lambda one: (one.mean_iou, one.name))
        worst = -(-count // 2)
        shown = scored[:worst] + scored[worst:][len(scored) - count :]
        chosen = f"the {worst} worst and the {count - worst} best by mean IoU"
    protocol = record["protocol"]
    words = ("stage", "resolution", "labels", "checkpoint", "epoch")
    facts = {key: str(protocol[key]) for key in words if protocol.get(key) is not None}
    return error_browser(
        shown,
        classes=task.classes,
        title=f"Errors of {path_shown(task.trained.path)}",
        facts=facts,
        total=total,
        chosen=chosen,
    )


def _tables(task: Task, measured: Measured, record: dict[str, Any]) -> Iterator[tuple[str, Grid]]:
    """All tables, by their titles."""
    from segpets.report.evaluation import constant_grid, score_grid, slice_grid

    options = task.options
    named = {k.removeprefix(f"{options.stage}/"): v for k, v in record["metrics"].items()}
    ends = {name: (found.low, found.high) for name, found in measured.ends.items()}
    size = f"{task.datamodule.size}x{task.datamodule.size}"
    where = "each image's own size" if options.original else size
    title = f"{options.stage}, {len(measured.rows):,} images at {where}"
    title += f", labels {task.labels}" if task.labels else ""
    yield title, score_grid(named, ends, task.classes)
    found = record["constant_predictions"]
    rows = [tuple(one.values()) for one in found["predictions"]]
    yield "The same class everywhere", constant_grid(rows, rare=found["rarest_class"])
    for key in dict.fromkeys(part.key for part in measured.slices):
        parts = [
            (part.value, part.images, part.metrics["mean_iou"], part.metrics["pixel_accuracy"])
            for part in measured.slices
            if part.key == key
        ]
        yield (
            f"By {key.replace('_', ' ')}",
            slice_grid(
                [
                    (value, n, iou.value, iou.low, iou.high, right.value)
                    for value, n, iou, right in parts
                ],
                by=key,
            ),
        )


def _lines(task: Task, measured: Measured, record: dict[str, Any]) -> Iterator[str]:
    """What is said below the first table."""
    from segpets.run import shown

    trained, stage = task.trained, task.options.stage
    yield f"{shown(trained.path)}, {trained.checkpoint.name}, after {trained.epoch} epochs"
    accuracy = measured.ends["pixel_accuracy"]
    yield (
        f"Pixel accuracy {accuracy.value:.4f} (95 %: {accuracy.low:.3f}-{accuracy.high:.3f}); "
        "intervals are over images"
    )
    if task.classes != trained.classes:
        yield f"Predicted is {task.merged.words}"
    before, after = record["calibration"]["before"], record["calibration"]["after"]
    if (temperature := measured.temperature.value) is not None:
        yield (
            f"ECE {before['ece']:.4f} and NLL {before['nll']:.4f}; with a temperature of "
            f"{temperature:.3f}, {measured.temperature.words}: {after['ece']:.4f} and "
            f"{after['nll']:.4f}"
        )
    if record["tta"]:
        plain, together = record["metrics"], record["tta"]["metrics"]
        scores = (("mean IoU", "mean_iou"), ("pixel accuracy", "pixel_accuracy"), ("ECE", "ece"))
        parts = [
            f"{words} {plain[f'{stage}/{name}']:.4f} -> {together[f'{stage}/{name}']:.4f}"
            for words, name in scores
        ]
        yield f"With the average of {len(task.options.views)} views: {', '.join(parts)}"
    rare = min(record["constant_predictions"]["one_against_all"], key=lambda one: one["share"])
    share, never, right = (
        f"{100 * rare[key]:.1f} %" for key in ("share", "never_accuracy", "accuracy")
    )
    yield (
        f"{rare['name']}: {share} of the pixels. A model that never predicts it is right in "
        f"{never} of the pixels, with an IoU of 0; this one in {right}, with an IoU of "
        f"{rare['iou']:.3f}"
    )
    if absent := record["protocol"]["absent"]:
        yield f"Neither truth nor prediction has {', '.join(absent)}: left out of the means"
    if measured.uncounted:
        yield f"{measured.uncounted} images have no pixel that counts"
    if not record["protocol"]["data_of_the_training"]:
        yield "These data are not those of the training: other files, or changed ones"


def _write(
    folder: Path,
    task: Task,
    measured: Measured,
    record: dict[str, Any],
    tables: dict[str, Grid],
    lines: list[str],
) -> None:
    from segpets.evaluation.boundary import widths_in_pixels
    from segpets.evaluation.named import slice_row
    from segpets.report.evaluation import boundary_figure, reliability_figure
    from segpets.report.figure import confusion_figure
    from segpets.report.grid import as_csv, as_markdown, markdown_text
    from segpets.run import write_atomically

    plain, widths = measured.plain, task.options.widths
    confusion = confusion_figure(plain.metrics.total, task.classes, counts_too=True)
    confusion.savefig(folder / "confusion.png")
    kinds = {"as trained": ("before", plain.calibration)}
    if (temperature := measured.temperature.value) is not None:
        kinds[f"temperature {temperature:.3f}"] = ("after", plain.scaled)
    diagrams = {}
    for words, (when, sums) in kinds.items():
        values = record["calibration"][when]
        note = f"{words}\nECE {values['ece']:.4f}, NLL {values['nll']:.4f}"
        diagrams[note] = sums.reliability()
    reliability_figure(diagrams).savefig(folder / "reliability.png")
    size = (task.datamodule.size, task.datamodule.size)
    pixels = None if task.options.original else widths_in_pixels(widths, size)
    boundary_figure(widths, record["boundary"], pixels=pixels).savefig(folder / "boundary.png")
    write_atomically(folder / "images.csv", as_csv(measured.rows))
    write_atomically(folder / "slices.csv", as_csv([slice_row(s) for s in measured.slices]))
    parts = [f"## {markdown_text(name)}\n\n{as_markdown(grid)}" for name, grid in tables.items()]
    listed = "".join(f"- {markdown_text(line)}\n" for line in lines)
    write_atomically(folder / "evaluation.md", "\n".join([parts[0], listed, *parts[1:]]))
    text = json.dumps(record, indent=2, allow_nan=False)
    write_atomically(folder / "evaluation.json", text + "\n")  # last: then all others are there


def _say(folder: Path, tables: dict[str, Grid], lines: list[str]) -> None:
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown

    for index, (title, grid) in enumerate(tables.items()):
        if index == 1:
            for line in lines:
                log.info("%s", line)
        if len(grid.rows) <= _SHOWN or not index:
            log.info("%s", as_text(grid_table(grid, title=title)))
    log.info("Everything lies in %s:", shown(folder))
    log.info("  evaluation.json  evaluation.md  images.csv  slices.csv")
    log.info("  confusion.png  reliability.png  boundary.png")
    if (folder / "errors.html").exists():
        log.info("Look at the errors, image by image: %s/errors.html", shown(folder))


def _run(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import point

    result = evaluate(cfg, folders=own_folders())
    point(Path(cfg.paths.log_dir) / "latest", result.path)


def main() -> None:
    """The command."""
    run_command(_run, name="evaluate", example="python -m segpets.evaluate run=latest", needs="run")


if __name__ == "__main__":
    main()
