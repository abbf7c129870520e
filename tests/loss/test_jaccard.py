"""The IoU between probabilities and a truth that may be in parts."""

import pytest
import torch
from scipy import ndimage

from segpets.loss.base import softened
from segpets.loss.jaccard import JaccardLoss
from segpets.loss.soft_iou import SoftIoULoss


def test_value_worked_by_hand() -> None:
    """Class 1 has 0.5, 0.8 and 0.6, the truth is 0, 1, 1.

    Class 1: sum(p) + sum(q) is 3.9, sum |p - q| is 1.1: (3.9 - 1.1) / (3.9 + 1.1) = 0.56. Class 0:
    1.1 + 1 and 1.1: 1 / 3.2.
    """
    probs = torch.tensor([[0.5, 0.2, 0.4], [0.5, 0.8, 0.6]]).view(1, 2, 1, 3)
    found = JaccardLoss(num_classes=2)(probs.log(), torch.tensor([[[0, 1, 1]]]))
    assert found == pytest.approx(1 - (0.56 + 1 / 3.2) / 2, abs=1e-6)


def test_a_hard_truth_gives_the_soft_iou_of_the_batch() -> None:
    """For q of 0 and 1 both are sum p q / sum (p + q - p q): Z. Wang et al., theorem 3.1."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 6, 7, generator=generator)
    target = torch.randint(0, 3, (1, 6, 7), generator=generator)
    oracle = SoftIoULoss(num_classes=3, per_class=True, log=False, smooth=1e-9)
    torch.testing.assert_close(JaccardLoss(num_classes=3)(logits, target), oracle(logits, target))


def test_the_truth_is_blurred_as_scipy_does_it() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, 3, (1, 30, 40), generator=generator)
    every = torch.ones_like(target, dtype=torch.bool)
    soft = softened(target, every, 3, 1.0)
    assert soft.sum(1).allclose(torch.ones(1, 30, 40), atol=1e-5)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)[0].double().numpy()
    inner = slice(4, -4)
    for index in range(3):
        expected = ndimage.gaussian_filter(one_hot[index], 1.0, radius=3)
        found = soft[0, index].double().numpy()
        assert found[inner, inner] == pytest.approx(expected[inner, inner], abs=1e-5)


def test_ignored_pixels_lend_nothing_and_have_nothing() -> None:
    target = torch.tensor([[[0, 0, 0, 255, 1, 1, 1]]])
    soft = softened(target, target != 255, 2, 0.7)
    assert (soft[..., 3] == 0).all()
    other = target.clone()
    other[..., 3] = 7
    assert torch.equal(softened(other, target != 255, 2, 0.7), soft)
    assert 0.9 < soft[0, 0, 0, 2] < soft[0, 0, 0, 0]


def test_the_least_loss_is_at_the_blurred_truth() -> None:
    target = torch.zeros(1, 1, 12, dtype=torch.int64)
    target[..., 6:] = 1
    soft = softened(target, torch.ones_like(target, dtype=torch.bool), 2, 1.5)
    loss = JaccardLoss(num_classes=2, edge_sigma=1.5)
    hard = softened(target, torch.ones_like(target, dtype=torch.bool), 2, 0)
    assert loss(soft.clamp(min=1e-9).log(), target) == pytest.approx(0, abs=1e-5)
    assert loss(hard.clamp(min=1e-9).log(), target) > 0.1


@pytest.mark.parametrize("sigma", [-1, 11, float("nan")])
def test_a_blur_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"loss\.edge_sigma is .*from 0 to 10"):
        JaccardLoss(num_classes=3, edge_sigma=sigma)
