"""The cross-entropy of the worst pixels."""

import math

import pytest
import torch

from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.loss.top_k import TopKLoss


def test_only_the_worst_pixels_count() -> None:
    """Of ten pixels, two are half of a class, one is ignored, and the others are nearly right."""
    probs = torch.full((1, 2, 1, 10), 0.01)
    probs[:, 0] = 0.99
    probs[0, :, 0, 3] = torch.tensor([0.5, 0.5])
    probs[0, :, 0, 7] = torch.tensor([0.25, 0.75])
    probs[0, :, 0, 9] = torch.tensor([1e-6, 1.0])
    target = torch.zeros(1, 1, 10, dtype=torch.int64)
    target[..., 9] = 255
    expected = (math.log(2) + math.log(4)) / 2
    found = TopKLoss(num_classes=2, share=0.22)(probs.log(), target)
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_gradient_of_the_others_is_zero() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    TopKLoss(num_classes=3, share=0.1)(logits, torch.zeros(2, 4, 5).long()).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).sum() == 4


def test_all_pixels_make_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 3, (2, 4, 5), generator=generator)
    target[0, 0] = 255
    weights = [1.0, 2.0, 0.5]
    found = TopKLoss(num_classes=3, share=1.0, class_weights=weights)(logits, target)
    expected = CrossEntropyLoss(num_classes=3, class_weights=weights)(logits, target)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"loss\.share is .*in \(0, 1\]"):
        TopKLoss(num_classes=3, share=share)
