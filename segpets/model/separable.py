"""Depthwise separable convolution.

MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications. Andrew G.
Howard, Menglong Zhu, Bo Chen, Dmitry Kalenichenko, Weijun Wang, Tobias Weyand, Marco Andreetto,
Hartwig Adam, 2017, arXiv:1704.04861.

The paper puts a BatchNorm and a ReLU between the two halves too. Here they follow the pointwise
half alone, as they follow the plain convolution that this one stands in for: one word changes the
convolution and nothing else.
"""

from torch import nn


class SeparableConv2d(nn.Sequential):
    """A 3x3 convolution in two steps: every channel by itself, then all channels of one pixel.

    It takes (B, in_channels, H, W) to (B, out_channels, H, W), without bias, with
    `9 * in_channels + in_channels * out_channels` weights in place of
    `9 * in_channels * out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )


def conv3x3(in_channels: int, out_channels: int, *, separable: bool) -> nn.Module:
    """Choose the 3x3 convolution of a block: padded, without bias, plain or separable."""
    if separable:
        return SeparableConv2d(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
