"""Scores of predicting one class everywhere: accuracy says little of rare classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segpets.metric import scores, summarise


@dataclass(frozen=True)
class Constant:
    """A way of predicting, and its scores.

    Attributes:
        prediction: `the model`, or the class that is predicted everywhere.
        pixel_accuracy: The part of the pixels that is right.
        mean_iou: The mean IoU of the classes that truth or prediction has.
        rare_iou: The IoU of the rarest class.
    """

    prediction: str
    pixel_accuracy: float
    mean_iou: float
    rare_iou: float


@dataclass(frozen=True)
class Against:
    """A class against all others, where never predicting it is often right.

    Attributes:
        name: The class.
        share: Its part of the pixels.
        never_accuracy: The part of the pixels that is right if it is never predicted; its IoU is 0.
        accuracy: The part of the pixels that the model rightly takes for it or for another class.
        iou: The model's IoU.
    """

    name: str
    share: float
    never_accuracy: float
    accuracy: float
    iou: float


def constants(confusion: Tensor, classes: Sequence[str]) -> tuple[str, list[Constant]]:
    """Scores the model and each constant prediction.

    Args:
        confusion: The model's, int64 (K, K), truth in rows, with at least one pixel.
        classes: The K names.

    Returns:
        The rarest class that the truth has, and the model, followed by each class.
    """
    true = confusion.sum(1)
    rare = classes[int(torch.where(true > 0, true, true.max() + 1).argmin())]
    scores = []
    for index, name in enumerate(["the model", *classes]):
        counts = confusion
        if index:
            counts = torch.zeros_like(confusion)
            counts[:, index - 1] = true
        named = summarise(counts, classes)
        values = (named[key] for key in ("pixel_accuracy", "mean_iou", f"iou/{rare}"))
        scores.append(Constant(name, *values))
    return rare, scores


def against(confusion: Tensor, classes: Sequence[str]) -> list[Against]:
    """Scores each class of the truth against all others; arguments as in `constants`."""
    total = int(confusion.sum())
    iou = scores(confusion)["iou"].tolist()
    rows = []
    for k, name in enumerate(classes):
        true, predicted, hit = (
            int(n) for n in (confusion[k].sum(), confusion[:, k].sum(), confusion[k, k])
        )
        if true:
            wrong = true + predicted - 2 * hit
            share = true / total
            rows.append(Against(name, share, 1 - share, 1 - wrong / total, iou[k]))
    return rows
