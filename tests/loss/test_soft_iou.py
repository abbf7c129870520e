import math

import numpy as np
import pytest
import torch
from torch import Tensor

from segpets.loss.soft_iou import SoftIoULoss


def two_by_two() -> tuple[Tensor, Tensor]:
    """Class 1 has the probabilities 1/2, 3/4, 3/4 and 9/10, the truth is 0, 0, 1 and ignored.

    class 0: intersection 1/2 + 1/4 = 3/4, sum(p) = 1, sum(t) = 2, union 9/4
    class 1: intersection 3/4,             sum(p) = 2, sum(t) = 1, union 9/4
    """
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, 3.0], [3.0, 9.0]]).log()
    return logits, torch.tensor([[[0, 0], [1, 255]]])


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(3, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    """Image 0 lacks class 2, image 1 has ignored pixels."""
    target = torch.randint(0, 3, (3, 5, 4), generator=torch.Generator().manual_seed(1))
    target[0][target[0] == 2] = 1
    target[1, 0] = 255
    return target


def mean_iou_by_loops(
    logits: Tensor, target: Tensor, weights: list[float], per_class: bool, smooth: float = 0.001
) -> float:
    """Pixel by pixel, in float64."""
    powers = np.exp(logits.double().numpy())
    ious = []
    for image, truth in zip(powers, target.numpy(), strict=True):
        intersection, union, pixels = np.zeros(3), np.zeros(3), np.zeros(3)
        for row in range(truth.shape[0]):
            for column in range(truth.shape[1]):
                if truth[row, column] == 255:
                    continue
                for c in range(3):
                    p = image[c, row, column] / image[:, row, column].sum()
                    t = float(truth[row, column] == c)
                    intersection[c] += p * t
                    union[c] += p + t - p * t
                    pixels[c] += t
        if per_class:
            present = [c for c in range(3) if pixels[c]]
            total = sum(weights[c] for c in present)
            terms = [weights[c] * (intersection[c] + smooth) / (union[c] + smooth) for c in present]
            ious.append(sum(terms) / total)
        else:
            ious.append((intersection @ weights + smooth) / (union @ weights + smooth))
    return float(np.mean(ious))


def test_value_worked_by_hand() -> None:
    iou = (3 / 4 + 3 / 4 + 0.001) / (9 / 4 + 9 / 4 + 0.001)
    assert SoftIoULoss(num_classes=2)(*two_by_two()) == pytest.approx(-math.log(iou))
    assert SoftIoULoss(num_classes=2, log=False)(*two_by_two()) == pytest.approx(1 - iou)


def test_pooled_and_per_class_differ_as_worked_by_hand() -> None:
    """One pixel of class 0 with p = 1/2 and one of class 1 with p = 1: 3/2 in 5/2 all together."""
    logits = torch.tensor([[[[0.0, -50.0]], [[0.0, 50.0]]]])
    target = torch.tensor([[[0, 1]]])
    pooled = SoftIoULoss(num_classes=2, log=False, smooth=1e-9)
    per_class = SoftIoULoss(num_classes=2, log=False, smooth=1e-9, per_class=True)
    assert pooled(logits, target) == pytest.approx(1 - (1 / 2 + 1) / (1 + 3 / 2))
    assert per_class(logits, target) == pytest.approx(1 - (1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("class_weights", [[1.0, 1.0, 1.0], [0.5, 1.0, 4.0]])
def test_agrees_with_loops(
    logits: Tensor, target: Tensor, class_weights: list[float], log: bool, per_class: bool
) -> None:
    loss = SoftIoULoss(num_classes=3, class_weights=class_weights, log=log, per_class=per_class)
    mean = mean_iou_by_loops(logits, target, class_weights, per_class)
    assert loss(logits, target) == pytest.approx(-math.log(mean) if log else 1 - mean, rel=1e-5)


def test_defaults_are_the_pooled_iou_per_image_in_a_logarithm(
    logits: Tensor, target: Tensor
) -> None:
    mean = mean_iou_by_loops(logits, target, [1.0, 1.0, 1.0], per_class=False)
    assert SoftIoULoss(num_classes=3)(logits, target) == pytest.approx(-math.log(mean), rel=1e-5)


def test_image_without_pixels_of_a_weighted_class_is_left_out_per_class() -> None:
    loss = SoftIoULoss(num_classes=3, class_weights=[0, 0, 1], per_class=True)
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 4, 4, dtype=torch.int64)
    assert loss(logits, target) == 0
    target[1, 0] = 2
    torch.testing.assert_close(loss(logits, target), loss(logits[1:], target[1:]))


def test_smooth_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"loss.smooth is 0; it must be positive"):
        SoftIoULoss(num_classes=3, smooth=0)
