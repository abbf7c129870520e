"""Boundary IoU and F, against the definitions and values worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from segpets.evaluate.boundary import BoundaryCounts, boundary_counts, widths_in_pixels

Mask = NDArray[np.bool_]


def square(left: int, top: int = 5, side: int = 10, size: int = 20) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def eroded(mask: Mask) -> Mask:
    """Erosion by 3x3 where everything outside the image is no part of the mask."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.logical_and.reduce(shifts)


def near_contour(mask: Mask, width: int) -> Mask:
    """Cheng et al. 2021: what so many erosions take away."""
    inner = mask
    for _ in range(width):
        inner = eroded(inner)
    return mask & ~inner


def outline(mask: Mask) -> NDArray[np.int64]:
    """Places of a mask's pixels that have a neighbour of another class in the image, (N, 2)."""
    inner = eroded(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    return np.argwhere(mask & ~inner)


def within(places: NDArray[np.int64], others: NDArray[np.int64], width: int) -> int:
    if not len(others):
        return 0
    distances = np.linalg.norm(places[:, None] - others[None], axis=2)
    return int((distances.min(1, initial=np.inf) <= width).sum())


def random_pair(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blobs of three classes, and ignored pixels in the truth."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(5, 30, 2)
    coarse = generator.integers(0, 3, (2, -(-height // 4), -(-width // 4)))
    truth, preds = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.uint8)
    truth[generator.random(truth.shape) < 0.05] = 255
    return truth, preds


@pytest.mark.parametrize("seed", range(8))
def test_counts_are_those_of_the_definitions(seed: int) -> None:
    truth, preds = random_pair(seed)
    widths = [1, 2, 5]
    counts = boundary_counts(truth, preds, num_classes=3, widths=widths)
    known = truth != 255
    for k in range(3):
        true, predicted = truth == k, (preds == k) & known
        contours = outline(true), outline(predicted)
        assert (counts.true[k], counts.predicted[k]) == tuple(map(len, contours))
        for column, width in enumerate(widths):
            near = near_contour(true, width), near_contour(predicted, width)
            assert counts.intersection[k, column] == (near[0] & near[1]).sum()
            assert counts.union[k, column] == (near[0] | near[1]).sum()
            assert counts.found[k, column] == within(contours[0], contours[1], width)
            assert counts.right[k, column] == within(contours[1], contours[0], width)


def test_a_square_that_is_one_pixel_off_shares_a_third_of_its_ring() -> None:
    # Rings of 36 pixels; they share 9 of the upper and 9 of the lower side: 18 / 54.
    counts = boundary_counts(square(5), square(6), num_classes=2, widths=[1])
    assert (counts.intersection[1, 0], counts.union[1, 0]) == (18, 54)
    assert counts.iou()[1, 0] == pytest.approx(1 / 3)
    assert counts.f()[1, 0] == 1.0  # each pixel of the contour has one of the other beside it


def test_f_counts_what_is_within_the_width() -> None:
    # 4 off: of each ring, the upper and lower sides meet in 6 places; within 3 pixels come
    # 3 more at each end, so 9 of 10, and of the sides at x = 5 and x = 14 (8 each) none.
    counts = boundary_counts(square(5), square(9), num_classes=2, widths=[3])
    upper_and_lower = 2 * 9
    # The true side x = 14 crosses the other square: its ends are within 3 of that one's rows.
    side = 2 * 3
    assert counts.found[1, 0] == upper_and_lower + side
    assert counts.f()[1, 0] == pytest.approx((18 + 6) / 36)


def test_the_edge_of_the_image_is_a_contour_for_iou_but_not_for_f() -> None:
    full = np.ones((6, 6), dtype=np.uint8)
    counts = boundary_counts(full, full, num_classes=2, widths=[1])
    assert counts.union[1, 0] == 20
    assert counts.iou()[1, 0] == 1.0
    assert counts.true[1] == 0
    assert np.isnan(counts.f()[1, 0])


def test_a_perfect_prediction_scores_one_and_absent_classes_nothing() -> None:
    counts = boundary_counts(square(5), square(5), num_classes=3, widths=[1, 4])
    for scores in (counts.iou(), counts.f()):
        assert (scores[:2] == 1).all()
        assert np.isnan(scores[2]).all()


def test_what_is_predicted_of_ignored_pixels_changes_nothing() -> None:
    truth, preds = square(5), square(7)
    truth[4:9, 3:8] = 255
    others = preds.copy()
    others[truth == 255] = np.random.default_rng(0).integers(0, 2, 25)
    assert not np.array_equal(preds, others)
    first, second = (boundary_counts(truth, p, num_classes=2, widths=[2]) for p in (preds, others))
    for name in vars(first):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    perfect = boundary_counts(truth, np.where(truth == 255, 0, truth), num_classes=2, widths=[2])
    assert (perfect.iou() == 1).all()


def test_a_class_that_is_never_predicted_scores_zero() -> None:
    counts = boundary_counts(square(5), np.zeros_like(square(5)), num_classes=2, widths=[1])
    assert counts.iou()[1, 0] == 0
    assert counts.f()[1, 0] == 0


def test_sums_are_divided_last() -> None:
    pairs = [(square(5), square(6)), (square(2), square(2))]
    first, second = (boundary_counts(*pair, num_classes=2, widths=[1]) for pair in pairs)
    both = BoundaryCounts.zeros(2, 1) + first + second
    assert both.iou()[1, 0] == pytest.approx((18 + 36) / (54 + 36))


def test_widths_are_parts_of_the_diagonal_and_at_least_a_pixel() -> None:
    assert widths_in_pixels([0.001, 0.02, 0.05], (300, 400)) == [1, 10, 25]
    assert widths_in_pixels([0.02], (128, 128)) == [4]
