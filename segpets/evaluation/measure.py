"""One pass over a stage, and what follows from its sums."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from segpets.data import SegmentationDataModule
from segpets.errors import UserError
from segpets.evaluation.inference import View
from segpets.evaluation.named import image_row
from segpets.evaluation.protocols import Merge
from segpets.evaluation.slices import SIZE, Interval, Slice, intervals, sizes, slices
from segpets.evaluation.tally import Tally
from segpets.evaluation.temperature import Temperature, temperature
from segpets.evaluation.walk import Entry, Loss, walk
from segpets.trained import Trained


@dataclass(frozen=True)
class Options:
    """How is measured.

    Attributes:
        stage: `train`, `val` or `test`.
        original: Whether an image is judged at its own size, else at the model's.
        views: What test-time augmentation averages over; one view makes none.
        widths: Of the boundary, as parts of an image's diagonal, ascending.
        width: The index of that which tables have.
        resamples: Of the bootstrap.
        seed: Of the bootstrap, and of the pixels to which a temperature is fitted.
    """

    stage: str
    original: bool
    views: list[View]
    widths: list[float]
    width: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        trained: The model.
        datamodule: The data, set up.
        merged: Under which classes.
        labels: What pets' data call them, such as `border_as_pet`; None for other data.
        options: How.
    """

    trained: Trained
    datamodule: SegmentationDataModule
    merged: Merge
    labels: str | None
    options: Options

    @property
    def classes(self) -> tuple[str, ...]:
        """The K classes of the truth."""
        return self.merged.classes

    @property
    def as_trained(self) -> bool:
        """Whether the truth is as in the training, so that its loss can be computed."""
        return not self.options.original and self.classes == self.trained.classes


@dataclass(frozen=True)
class Measured:
    """What was found.

    Attributes:
        plain: The sums.
        with_tta: Those of several views together; None without test-time augmentation.
        loss: The mean loss of the training, where it is known.
        temperature: What was fitted on val.
        rows: A row an image.
        ends: The metrics that have an interval.
        slices: The metrics of parts of the images.
        sizes: Between small, medium and large objects; None where no class is background.
        uncounted: Images without a pixel that counts.
    """

    plain: Tally
    with_tta: Tally | None
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
    watched: Callable[[Iterator[Entry]], Iterable[Entry]] = iter,
) -> Measured:
    """Predicts and judges the images of a stage; one batch at a time is in memory.

    Args:
        task: What is measured.
        loss: Adds up the training's loss.
        watched: Passes the images on, one after the other, with their pixels: to draw a progress
            bar, or to keep pictures of some.

    Raises:
        UserError: No pixel counts.
    """
    options, classes = task.options, task.classes

    def tally() -> Tally:
        return Tally(task.merged, widths=options.widths, resized=options.original)

    plain, with_tta = tally(), tally() if len(options.views) > 1 else None
    fitted = temperature(
        task.trained, task.datamodule, options.stage, task.merged, seed=options.seed
    )
    entries = walk(
        task.trained,
        task.datamodule,
        options.stage,
        tally=plain,
        with_tta=with_tta,
        seen=options.views,
        temperatures=fitted.used,
        original=options.original,
        loss=loss,
    )
    rows, parts = [], []
    attributes: dict[str, list[str]] = {}
    for entry in watched(entries):
        rows.append(image_row(entry, classes, width=options.width))
        parts.append(entry.judged.parts)
        for key, value in entry.sample.attributes.items():
            attributes.setdefault(key, []).append(value)
    counts = np.stack(parts)  # (N, 3, K)
    counted = counts[:, 1].sum(1) > 0
    if not counted.any():
        raise UserError(
            f"no pixel of {options.stage} counts, since all masks are 255 throughout: choose "
            "another stage, or look at the masks with segpets.browse"
        )
    bounds = None
    if found := sizes(counts, classes):
        words, bounds = found
        attributes[SIZE] = words
        for row, word in zip(rows, words, strict=True):
            row[SIZE] = word
    resamples, seed = options.resamples, options.seed
    return Measured(
        plain=plain,
        with_tta=with_tta,
        loss=loss.mean() if loss else None,
        temperature=fitted,
        rows=rows,
        ends=intervals(counts[counted], classes, resamples=resamples, seed=seed),
        slices=slices(counts, classes, attributes, resamples=resamples, seed=seed),
        sizes=bounds,
        uncounted=int((~counted).sum()),
    )
