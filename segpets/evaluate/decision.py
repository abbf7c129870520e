"""Decision weights: fitted on val, by coordinate ascent on the mean IoU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segpets.evaluate.calibration import PixelSample
from segpets.evaluate.classes import Merge
from segpets.evaluate.slices import LEAST, Interval
from segpets.hardware import threads
from segpets.inference.decision import as_bias
from segpets.metric import confusion_matrices, scores
from segpets.stats import bootstrap_of_sums, iou, mean_over_classes

_STEPS = (0.4, 0.2, 0.1, 0.05, 0.02)  # in logits
_ROUNDS = 20
_FURTHEST = 3.0  # a weight is at most 20 times another


@dataclass(frozen=True)
class Decision:
    """Weights of the model's classes.

    Attributes:
        weights: Those of all pixels that they were fitted to, or that were given; the least is 1.
        used: Those for images with an even index, and with an odd one.
        words: What they were fitted on.
        halves: True if each half of the judged images was judged by weights of the other half.
    """

    weights: list[float]
    used: tuple[list[float], list[float]]
    words: str
    halves: bool = False

    def shift(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Adds the weights of each image to its logits, (B, C, H, W)."""
        biases = [as_bias(self.used[row % 2]) for row in rows]
        return logits + torch.stack(biases)[:, :, None, None]


def fit_weights(sample: PixelSample, merged: Merge) -> list[float]:
    """Fits a weight of each class, so that the mean IoU of the sampled pixels is largest.

    Of a class that their truth lacks, these pixels can only say that it is never right. So the
    others are weighed against each other as if it weren't there, and it gets their mean weight.

    Args:
        sample: Pixels of the images on which they are fitted.
        merged: The classes under which the model is judged.

    Returns:
        The weights of the model's C classes, the least of them 1; ones without a pixel.
    """
    classes = sample.logits.shape[1]
    lacking = set(absent(sample, merged))
    there = [
        index
        for name, group in zip(merged.classes, merged.groups, strict=True)
        for index in (() if name in lacking else group)
    ]
    truth = sample.truth.to(torch.uint8)[None, :, None]  # (1, N, 1)
    logits = torch.full((1, classes, len(sample.truth), 1), -torch.inf)
    logits[0, there, :, 0] = sample.logits.T[there].float()

    def mean_iou(shift: Tensor) -> float:
        ids = merged.ids(logits + shift.view(1, -1, 1, 1))
        counts = confusion_matrices(ids, truth, len(merged.classes))[0]
        return float(scores(counts)["iou"].nanmean())

    bias = torch.zeros(classes)
    with threads(1):
        best = mean_iou(bias) if there else 0.0
        for step in _STEPS:
            for _ in range(_ROUNDS):
                before = best
                for tried in _neighbours(bias, step, there):
                    if (value := mean_iou(tried)) > best:
                        best, bias = value, tried
                if best == before:
                    break
    bias[there] -= bias[there].mean()
    return [round(weight, 3) for weight in (bias - bias.min()).exp().tolist()]


def absent(sample: PixelSample, merged: Merge) -> list[str]:
    """Lists the classes that no sampled pixel is of."""
    found = set(sample.truth.tolist())
    return [name for index, name in enumerate(merged.classes) if index not in found]


def _neighbours(bias: Tensor, step: float, chosen: Sequence[int]) -> Iterator[Tensor]:
    for index in chosen:
        for sign in (1, -1):
            tried = bias.clone()
            tried[index] += sign * step
            if tried.max() - tried.min() <= _FURTHEST:
                yield tried


def gain(
    before: NDArray[np.int64], after: NDArray[np.int64], *, resamples: int, seed: int
) -> Interval:
    """Computes how much the mean IoU of the same images gains, with its interval over them.

    The mean is over the classes of their truth. One that is only predicted would count in the mean
    of that prediction alone, and the others would seem to gain by it. A draw that lacks one of them
    says nothing of it.

    Args:
        before: Pixels rightly predicted, of the truth, and predicted, of each image, (N, 3, K); or
            those of M predictions, (M, N, 3, K), whose mean IoUs are averaged.
        after: The same of other predictions.
        resamples: How often images are drawn.
        seed: Of the draws.
    """
    several = before.reshape(-1, *after.shape)
    parts = np.stack([*several, after], axis=1).astype(np.float64)  # (N, M + 1, 3, K)
    there = after[:, 1].sum(0) > 0

    def statistic(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = sums.reshape(-1, *parts.shape[1:])  # (R, M + 1, 3, K)
        in_truth = np.where(sums[:, :, 1] > 0, iou(sums), np.nan)
        mean = mean_over_classes(in_truth, of=there)  # (R, M + 1)
        gained: NDArray[np.float64] = mean[:, -1:] - mean[:, :-1].mean(1, keepdims=True)
        return gained

    flat = parts.reshape(len(parts), -1)
    value = statistic(flat.sum(0, keepdims=True))[0, 0]
    low, high = bootstrap_of_sums(flat, statistic, resamples=resamples, seed=seed, least=LEAST)
    return Interval(float(value), float(low[0]), float(high[0]))
