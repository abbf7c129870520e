"""Multiply-accumulates against values worked by hand: they rank models, so they must be right."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from segpets.build.cost import layer_table, mult_adds, parameters
from segpets.model import SegNet, UNet, ViT


class Tokens(nn.Module):
    """A net over the pixels as tokens: (1, C, H, W) -> (1, H * W, C) -> the wrapped net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("net", "count"),
    [
        # every one of 8x6 output pixels and 16 channels: 3 channels of a 3x3 window
        (nn.Conv2d(3, 16, 3, padding=1), 8 * 6 * 16 * 3 * 9),
        # a stride of 2 leaves 4x3 of them
        (nn.Conv2d(3, 16, 3, padding=1, stride=2), 4 * 3 * 16 * 3 * 9),
        # depthwise: a channel sees itself alone
        (nn.Conv2d(3, 3, 3, padding=1, groups=3), 8 * 6 * 3 * 9),
        (nn.Conv2d(3, 6, 5, padding=2, groups=3), 8 * 6 * 6 * 25),
        # transposed: every one of 8x6 input pixels is written to a 2x2 square of 16 channels
        (nn.ConvTranspose2d(3, 16, 2, stride=2), 8 * 6 * 3 * 16 * 4),
        (nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, groups=3), 8 * 6 * 3 * 16),
        (Tokens(nn.Linear(3, 10)), 48 * 3 * 10),
    ],
    ids=["conv", "strided", "depthwise", "grouped", "transposed", "transposed_depthwise", "linear"],
)
def test_one_layer(net: nn.Module, count: int) -> None:
    assert mult_adds(net, (8, 6)) == count


def test_norms_activations_and_pooling_are_not_counted() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    assert mult_adds(net, (8, 6)) == 0


def test_a_transformer_layer_of_pytorch() -> None:
    tokens, width, hidden = 8 * 6, 12, 20
    net = Tokens(nn.TransformerEncoderLayer(width, 3, hidden, batch_first=True))
    projections = 4 * tokens * width * width
    attention = 2 * tokens * tokens * width  # query by key, and weights by value
    perceptron = 2 * tokens * width * hidden
    assert mult_adds(net, (8, 6), in_channels=12) == projections + attention + perceptron


def test_the_unet() -> None:
    widths, size = (4, 8, 16), 32
    net = UNet(num_classes=3, widths=widths)
    pixels = [(size // 2**level) ** 2 for level in range(3)]

    def double_conv(pixels: int, in_channels: int, out_channels: int) -> int:
        return pixels * 9 * (in_channels * out_channels + out_channels * out_channels)

    count = double_conv(pixels[0], 3, widths[0])
    for level, (above, below) in enumerate(pairwise(widths)):
        count += double_conv(pixels[level + 1], above, below)  # down
        count += pixels[level + 1] * 4 * below * above  # transposed convolution up
        count += double_conv(pixels[level], 2 * above, above)
    count += pixels[0] * widths[0] * 3  # head
    assert mult_adds(net, (size, size)) == count


def test_the_vit() -> None:
    tokens, width, depth = 16, 24, 2
    net = ViT(num_classes=3, image_size=32, patch=8, width=width, depth=depth, heads=4)
    block = tokens * 12 * width * width + 2 * tokens * tokens * width
    ends = 2 * tokens * width * (8 * 8 * 3)
    assert mult_adds(net, (32, 32)) == depth * block + ends


def test_the_parameters_are_all_counted_frozen_ones_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[0].requires_grad_(False)
    assert parameters(net) == (3 * 4 * 9 + 4) + (4 + 4)


@pytest.mark.parametrize("look", [mult_adds, layer_table])
def test_looking_changes_nothing(look: object) -> None:
    assert callable(look)
    net = SegNet(num_classes=3, separable=True).train()
    net.encoder[0].eval()  # frozen by hand
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    look(net, (32, 48))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(module._forward_hooks for module in net.modules())


def test_a_net_that_fails_gets_its_modes_back() -> None:
    net = UNet(num_classes=3, widths=(4, 8)).train()
    with pytest.raises(ValueError, match="16x16"):
        mult_adds(net, (16, 16))
    assert all(module.training for module in net.modules())


def test_the_table_shows_the_layers_and_the_true_count() -> None:
    net = UNet(num_classes=3, widths=(4, 8))
    table = layer_table(net, (32, 48))
    for heading in ("Input Shape", "Output Shape", "Kernel Shape", "Param #", "Mult-Adds"):
        assert heading in table
    assert "[1, 3, 32, 48]" in table
    assert "ConvTranspose2d" in table
    last = table.splitlines()[-1]
    assert "32x48" in last
    assert last.endswith(f"{mult_adds(net, (32, 48)):,}")
