"""Passes over a stage once, and computes the results from its sums."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segpets.data import SegmentationDataModule
from segpets.errors import UserError
from segpets.evaluate.classes import Merge
from segpets.evaluate.decision import Decision, gain
from segpets.evaluate.one_pass import JudgedImage, Loss, Redone, walk
from segpets.evaluate.rows import image_row
from segpets.evaluate.slices import SIZE, Interval, Slice, intervals, sizes, slices
from segpets.evaluate.tally import Tally
from segpets.evaluate.temperature import Fitting, Temperature, decision, temperature
from segpets.inference.trained import Trained
from segpets.inference.views import View
from segpets.records.counts import read_parts
from segpets.run.files import RunFiles
from segpets.run.protocol import tested_weights


@dataclass(frozen=True)
class JudgeOptions:
    """Settings of an evaluation.

    Attributes:
        stage: `train`, `val` or `test`.
        original: Whether an image is judged at its own size, else at the model's.
        views: What test-time augmentation averages over; one view makes none.
        widths: Of the boundary, as parts of an image's diagonal, ascending.
        width: The index of the width shown in tables.
        decide: `iou` fits decision weights on val; a list gives them; None has none.
        resamples: Number of resamples of the bootstrap.
        seed: Seed of the bootstrap, and of the pixels to which a temperature is fitted.
    """

    stage: str
    original: bool
    views: list[View]
    widths: list[float]
    width: int
    decide: str | Sequence[float] | None
    resamples: int
    seed: int


@dataclass(frozen=True)
class Task:
    """A model, its data, and the settings of an evaluation.

    Attributes:
        trained: The model.
        datamodule: The data, set up.
        merged: The classes under which the model is judged.
        labels: What pets' data call them, such as `border_as_pet`; None for other data.
        options: The settings.
        val_held_out: Whether no member of an ensemble was trained on val.
    """

    trained: Trained
    datamodule: SegmentationDataModule
    merged: Merge
    labels: str | None
    options: JudgeOptions
    val_held_out: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes of the truth."""
        return self.merged.classes

    @property
    def as_trained(self) -> bool:
        """True if the truth is as in the training, so that its loss can be computed."""
        return not self.options.original and self.classes == self.trained.classes


@dataclass(frozen=True)
class Measurements:
    """Measurements of a model.

    Attributes:
        plain: The sums.
        with_tta: Those of several views together; None without test-time augmentation.
        decided: Those of both with decision weights; None without any.
        decision: The weights.
        gains: The gains in mean IoU of each over the plain predictions, by its name; of an
            ensemble, that over its members, on average.
        loss: The mean loss of the training, where it is known.
        temperature: The temperature fitted on val.
        rows: One row for each image.
        ends: The metrics that have an interval.
        slices: The metrics of parts of the images.
        sizes: Between small, medium and large objects; None where no class is background.
        uncounted: Images without a pixel that counts.
    """

    plain: Tally
    with_tta: Tally | None
    decided: list[Tally] | None
    decision: Decision | None
    gains: dict[str, Interval]
    loss: float | None
    temperature: Temperature
    rows: list[dict[str, object]]
    ends: dict[str, Interval]
    slices: list[Slice]
    sizes: list[float] | None
    uncounted: int


def measure(
    task: Task,
    *,
    loss: Loss | None = None,
    watched: Callable[[Iterator[JudgedImage]], Iterable[JudgedImage]] = iter,
) -> Measurements:
    """Predicts and judges the images of a stage, with one batch at a time in memory.

    Args:
        task: The model, the data and the settings.
        loss: Adds up the training's loss.
        watched: Passes the images on, one after the other, with their pixels: to draw a progress
            bar, or to keep pictures of some.

    Raises:
        UserError: No pixel counts.
    """
    options, classes = task.options, task.classes
    model, data, stage = task.trained, task.datamodule, options.stage
    plain = Tally(task.merged, widths=options.widths, resized=options.original)
    with_tta = copy.deepcopy(plain) if len(options.views) > 1 else None
    fitting = Fitting(model, data, stage, seed=options.seed, held_out=task.val_held_out)
    fitted = temperature(fitting, task.merged)
    weights = decision(fitting, task.merged, options.decide)
    decided = None if weights is None else copy.deepcopy([plain, *filter(None, [with_tta])])
    entries = walk(
        model,
        data,
        stage,
        tally=plain,
        with_tta=with_tta,
        decided=Redone(weights.shift, decided) if weights and decided else None,
        seen=options.views,
        temperatures=fitted.used,
        original=options.original,
        loss=loss,
    )
    rows = []
    attributes: dict[str, list[str]] = {}
    for entry in watched(entries):
        rows.append(image_row(entry, classes, width=options.width))
        for key, value in entry.sample.attributes.items():
            attributes.setdefault(key, []).append(value)
    counts = np.stack(plain.parts)  # (N, 3, K)
    counted, bounds = _counted(counts, stage), _size_attribute(counts, classes, rows, attributes)
    resamples, seed = options.resamples, options.seed
    return Measurements(
        plain=plain,
        with_tta=with_tta,
        decided=decided,
        decision=weights,
        gains=_gains(task, plain, _others(with_tta, decided), rows, counted),
        loss=loss.mean() if loss else None,
        temperature=fitted,
        rows=rows,
        ends=intervals(counts[counted], classes, resamples=resamples, seed=seed),
        slices=slices(counts, classes, attributes, resamples=resamples, seed=seed),
        sizes=bounds,
        uncounted=int((~counted).sum()),
    )


def _counted(counts: NDArray[np.int64], stage: str) -> NDArray[np.bool_]:
    """Finds the images with pixels that count, (N,)."""
    counted: NDArray[np.bool_] = counts[:, 1].sum(1) > 0
    if not counted.any():
        raise UserError(
            f"no pixel of {stage} counts, since all masks are 255 throughout: choose another "
            "stage, or look at the masks with segpets.browse"
        )
    return counted


def _others(with_tta: Tally | None, decided: Sequence[Tally] | None) -> dict[str, Tally]:
    """Names the sums of other predictions."""
    others = {"tta": with_tta} if with_tta else {}
    return others | dict(zip(("decision", "decision and tta"), decided or (), strict=False))


def _gains(
    task: Task,
    plain: Tally,
    others: Mapping[str, Tally],
    rows: Sequence[Mapping[str, object]],
    counted: NDArray[np.bool_],
) -> dict[str, Interval]:
    """Computes gains in mean IoU over the plain predictions."""
    draws = {"resamples": task.options.resamples, "seed": task.options.seed}
    before = np.stack(plain.parts)
    gains = {
        name: gain(before[counted], np.stack(tally.parts)[counted], **draws)
        for name, tally in others.items()
    }
    names = [str(row["name"]) for row in rows]
    if (alone := _of_members(task.trained.members, names, before)) is not None:
        gains["ensemble"] = gain(alone[:, counted], before[counted], **draws)
    return gains


def _of_members(
    members: Sequence[Trained], names: Sequence[str], counts: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Reads what each member of an ensemble predicted alone, where its test was of this truth."""
    alone = []
    for member in members:
        tested = tested_weights(member.summary).get("checkpoint")
        try:
            known = read_parts(RunFiles(member.path).counts, member.classes)
            parts = np.stack([known[name] for name in names])
        except (OSError, ValueError, KeyError):
            return None
        if member.checkpoint.stem != tested or not np.array_equal(parts[:, 1], counts[:, 1]):
            return None
        alone.append(parts)
    return np.stack(alone) if alone else None


def _size_attribute(
    counts: NDArray[np.int64],
    classes: Sequence[str],
    rows: Sequence[dict[str, object]],
    attributes: dict[str, list[str]],
) -> list[float] | None:
    """Records the size of each image's object; returns the bounds between sizes."""
    if (sorted_images := sizes(counts, classes)) is None:
        return None
    attributes[SIZE], bounds = sorted_images
    for row, word in zip(rows, attributes[SIZE], strict=True):
        row[SIZE] = word
    return bounds
