from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from segpets.loss.combined import CombinedLoss
from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.loss.dice import DiceLoss
from segpets.loss.focal import FocalLoss
from segpets.loss.soft_iou import SoftIoULoss

BuildLoss = Callable[..., nn.Module]


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target() -> Tensor:
    return torch.randint(0, 3, (2, 5, 4), generator=torch.Generator().manual_seed(1))


def terms() -> dict[str, nn.Module]:
    return {"pixel": CrossEntropyLoss(num_classes=3), "overlap": SoftIoULoss(num_classes=3)}


def test_value_and_gradient_are_the_weighted_sum(logits: Tensor, target: Tensor) -> None:
    pixel, overlap = terms().values()
    loss = CombinedLoss(losses=terms(), weights={"overlap": 0.5, "pixel": 2})
    leaf = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf, target), leaf)
    expected = 2 * pixel(leaf, target) + 0.5 * overlap(leaf, target)
    torch.testing.assert_close(loss(leaf, target), expected)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, leaf)[0])


def test_config_is_cross_entropy_plus_dice(
    build_loss: BuildLoss, logits: Tensor, target: Tensor
) -> None:
    pixel, dice = CrossEntropyLoss(num_classes=3), DiceLoss(num_classes=3)
    expected = pixel(logits, target) + dice(logits, target)
    torch.testing.assert_close(build_loss("combined")(logits, target), expected)


def test_command_line_changes_a_weight_and_swaps_a_loss(
    build_loss: BuildLoss, logits: Tensor, target: Tensor
) -> None:
    loss = build_loss("combined", "loss@loss.losses.overlap=soft_iou", "loss.weights.overlap=0.5")
    pixel, soft_iou = CrossEntropyLoss(num_classes=3), SoftIoULoss(num_classes=3)
    expected = pixel(logits, target) + 0.5 * soft_iou(logits, target)
    torch.testing.assert_close(loss(logits, target), expected)


def test_command_line_adds_a_term(build_loss: BuildLoss, logits: Tensor, target: Tensor) -> None:
    third = ["+loss@loss.losses.third=focal", "+loss.weights.third=0.2"]
    added = build_loss("combined", *third)(logits, target) - build_loss("combined")(logits, target)
    torch.testing.assert_close(added, 0.2 * FocalLoss(num_classes=3)(logits, target))


def test_loss_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.losses.overlap has no weight: set loss.weights"):
        CombinedLoss(losses=terms(), weights={"pixel": 1.0})


def test_weight_without_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.weights.dice has no loss: set loss.losses.dice"):
        CombinedLoss(losses=terms(), weights={"pixel": 1.0, "overlap": 1.0, "dice": 1.0})


@pytest.mark.parametrize("pixel", [-1.0, float("nan"), float("inf"), 0.0])
def test_weights_that_make_no_sum_are_refused(pixel: float) -> None:
    with pytest.raises(ValueError, match="finite numbers >= 0, at least one of them positive"):
        CombinedLoss(losses=terms(), weights={"pixel": pixel, "overlap": 0.0})
