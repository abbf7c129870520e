import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.loss.focal import FocalLoss


@pytest.fixture
def target() -> Tensor:
    target = torch.randint(0, 3, (2, 5, 4), generator=torch.Generator().manual_seed(1))
    target[0, 0] = 255
    return target


def test_value_worked_by_hand() -> None:
    """Class 1 has the probabilities 1/2, 3/4, 3/4 and 9/10, the truth is 0, 0, 1 and ignored."""
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, 3.0], [3.0, 9.0]]).log()
    target = torch.tensor([[[0, 0], [1, 255]]])
    terms = [(1 / 4) * math.log(2), (9 / 16) * math.log(4), (1 / 16) * math.log(4 / 3)]
    assert FocalLoss(num_classes=2)(logits, target) == pytest.approx(sum(terms) / 3)
    weighted = FocalLoss(num_classes=2, class_weights=[1, 3])
    assert weighted(logits, target) == pytest.approx((terms[0] + terms[1] + 3 * terms[2]) / 5)


@pytest.mark.parametrize("class_weights", [None, [0.5, 1.0, 3.0]])
def test_gamma_zero_is_cross_entropy(target: Tensor, class_weights: list[float] | None) -> None:
    logits = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    focal = FocalLoss(num_classes=3, class_weights=class_weights, gamma=0)
    cross_entropy = CrossEntropyLoss(num_classes=3, class_weights=class_weights)
    torch.testing.assert_close(focal(logits, target), cross_entropy(logits, target))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_two_classes_agree_with_torchvision(gamma: float) -> None:
    """The softmax of (0, x) is the sigmoid of x; alpha weighs class 1, 1 - alpha class 0."""
    x = 3 * torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 2, (2, 5, 4), generator=torch.Generator().manual_seed(1))
    alpha = 0.25
    total = sigmoid_focal_loss(x, target.float(), alpha=alpha, gamma=gamma, reduction="sum")
    expected = total / torch.where(target == 1, alpha, 1 - alpha).sum()
    loss = FocalLoss(num_classes=2, class_weights=[1 - alpha, alpha], gamma=gamma)
    logits = torch.stack([torch.zeros_like(x), x], dim=1)
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_gradient_of_certain_pixels_is_finite(target: Tensor, gamma: float) -> None:
    """At p = 1 the slope of (1 - p) ** gamma is infinite for gamma < 1."""
    logits = torch.tensor([1e4, 0.0, 20.0]).view(1, 3, 1, 1).repeat(2, 1, 5, 4).requires_grad_()
    FocalLoss(num_classes=3, gamma=gamma)(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.gamma is -1; give a number >= 0"):
        FocalLoss(num_classes=3, gamma=-1)
