"""Counts over a stage's images, made in one pass and without keeping their logits."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segpets.data.geometry import Geometry
from segpets.evaluate.boundary import BoundaryCounts, boundary_counts, widths_in_pixels
from segpets.evaluate.calibration import Calibration
from segpets.evaluate.classes import Merge
from segpets.hardware import threads
from segpets.inference.logits import enlarged
from segpets.metric import SegmentationMetrics, confusion_matrices, scores, soft_iou
from segpets.stats import parts_of

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """One image, judged.

    Attributes:
        preds: Predicted class ids, uint8 (H, W) of the truth.
        confusion: Pixels by truth (rows) and prediction, int64 (K, K).
        boundary: Its pixels near contours, at the widths of the tally.
        uncertainty: Entropy of the probabilities, from 0 to 1 of what it can be, float32 (h, w) of
            the logits.
    """

    preds: Tensor
    confusion: Tensor
    boundary: BoundaryCounts
    uncertainty: Tensor

    @property
    def parts(self) -> Ints:
        """Pixels rightly predicted, of the truth, and predicted, of each class, (3, K)."""
        return parts_of(self.confusion.numpy())

    def iou(self) -> list[float | None]:
        """Computes the IoU of each class; None for one that neither truth nor prediction has."""
        return _listed(scores(self.confusion)["iou"].tolist())

    def mean_iou(self) -> float | None:
        """Computes the mean IoU of the classes in truth or prediction; None without a pixel."""
        known = [value for value in self.iou() if value is not None]
        return sum(known) / len(known) if known else None

    def pixel_accuracy(self) -> float | None:
        """Computes the part of the pixels that is right; None without a pixel."""
        hit, true, _ = self.parts.sum(1).tolist()
        return hit / true if true else None


class Tally:
    """The sums of a stage, for one way of predicting.

    Args:
        merge: The classes under which predictions are judged.
        widths: Widths of the boundary, as parts of an image's diagonal.
        resized: Whether the logits are resized to each truth's own size; else they have it.

    Attributes:
        parts: Of each image, pixels rightly predicted, of the truth, and predicted, (3, K).
    """

    def __init__(self, merge: Merge, *, widths: Sequence[float], resized: bool) -> None:
        self._merge, self._widths, self._resized = merge, widths, resized
        count = len(merge.classes)
        self.metrics = SegmentationMetrics(classes=merge.classes)
        self.calibration = Calibration(count)
        self.scaled = Calibration(count)
        self.boundary = BoundaryCounts.zeros(count, len(widths))
        self.parts: list[Ints] = []

    def add(
        self,
        logits: Tensor,
        truths: Sequence[Tensor],
        temperatures: Sequence[float | None],
        places: Sequence[Geometry],
    ) -> list[Judged]:
        """Adds a batch.

        Args:
            logits: The model's, float32 (B, C, h, w), on the CPU.
            truths: True class ids of each image, uint8 (H, W).
            temperatures: By which each image's logits are divided for `scaled`; None leaves it
                out there.
            places: Where each picture lies in what the model saw.
        """
        with threads(1):  # threads that wait for each other only slow down such small steps
            return self._add(logits, truths, temperatures, places)

    def _add(
        self,
        logits: Tensor,
        truths: Sequence[Tensor],
        temperatures: Sequence[float | None],
        places: Sequence[Geometry],
    ) -> list[Judged]:
        count = len(self._merge.classes)
        preds = [torch.empty(truth.shape, dtype=torch.uint8) for truth in truths]
        confusion = torch.zeros(len(truths), count, count, dtype=torch.int64)
        for images, top, part, mask in self._chunks(logits, truths, places):
            ids = self._merge.ids(part)
            confusion[images] += confusion_matrices(ids, mask, count)
            for index, image_ids in zip(range(images.start, images.stop), ids, strict=True):
                preds[index][top : top + image_ids.shape[0]] = image_ids
            self.calibration.update(self._merge.scores(part), mask)
            self._add_scaled(part, mask, temperatures[images])
        whole = self._merge.scores(logits)
        self.metrics.update(confusion, None if self._resized else soft_iou(whole, _stack(truths)))
        judged = []
        for index, truth in enumerate(truths):
            boundary = boundary_counts(
                truth.numpy(),
                preds[index].numpy(),
                num_classes=count,
                widths=widths_in_pixels(self._widths, (truth.shape[0], truth.shape[1])),
            )
            self.boundary += boundary
            unsure = uncertainty(whole[index])
            judged.append(Judged(preds[index], confusion[index], boundary, unsure))
            self.parts.append(judged[-1].parts)
        return judged

    def _chunks(
        self, logits: Tensor, truths: Sequence[Tensor], places: Sequence[Geometry]
    ) -> Iterator[tuple[slice, int, Tensor, Tensor]]:
        if not self._resized:
            yield slice(0, len(truths)), 0, logits, _stack(truths)
            return
        for index, truth in enumerate(truths):
            inside = places[index].inside(logits[index])
            for top, strip in enlarged(inside, (truth.shape[0], truth.shape[1])):
                rows = truth[top : top + strip.shape[1]]
                yield slice(index, index + 1), top, strip[None], rows[None]

    def _add_scaled(
        self, logits: Tensor, mask: Tensor, temperatures: Sequence[float | None]
    ) -> None:
        known = [i for i, temperature in enumerate(temperatures) if temperature is not None]
        if known:
            divisors = torch.tensor([temperatures[i] for i in known]).view(-1, 1, 1, 1)
            self.scaled.update(self._merge.scores(logits[known] / divisors), mask[known])


def uncertainty(logits: Tensor) -> Tensor:
    """Computes the entropy of one image's probabilities, as a part of the largest possible.

    Args:
        logits: (K, h, w).

    Returns:
        float32 (h, w), from 0, sure, to 1, all classes as probable.
    """
    log_probs = logits.float().log_softmax(dim=0)
    entropy = -(log_probs.exp() * log_probs).sum(dim=0)
    return (entropy / math.log(max(len(logits), 2))).clamp(0, 1)


def _stack(truths: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(truths))


def _listed(values: list[Any]) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
