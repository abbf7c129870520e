"""The quality of outlines: boundary IoU and boundary F.

B. Cheng, R. Girshick, P. Dollár, A. C. Berg, A. Kirillov, "Boundary IoU: Improving Object-Centric
Image Segmentation Evaluation", CVPR 2021, arXiv 2103.16562: the IoU of the pixels of a class that
lie within d pixels of its contour, in truth and prediction. As in the authors' code, these are the
pixels that d erosions by 3x3 take away, the image's edge being a contour, too.

G. Csurka, D. Larlus, F. Perronnin, "What is a good evaluation measure for semantic segmentation?",
BMVC 2013, and F. Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016: precision is the part of the predicted contour that has true contour
within d pixels, recall the part of the true contour that has predicted contour within d pixels,
and F their harmonic mean. Here the image's edge is no contour, since nobody could miss it.

Pixels of unknown class belong to no class in the truth or in the prediction: what is predicted
there has no influence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segpets.labels import IGNORE_INDEX

Ids = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SQUARE = np.ones((3, 3), dtype=np.uint8)
_EXACT = 1e-3  # between the root of d*d and that of d*d + 1, for all d below 500


def widths_in_pixels(parts: Sequence[float], size: tuple[int, int]) -> list[int]:
    """Converts parts of an image's diagonal to pixels, at least 1, rounded as by Cheng et al."""
    diagonal = float(np.hypot(*size))
    return [max(1, round(part * diagonal)) for part in parts]


@dataclass(frozen=True)
class BoundaryCounts:
    """Pixels near contours, by K classes and W widths, of one image or summed over several.

    Attributes:
        intersection: Near the contour of the class in truth and prediction, (K, W).
        union: Near it in truth or prediction, (K, W).
        true: Of the true contour, (K,).
        predicted: Of the predicted contour, (K,).
        found: Of the true contour, with predicted contour within the width, (K, W).
        right: Of the predicted contour, with true contour within the width, (K, W).
    """

    intersection: Ints
    union: Ints
    true: Ints
    predicted: Ints
    found: Ints
    right: Ints

    @staticmethod
    def zeros(classes: int, widths: int) -> "BoundaryCounts":
        """Makes counts that are all zero."""
        pairs = [np.zeros((classes, widths), dtype=np.int64) for _ in range(4)]
        singles = [np.zeros(classes, dtype=np.int64) for _ in range(2)]
        return BoundaryCounts(pairs[0], pairs[1], singles[0], singles[1], pairs[2], pairs[3])

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(
            self.intersection + other.intersection,
            self.union + other.union,
            self.true + other.true,
            self.predicted + other.predicted,
            self.found + other.found,
            self.right + other.right,
        )

    def iou(self) -> Floats:
        """Computes boundary IoU, (K, W); NaN for a class that neither truth nor prediction has."""
        return _ratio(self.intersection, self.union)

    def f(self) -> Floats:
        """Computes boundary F, (K, W); NaN for a class without contour in truth and prediction."""
        recall = _ratio(self.found, self.true[:, None])
        precision = _ratio(self.right, self.predicted[:, None])
        either = (self.true + self.predicted > 0)[:, None]
        recall, precision = np.nan_to_num(recall), np.nan_to_num(precision)
        both = recall + precision
        score: Floats = np.where(both > 0, 2 * recall * precision / np.where(both > 0, both, 1), 0)
        return np.where(either, score, np.nan)


def boundary_counts(
    truth: Ids, preds: Ids, *, num_classes: int, widths: Sequence[int]
) -> BoundaryCounts:
    """Counts the pixels of one image.

    Args:
        truth: Class ids, (H, W), 255 where no class is known.
        preds: Predicted class ids, (H, W).
        num_classes: K.
        widths: W widths in pixels, at least 1.
    """
    preds = np.where(truth == IGNORE_INDEX, np.uint8(IGNORE_INDEX), preds)
    counts = BoundaryCounts.zeros(num_classes, len(widths))
    present = np.union1d(np.unique(truth), np.unique(preds))
    for k in present[present != IGNORE_INDEX].tolist():
        true, predicted = (truth == k).astype(np.uint8), (preds == k).astype(np.uint8)
        inside_true, inside_predicted = _depth(true), _depth(predicted)
        # Within d of both contours: the larger of both depths is at most d.
        both = np.maximum(inside_true, inside_predicted)[(true & predicted) > 0]
        near_both = _within(both, widths)
        near_true = _within(inside_true[true > 0], widths)
        near_predicted = _within(inside_predicted[predicted > 0], widths)
        counts.intersection[k] = near_both
        counts.union[k] = near_true + near_predicted - near_both
        outline, drawn = _contour(true), _contour(predicted)
        counts.true[k], counts.predicted[k] = np.count_nonzero(outline), np.count_nonzero(drawn)
        counts.found[k] = _near(outline, drawn, widths)
        counts.right[k] = _near(drawn, outline, widths)
    return counts


def _depth(mask: Ids) -> NDArray[np.float32]:
    """Counts the 3x3 erosions that each pixel takes to vanish, (H, W): its chessboard distance."""
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1], np.float32)


def _contour(mask: Ids) -> Ids:
    return np.asarray(mask - cv2.erode(mask, _SQUARE), np.uint8)


def _near(contour: Ids, other: Ids, widths: Sequence[int]) -> Ints:
    if not contour.any() or not other.any():
        return np.zeros(len(widths), dtype=np.int64)
    distance = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return _within(np.asarray(distance[contour > 0], np.float32), widths)


def _within(distances: NDArray[np.float32], widths: Sequence[int]) -> Ints:
    counted: Ints = (distances[:, None] <= np.asarray(widths) + _EXACT).sum(0, dtype=np.int64)
    return counted


def _ratio(part: Ints, whole: Ints) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    ratio: Floats = np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
    return ratio
