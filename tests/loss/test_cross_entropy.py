import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segpets.loss.cross_entropy import CrossEntropyLoss


def two_by_two() -> tuple[Tensor, Tensor]:
    """Class 1 has the probabilities 1/2, 3/4, 3/4 and 9/10, the truth is 0, 0, 1 and ignored."""
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1] = torch.tensor([[1.0, 3.0], [3.0, 9.0]]).log()
    return logits, torch.tensor([[[0, 0], [1, 255]]])


def test_value_worked_by_hand() -> None:
    loss = CrossEntropyLoss(num_classes=2)
    expected = (math.log(2) + math.log(4) + math.log(4 / 3)) / 3
    assert loss(*two_by_two()) == pytest.approx(expected)


def test_weighted_mean_worked_by_hand() -> None:
    loss = CrossEntropyLoss(num_classes=2, class_weights=[1, 3])
    expected = (math.log(2) + math.log(4) + 3 * math.log(4 / 3)) / (1 + 1 + 3)
    assert loss(*two_by_two()) == pytest.approx(expected)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", [None, [0.5, 1.0, 3.0]])
def test_agrees_with_torch(class_weights: list[float] | None, label_smoothing: float) -> None:
    logits = torch.randn(3, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    target = torch.randint(0, 3, (3, 8, 9), generator=torch.Generator().manual_seed(1))
    target[0, :3] = 255
    loss = CrossEntropyLoss(
        num_classes=3, class_weights=class_weights, label_smoothing=label_smoothing
    )
    weight = None if class_weights is None else torch.tensor(class_weights)
    expected = F.cross_entropy(
        logits, target, weight, label_smoothing=label_smoothing, ignore_index=255
    )
    torch.testing.assert_close(loss(logits, target), expected)


def test_label_smoothing_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.label_smoothing is 1.0; give a number in \[0, 1\)"):
        CrossEntropyLoss(num_classes=3, label_smoothing=1.0)


class Reductions(TorchDispatchMode):
    """Notes how the kernel of the loss reduces: 0 not at all, 2 by a sum."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "nll_loss" in str(func) and "forward" in str(func):
            self.noted = args[3]
        return func(*args, **(kwargs or {}))


def test_deterministic_algorithms_sum_apart_from_the_kernel() -> None:
    """Which on a GPU refuses to sum; the value is the same."""
    loss = CrossEntropyLoss(num_classes=2, class_weights=[1, 3])
    values, reductions = [], []
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic)
        try:
            with Reductions() as mode:
                values.append(loss(*two_by_two()))
            reductions.append(mode.noted)
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(values[0], values[1])
    assert reductions == [2, 0]
