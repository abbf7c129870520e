"""The table that a test leaves: pixels of each image by truth and prediction."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from segpets.reading import read_csv
from segpets.stats import Floats, Ints, image_iou, worst_cases

MOST_VALUES: Final = 100
"""An attribute with more values than this, such as a file's date, makes no groups."""


@dataclass(frozen=True)
class Counts:
    """The table of a run's counts, in short.

    Attributes:
        names: The N images, sorted.
        iou: The mean IoU of each, (N,); NaN where no pixel counts.
        truth: A number for the truth of each, (N,): equal truths have equal numbers.
        total: The pixels of all images, (C, C), truth in rows.
        parts: For each attribute, such as breed, the pixels of the images of each value.
        worst: What goes worst, by name; see `worst_cases`.
    """

    names: NDArray[np.str_]
    iou: Floats
    truth: Ints
    total: Ints
    parts: dict[str, dict[str, Ints]]
    worst: dict[str, float]

    def mean_iou(self) -> float:
        """Computes the mean IoU of all images together; NaN without a pixel."""
        return mean_iou(self.total)


def mean_iou(confusion: Ints) -> float:
    """Computes the mean IoU of a confusion matrix, (C, C), over classes in truth or prediction."""
    return float(image_iou(confusion[None])[0])


def truth_keys(pixels: Ints) -> Ints:
    """Hashes each row of pixels by true class, (..., C): different rows get different numbers."""
    weights = np.random.default_rng(0).integers(1, 2**62, pixels.shape[-1])
    keys: Ints = pixels @ weights  # wraps around, as a hash may
    return keys


def read_counts(file: Path, classes: Sequence[str]) -> Counts:
    """Reads the table that `segpets.callback.TestPredictions` writes.

    Args:
        file: `counts.csv`.
        classes: The names of the classes, in the order of their ids.

    Raises:
        OSError: The file can't be read.
        ValueError: It isn't such a table, or has other classes.
    """
    head, rows, confusion = _table(file, classes)
    names = np.array([row[0] for row in rows])
    parts = {}
    for column in range(1, len(head) - len(classes) ** 2):
        values, which = np.unique([row[column] for row in rows], return_inverse=True)
        if len(values) <= MOST_VALUES:
            sums = np.zeros((len(values), *confusion.shape[1:]), dtype=np.int64)
            np.add.at(sums, which, confusion)
            parts[head[column]] = dict(zip(values.tolist(), sums, strict=True))
    return Counts(
        names=names,
        iou=image_iou(confusion),
        truth=truth_keys(confusion.sum(2)),
        total=confusion.sum(0),
        parts=parts,
        worst=worst_cases(parts_of_images(confusion), classes),
    )


def read_parts(file: Path, classes: Sequence[str]) -> dict[str, Ints]:
    """Reads what `read_counts` does as the parts of each image, (3, C), by its name.

    Raises:
        OSError: The file can't be read.
        ValueError: It isn't such a table, or has other classes.
    """
    _, rows, confusion = _table(file, classes)
    names = [row[0] for row in rows]
    return dict(zip(names, parts_of_images(confusion), strict=True))


def _table(file: Path, classes: Sequence[str]) -> tuple[list[str], list[list[str]], Ints]:
    """Reads the head, the rows by their images' names, and the confusion matrices, (N, C, C)."""
    rows = list(read_csv(file))
    if not rows:
        raise ValueError("it is empty")
    head = rows.pop(0)
    cells = [f"{truth}>{pred}" for truth, pred in itertools.product(classes, classes)]
    first = len(head) - len(cells)
    if first < 1 or head[0] != "name" or head[first:] != cells:
        raise ValueError("its columns aren't those of the classes in the summary")
    if not rows or any(len(row) != len(head) for row in rows):
        raise ValueError("it is cut short")
    rows.sort()
    names = np.array([row[0] for row in rows])
    if (names[1:] == names[:-1]).any():
        raise ValueError("it names an image twice")
    pixels = itertools.chain.from_iterable(row[first:] for row in rows)
    numbers = np.fromiter(map(int, pixels), dtype=np.int64)
    if numbers.min() < 0 or numbers.max() > 2**40:
        raise ValueError("it holds numbers that are no pixel counts")
    return head, rows, numbers.reshape(-1, len(classes), len(classes))


def parts_of_images(confusion: Ints) -> Ints:
    """Sums confusion matrices, (N, C, C): rightly predicted, of the truth, predicted, (N, 3, C)."""
    hit = np.diagonal(confusion, axis1=1, axis2=2)
    parts: Ints = np.stack([hit, confusion.sum(2), confusion.sum(1)], axis=1)
    return parts
