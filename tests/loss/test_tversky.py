import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch import losses as smp
from torch import Tensor

from segpets.loss.dice import DiceLoss
from segpets.loss.tversky import TverskyLoss


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(0, 3, (2, 5, 4), generator=torch.Generator().manual_seed(1))


def test_value_worked_by_hand() -> None:
    """Class 1 has the probabilities 1/2, 3/4, 3/4 and 9/10, the truth is 0, 0, 1 and ignored.

    class 0: TP 3/4, FP 1/4, FN 5/4        class 1: TP 3/4, FP 5/4, FN 1/4
    """
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, 3.0], [3.0, 9.0]]).log()
    target = torch.tensor([[[0, 0], [1, 255]]])
    class_0 = 0.75 / (0.75 + 0.2 * 0.25 + 0.6 * 1.25)
    class_1 = 0.75 / (0.75 + 0.2 * 1.25 + 0.6 * 0.25)
    loss = TverskyLoss(num_classes=2, alpha=0.2, beta=0.6)
    assert loss(logits, target) == pytest.approx(1 - (class_0 + class_1) / 2)
    weighted = TverskyLoss(num_classes=2, alpha=0.2, beta=0.6, class_weights=[1, 3])
    assert weighted(logits, target) == pytest.approx(1 - (class_0 + 3 * class_1) / 4)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.7), (1.0, 1.0), (2.0, 0.1)])
def test_agrees_with_segmentation_models_pytorch(
    logits: Tensor, target: Tensor, alpha: float, beta: float
) -> None:
    loss = TverskyLoss(num_classes=3, alpha=alpha, beta=beta)
    oracle = smp.TverskyLoss("multiclass", alpha=alpha, beta=beta)
    torch.testing.assert_close(loss(logits, target), oracle(logits, target))


def test_equal_prices_of_one_half_are_dice(logits: Tensor, target: Tensor) -> None:
    target[0, 0] = 255
    weights = [1.0, 2.0, 5.0]
    tversky = TverskyLoss(num_classes=3, class_weights=weights, alpha=0.5, beta=0.5)
    dice = DiceLoss(num_classes=3, class_weights=weights)
    torch.testing.assert_close(tversky(logits, target), dice(logits, target))


def test_beta_above_alpha_charges_more_for_what_is_missed() -> None:
    """Only class 1 weighs; its truth is two of four pixels."""
    target = torch.tensor([[[1, 1], [0, 0]]])
    loss = TverskyLoss(num_classes=2, class_weights=[0, 1], alpha=0.3, beta=0.7)
    one_missed = F.one_hot(torch.tensor([[[1, 0], [0, 0]]]), 2).permute(0, 3, 1, 2)
    one_too_many = F.one_hot(torch.tensor([[[1, 1], [1, 0]]]), 2).permute(0, 3, 1, 2)
    assert loss(40.0 * one_missed, target) == pytest.approx(1 - 1 / (1 + 0.7))
    assert loss(40.0 * one_too_many, target) == pytest.approx(1 - 2 / (2 + 0.3))


def test_prices_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"loss.alpha is 0; give a positive number"):
        TverskyLoss(num_classes=3, alpha=0)
    with pytest.raises(ValueError, match=r"loss.beta is -1; give a positive number"):
        TverskyLoss(num_classes=3, beta=-1)
