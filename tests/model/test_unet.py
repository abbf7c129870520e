from collections.abc import Sequence

import pytest
import torch
from torch import nn

from segpets.build.cost import parameters
from segpets.model.unet import UNet, Up


def test_the_paper_s_widths_have_31_million_parameters() -> None:
    with torch.device("meta"):
        assert round(parameters(UNet(num_classes=2, widths=(64, 128, 256, 512, 1024))) / 1e6) == 31


def test_the_compact_net_stays_below_2_million_parameters() -> None:
    assert 1.9e6 < parameters(UNet(num_classes=3)) < 2e6


@pytest.mark.parametrize(("widths", "stride"), [((8, 16), 2), ((4, 8, 8, 16), 8)])
def test_the_stride_follows_from_the_number_of_levels(widths: Sequence[int], stride: int) -> None:
    assert UNet(num_classes=3, widths=widths).stride == stride


def test_one_level_is_no_u() -> None:
    with pytest.raises(ValueError, match=r"model\.widths has 1 level"):
        UNet(num_classes=3, widths=[16])


def test_the_skip_connection_carries_a_pixel_past_the_pooling() -> None:
    torch.manual_seed(0)
    net = UNet(num_classes=3, widths=(8, 8, 8)).eval()
    for module in net.modules():
        if isinstance(module, Up):  # close the way from below
            nn.init.zeros_(module.up.weight)
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    net(image)[0, :, 16, 16].sum().backward()
    assert image.grad is not None
    reached = image.grad[0].abs().sum(0).nonzero()  # (pixels, 2)
    # Four 3x3 convolutions at full size see four pixels to every side.
    assert reached.min(0).values.tolist() == [12, 12]
    assert reached.max(0).values.tolist() == [20, 20]


def test_with_the_way_from_below_the_whole_image_is_seen() -> None:
    torch.manual_seed(0)
    net = UNet(num_classes=3, widths=(8, 8, 8, 8)).eval()
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    net(image)[0, :, 16, 16].sum().backward()
    assert image.grad is not None
    reached = image.grad[0].abs().sum(0).nonzero()
    assert reached.min() == 0
    assert reached.max() == 31


def test_auxiliary_heads_are_there_in_training_only() -> None:
    net = UNet(num_classes=3, widths=(4, 8, 12, 16), auxiliary=2)
    image = torch.rand(2, 3, 40, 56)
    logits, half, quarter = net.train()(image)
    assert logits.shape == half.shape == quarter.shape == (2, 3, 40, 56)
    quarter.sum().backward()
    assert net.up[0].conv[0].weight.grad is not None, "the gradient reaches the level"
    assert net.up[1].conv[0].weight.grad is None, "and none after it"
    assert isinstance(net.eval()(image), torch.Tensor)
    plain = UNet(num_classes=3, widths=(4, 8, 12, 16))
    assert not [name for name in plain.state_dict() if name.startswith("heads")]


def test_auxiliary_heads_look_at_the_pixels_that_they_judge() -> None:
    """Of images whose sides are no multiple of the stride, too."""
    net = UNet(num_classes=3, widths=(4, 8, 12, 16, 20), auxiliary=2).train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # else it mixes all pixels
    image = torch.rand(1, 3, 84, 100, requires_grad=True)
    for logits in net(image):
        (grad,) = torch.autograd.grad(logits[0, 0, 60, 70], image, retain_graph=True)
        seen = grad[0].abs().sum(0) / grad.abs().sum()
        row = (seen.sum(1) * torch.arange(84)).sum()
        column = (seen.sum(0) * torch.arange(100)).sum()
        assert abs(row - 60) < 3 and abs(column - 70) < 3


@pytest.mark.parametrize("auxiliary", [-1, 3])
def test_more_auxiliary_heads_than_levels_are_refused(auxiliary: int) -> None:
    with pytest.raises(
        ValueError, match=r"model\.auxiliary is .*has 2 of its 4 levels between .*: give at most 2"
    ):
        UNet(num_classes=3, widths=(4, 8, 12, 16), auxiliary=auxiliary)
