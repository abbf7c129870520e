"""Pretrained first layers follow timm's rule for other channels."""

import pytest
import torch
from torch import nn

from segpets.model.first_layer import take_channels


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False)), nn.Conv2d(8, 4, 1))


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_weights_are_timms(channels: int) -> None:
    timm = pytest.importorskip("timm.models")
    first = net()
    expected = timm.adapt_input_conv(channels, first[0][0].weight.detach())
    take_channels(first, channels)
    assert torch.equal(first[0][0].weight, expected)
    assert first[0][0].in_channels == channels
    assert first(torch.zeros(2, channels, 16, 16)).shape == (2, 4, 8, 8)


def test_grey_in_all_three_channels_gives_the_same_as_one() -> None:
    grey = torch.rand(1, 1, 16, 16)
    expected = net()(grey.expand(-1, 3, -1, -1))
    adapted = net()
    take_channels(adapted, 1)
    torch.testing.assert_close(adapted(grey), expected)


def test_three_channels_stay_as_they_are() -> None:
    first = net()
    before = first[0][0]
    take_channels(first, 3)
    assert first[0][0] is before
