"""Calibration, being right as often as sure: ECE, reliability, and a temperature.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017,
arXiv 1706.04599: the expected calibration error and temperature scaling. The error of a class, one
against all others: M. Kull et al., "Beyond temperature scaling", NeurIPS 2019, arXiv 1910.12656.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from segpets.hardware import threads
from segpets.labels import IGNORE_INDEX

BINS: Final = 15
COLDEST, HOTTEST = 0.05, 20.0

Floats = NDArray[np.float64]


class Calibration:
    """Sums of a stage's pixels by how sure the model is, in memory that doesn't grow with them.

    The bins are those of torchmetrics: `BINS` of equal width, closed on the left, and one more for
    a probability of exactly 1.

    Args:
        num_classes: K.

    Attributes:
        count: Pixels in each bin, (K + 1, BINS + 1); row k is of class k against all others, and
            the last row of the most probable class.
        confidence: Their summed probabilities.
        hits: The number of them that are of the class.
    """

    def __init__(self, num_classes: int) -> None:
        shape = (num_classes + 1, BINS + 1)
        self.count, self.confidence, self.hits = (np.zeros(shape) for _ in range(3))
        self._log_loss, self._pixels = 0.0, 0
        self._edges = torch.linspace(0, 1, BINS + 1)

    def update(self, scores: Tensor, mask: Tensor) -> None:
        """Adds pixels.

        Args:
            scores: Logits, (B, K, H, W), on the CPU.
            mask: True class ids, (B, H, W), `IGNORE_INDEX` where a pixel doesn't count.
        """
        scores = scores.float()
        valid = mask != IGNORE_INDEX
        truth = mask[valid].long()
        if not len(truth):
            return
        loss = cross_entropy(scores, mask.long(), ignore_index=IGNORE_INDEX, reduction="none")
        self._log_loss += loss.sum(dtype=torch.float64).item()
        self._pixels += len(truth)
        probs = scores.softmax(dim=1).movedim(1, 0)[:, valid]  # (K, N)
        for k, sure in enumerate(probs):
            self._add(k, sure, truth == k)
        most, preds = probs.max(dim=0)
        self._add(-1, most, preds == truth)

    def _add(self, row: int, sure: Tensor, hit: Tensor) -> None:
        place = torch.bucketize(sure, self._edges, right=True) - 1
        size = BINS + 1
        missed, met = torch.bincount(place + size * hit, minlength=2 * size).view(2, size).numpy()
        self.count[row] += missed + met
        self.hits[row] += met
        self.confidence[row] += torch.bincount(place, sure.double(), minlength=size).numpy()

    @property
    def nll(self) -> float:
        """The mean negative log-likelihood of the true classes; NaN without a pixel."""
        return self._log_loss / self._pixels if self._pixels else math.nan

    def errors(self) -> Floats:
        """Computes the calibration error of each class and, last, of the most probable one.

        Returns:
            (K + 1,); NaN without a pixel.
        """
        if not self._pixels:
            return np.full(len(self.count), np.nan)
        error: Floats = np.abs(self.hits - self.confidence).sum(1) / self._pixels
        return error

    def reliability(self, row: int = -1) -> list[tuple[float, float, int]]:
        """Computes a reliability diagram of the bins that have pixels, the least sure first.

        Args:
            row: A class id, or -1 for the most probable class.

        Returns:
            Mean probability, the part of pixels that are of the class, and the number of pixels.
        """
        joined = []
        for sums in (self.confidence, self.hits, self.count):
            of_row = sums[row].copy()
            of_row[-2] += of_row[-1]
            joined.append(of_row[:-1])
        bins = np.flatnonzero(joined[2])
        return [
            (float(sure / n), float(hits / n), int(n))
            for sure, hits, n in zip(*(sums[bins] for sums in joined), strict=True)
        ]


@dataclass(frozen=True)
class PixelSample:
    """Some pixels of a split, on which a temperature is fitted.

    Attributes:
        logits: The model's, (N, C).
        truth: Class ids of the truth, (N,).
        image: The index of each pixel's image, (N,).
    """

    logits: Tensor
    truth: Tensor
    image: Tensor

    def of_images(self, remainder: int) -> "PixelSample":
        """Selects the pixels of every other image: the even ones for 0, the odd ones for 1."""
        kept = self.image % 2 == remainder
        return PixelSample(self.logits[kept], self.truth[kept], self.image[kept])


def fit_temperature(sample: PixelSample, scores: Callable[[Tensor], Tensor]) -> float | None:
    """Fits the temperature by which logits are divided, so that the log-likelihood is largest.

    It can't change which class is the most probable.

    Args:
        sample: Pixels of the split on which it is fitted.
        scores: Maps logits of the model, (B, C, 1, 1), to those of the truth's classes.

    Returns:
        Between `COLDEST` and `HOTTEST`; None without a pixel.
    """
    if not len(sample.truth):
        return None
    logits = sample.logits[:, :, None, None]

    def loss(logarithm: float) -> float:
        scaled = scores(logits / math.exp(logarithm))[:, :, 0, 0]
        losses = cross_entropy(scaled, sample.truth, reduction="none")
        return float(losses.mean(dtype=torch.float64).item())

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    with threads(1):
        minimum = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return math.exp(minimum.x)
