"""Lovász-Softmax, by hand and against another implementation."""

import pytest
import torch
from segmentation_models_pytorch import losses as smp

from segpets.loss.lovasz import LovaszLoss


def test_value_worked_by_hand() -> None:
    """Three pixels of the truth 0, 1, 1, of which class 1 has the probabilities 0.5, 0.8 and 0.6.

    Class 1: errors 0.5 (wrong: F), 0.4 (T), 0.2 (T). J is 1 - 2 / 3 with the first wrong, 1 - 1 / 3
    with two, 1 with three: 0.5 / 3 + 0.4 / 3 + 0.2 / 3. Class 0: errors 0.5 (T), 0.4 (F), 0.2 (F);
    J is 1 at once: 0.5.
    """
    probs = torch.tensor([[0.5, 0.2, 0.4], [0.5, 0.8, 0.6]]).view(1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 1]]])
    loss = LovaszLoss(num_classes=2)
    assert loss(probs.log(), target) == pytest.approx((1.1 / 3 + 0.5) / 2, abs=1e-6)
    weighted = LovaszLoss(num_classes=2, class_weights=[1, 3])
    assert weighted(probs.log(), target) == pytest.approx((0.5 + 3 * 1.1 / 3) / 4, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_agrees_with_segmentation_models_pytorch(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = 2 * torch.randn(3, classes, 8, 9, generator=generator)
    target = torch.randint(0, min(classes, 4), (3, 8, 9), generator=generator)  # 4 is absent
    target[0, :2] = 255
    oracle = smp.LovaszLoss("multiclass", ignore_index=255, from_logits=True)
    found = LovaszLoss(num_classes=classes)(logits, target)
    torch.testing.assert_close(found, oracle(logits, target))


def test_hard_predictions_have_one_minus_their_iou() -> None:
    target = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    predicted = torch.tensor([[[0, 0, 1, 1, 1, 0]]])
    logits = 100 * torch.nn.functional.one_hot(predicted, 2).movedim(-1, 1).float()
    assert LovaszLoss(num_classes=2)(logits, target) == pytest.approx(1 - 2 / 4)
