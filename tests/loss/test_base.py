"""Weights of classes by their pixels."""

import math

import pytest

from segpets.loss.base import balanced


def test_weights_by_hand() -> None:
    """1 / ln(1.02 + p), divided by their mean over the classes that are there."""
    raw = [1 / math.log(1.02 + p) for p in (0.5, 0.4, 0.1)]
    found = balanced([50, 40, 10])
    assert found == pytest.approx([3 * one / sum(raw) for one in raw])
    assert found[2] > found[1] > found[0]
    assert balanced([50, 0, 50]) == pytest.approx([1, 0, 1])
    assert balanced([0, 0]) == [0, 0]
