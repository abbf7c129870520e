"""Judges a trained model on the images of a stage: `python -m segpets.evaluate run=latest`."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import Field
from rich.console import Console
from rich.progress import track

from segpets.build.instantiate import build
from segpets.build.objects import build_data
from segpets.build.seen import Key, is_split, keys_of, trained_on
from segpets.data import SegmentationDataModule
from segpets.data.source import Sample
from segpets.errors import UserError
from segpets.evaluate.classes import LABELS, merge
from segpets.evaluate.error_browser import Kept, error_page, pack
from segpets.evaluate.measure import JudgeOptions, Task, measure
from segpets.evaluate.one_pass import JudgedImage, Loss
from segpets.evaluate.record import as_record
from segpets.evaluate.report import render
from segpets.hardware import threads
from segpets.inference.decision import check_weights
from segpets.inference.ensemble import load_runs, open_runs
from segpets.inference.views import views
from segpets.loss.base import weighted_parts
from segpets.run.directory import thread_count
from segpets.run.files import OTHER_FOLDER, make_ready, shown, write_atomically
from segpets.run.lock import check_new, held
from segpets.run.protocol import SPLIT_NAMES, bands_of, labels_of
from segpets.run.stored import StoredRun
from segpets.run.trust import Trust
from segpets.settings import Natural, Settings, Weights, table

log = logging.getLogger(__name__)

Width = Annotated[float, Field(gt=0, le=0.5)]


class EvaluateSettings(Settings):
    """Keys of `conf/evaluate.yaml`."""

    stage: Literal["train", "val", "test"]
    labels: Literal["trimap", "border_as_pet", "border_ignored"] | None
    resolution: Literal["model", "original"]
    decide: Literal["iou"] | Weights | None
    tta: Annotated[Sequence[str | int | float | bool], Field(examples=["tta=[flip,0.75,1.25]"])]
    boundary: Width
    boundaries: Annotated[Sequence[Width], Field(examples=["boundaries=[0.01,0.02]"])]
    resamples: Annotated[int, Field(ge=99)]
    errors: Natural
    seed: Natural


@dataclass(frozen=True)
class Result:
    """The outcome of an evaluation.

    Attributes:
        path: The folder with `evaluation.json`, `evaluation.md`, `images.csv`, `slices.csv`,
            `confusion.png`, `reliability.png`, `boundary.png` and `errors.html`.
        metrics: Values under their names, such as `test/mean_iou`.
        record: What `evaluation.json` holds: more values, and what they mean.
    """

    path: Path
    metrics: dict[str, float]
    record: dict[str, Any]


def evaluate(cfg: DictConfig, *, trust: Trust | None = None) -> Result:
    """Judges a run's model on the images of a stage.

    Raises:
        UserError: The model can't be loaded, the data don't match it, or an option makes no sense.
    """
    settings = EvaluateSettings.of(cfg)
    folder = Path(cfg.paths.output_dir)
    check_new(folder, "evaluate")
    make_ready(folder, OTHER_FOLDER)
    with held(folder):
        return _evaluated(cfg, settings, folder, trust or Trust.of(cfg.allow))


def _evaluated(cfg: DictConfig, settings: EvaluateSettings, folder: Path, trust: Trust) -> Result:
    task, data = _task(cfg, settings, trust)
    kept: list[Kept] = []
    with threads(thread_count(task.trained.summary)):
        measured = measure(
            task,
            loss=_loss(task),
            watched=lambda entries: _watched(entries, task, kept if settings.errors else None),
        )
    record = as_record(task, measured, data)
    if kept:
        page = error_page(kept, record, title=task.trained.path, most=settings.errors)
        write_atomically(folder / "errors.html", page)
    render(record, measured.rows, folder)
    return Result(folder, record["metrics"], record)


def _task(cfg: DictConfig, settings: EvaluateSettings, trust: Trust) -> tuple[Task, dict[str, Any]]:
    """Loads the model and its data, and checks that they match."""
    runs = open_runs(cfg.run, log_dir=cfg.train_log_dir, trust=trust)
    trained = load_runs(runs, checkpoint=cfg.checkpoint, device=cfg.device, precision=cfg.precision)
    if settings.decide is not None and not isinstance(settings.decide, str):
        check_weights(settings.decide, trained.classes)
    data = runs[0].data(table(cfg.data))
    labels = _choose_labels(data, settings.labels, runs[0].config["data"])
    merged = merge(trained.classes, data["classes"], labels)
    datamodule = build_data(cfg, data)
    trained = trained.seeing(datamodule.reader, datamodule.window)
    _check_bands(bands_of(data), bands_of(runs[0].config["data"]))
    datamodule.setup()
    seen = _seen(cfg, runs, data, datamodule)
    _check_unseen(keys_of(datamodule.splits[settings.stage], data), settings.stage, seen)
    widths = sorted({float(width) for width in (settings.boundary, *settings.boundaries)})
    options = JudgeOptions(
        stage=settings.stage,
        original=settings.resolution == "original",
        views=views(settings.tta, datamodule.least_side(settings.stage)),
        widths=widths,
        width=widths.index(settings.boundary),
        decide=settings.decide,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    # What a run was trained on fits no temperature and no weights.
    held_out = not seen & keys_of(datamodule.splits.val, data).keys()
    return Task(trained, datamodule, merged, labels, options, held_out), data


def _check_bands(here: list[str] | None, there: list[str] | None) -> None:
    """Refuses the bands of the training in another order, and warns of others."""
    if here is None or there is None or here == there:
        return
    if sorted(here) == sorted(there):
        raise UserError(
            f"data.bands={here}, but the run was trained with data.bands={there}: give them in "
            "that order"
        )
    log.warning("data.bands=%s are taken for the %s of the training, in this order", here, there)


def _seen(
    cfg: DictConfig,
    runs: Sequence[StoredRun],
    data: dict[str, Any],
    datamodule: SegmentationDataModule,
) -> set[Key]:
    """Finds the images that runs were trained on by splits of their own, other than `data`'s."""
    seen: set[Key] = set()
    listed: list[Any] = []
    for run in runs:
        own = run.data({})
        if own == data and is_split(datamodule.splits, run.summary):
            continue
        if (which := (own, run.summary.get(SPLIT_NAMES))) not in listed:
            listed.append(which)
            found = trained_on(cfg, own, data, run.summary)
            if found is None:
                log.warning(
                    "%s: its training images can't be listed, as where the data have changed "
                    "since: if some are among those judged, the result says too much",
                    shown(run.path),
                )
            seen |= found or set()
    return seen


def _check_unseen(judged: Mapping[Key, Sample], stage: str, seen: set[Key]) -> None:
    """Refuses to judge a run, or a member of an ensemble, by images that it was trained on.

    Raises:
        UserError: There are some; the message names one.
    """
    both = sorted(judged[key].name for key in seen & judged.keys())
    if both and stage != "train":
        other = "data of your own" if stage == "test" else "stage=test, or data of your own"
        raise UserError(
            f"stage={stage}: {len(both)} of its images, such as {both[0]}, are among those that a "
            f"run was trained on, by a split of its own: give {other}"
        )


def _choose_labels(data: dict[str, Any], labels: str | None, own: Mapping[str, Any]) -> str | None:
    """Chooses the classes of the truth; returns the data's name for them, where that matters.

    Args:
        data: The data, whose `labels` and `classes` are changed.
        labels: What was asked for.
        own: The data of the training, which may have named the classes anew.
    """
    known = data.get("label_classes")
    has_border = known is not None and set(LABELS) <= set(known)
    if labels is not None:
        if not has_border:
            raise UserError(
                f"labels={labels} is for data with a border between pet and background, as "
                f"oxford_pets has: these have the classes {', '.join(data['classes'])}"
            )
        data["labels"] = labels
    if known is not None and data["labels"] in known and data["labels"] != labels_of(own):
        data["classes"] = known[data["labels"]]
    return str(data["labels"]) if has_border else None


def _loss(task: Task) -> Loss | None:
    """Makes the loss of the training, where the truth has its classes."""
    node = task.trained.config.get("loss")
    if node is None or not task.as_trained:
        return None
    loss = build(OmegaConf.create(node), "loss")  # on the CPU, where images are judged
    weights = task.trained.summary.get("class_weights")
    for part in weighted_parts(loss):
        if not isinstance(weights, list) or len(weights) != part.num_classes:
            return None  # the run doesn't say what they were
        part.weigh([float(weight) for weight in weights])
    return Loss(loss)


def _watched(
    entries: Iterator[JudgedImage], task: Task, kept: list[Kept] | None
) -> Iterator[JudgedImage]:
    """Passes the images on, with a progress bar; keeps each, made small, for the error browser."""
    stage, console = task.options.stage, Console(stderr=True)
    total = len(task.datamodule.splits[stage])
    shown: Iterable[JudgedImage] = track(
        entries, stage, total, console=console, transient=True, disable=not console.is_terminal
    )
    for entry in shown:
        if kept is not None:
            judged = entry.judged
            iou = dict(zip(task.classes, judged.iou(), strict=True))
            scores = judged.mean_iou(), judged.pixel_accuracy(), iou
            small = pack(*entry.pictures())
            kept.append(Kept(entry.sample.name, small, *scores, entry.sample.attributes))
        yield entry


def main(cfg: DictConfig, trust: Trust) -> Path:
    """Runs the command; returns the folder of the result."""
    return evaluate(cfg, trust=trust).path
