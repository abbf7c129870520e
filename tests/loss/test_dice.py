import pytest
import torch
from segmentation_models_pytorch import losses as smp
from torch import Tensor

from segpets.loss.dice import DiceLoss


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(0, 3, (2, 5, 4), generator=torch.Generator().manual_seed(1))


def test_value_worked_by_hand() -> None:
    """Class 1 has the probabilities 1/2, 3/4, 3/4 and 9/10, the truth is 0, 0, 1 and ignored.

    class 0: overlap 1/2 + 1/4 = 3/4, sum(p) = 1, sum(t) = 2, Dice 1/2
    class 1: overlap 3/4,             sum(p) = 2, sum(t) = 1, Dice 1/2
    """
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, 3.0], [3.0, 9.0]]).log()
    assert DiceLoss(num_classes=2)(logits, torch.tensor([[[0, 0], [1, 255]]])) == pytest.approx(0.5)


def test_weighted_mean_worked_by_hand() -> None:
    """One pixel of class 0 with p = 1/2, one of class 1 with p = 1: Dice 2/3 and 4/5."""
    loss = DiceLoss(num_classes=2, class_weights=[1, 3])
    logits = torch.tensor([[[[0.0, -50.0]], [[0.0, 50.0]]]])
    assert loss(logits, torch.tensor([[[0, 1]]])) == pytest.approx((1 * 1 / 3 + 3 * 1 / 5) / 4)


def test_agrees_with_segmentation_models_pytorch(logits: Tensor, target: Tensor) -> None:
    oracle = smp.DiceLoss("multiclass")
    torch.testing.assert_close(DiceLoss(num_classes=3)(logits, target), oracle(logits, target))


def test_pixels_are_pooled_over_the_batch(logits: Tensor, target: Tensor) -> None:
    loss = DiceLoss(num_classes=3)
    side_by_side = torch.cat([*logits], dim=2)[None], torch.cat([*target], dim=1)[None]
    torch.testing.assert_close(loss(logits, target), loss(*side_by_side))


def test_absent_class_is_left_out_of_the_mean(logits: Tensor, target: Tensor) -> None:
    target = target.clamp_max(1)
    loss = DiceLoss(num_classes=3, class_weights=[1, 3, 1])
    without = DiceLoss(num_classes=3, class_weights=[1, 3, 0])
    assert loss(logits, target) == without(logits, target)
