"""U-Net.

U-Net: Convolutional Networks for Biomedical Image Segmentation. Olaf Ronneberger, Philipp Fischer,
Thomas Brox, 2015, arXiv:1505.04597.

What we changed, and why:

- Convolutions are padded. The paper's aren't, so its output is smaller than its input and its skip
  connections are cropped; here every pixel of the image gets a prediction.
- A BatchNorm follows every convolution. It is younger than the paper's design; trained from
  scratch with a large learning rate the net needs it.
- The widths are an argument. The paper's are (64, 128, 256, 512, 1024), 31 M parameters.
- With `separable`, depthwise separable convolutions replace the 3x3 ones.
- With `auxiliary`, levels of the decoder have heads of their own, in training only, so that a
  gradient reaches them on a shorter way. Deeply-Supervised Nets. Chen-Yu Lee, Saining Xie, Patrick
  Gallagher, Zhengyou Zhang, Zhuowen Tu, 2014, arXiv:1409.5185; nnU-Net does the same.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpets.model.pad import pad_to_multiple
from segpets.model.separable import conv3x3


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, BatchNorm, ReLU: one box of the paper's figure."""

    def __init__(self, in_channels: int, out_channels: int, *, separable: bool) -> None:
        super().__init__(
            conv3x3(in_channels, out_channels, separable=separable),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            conv3x3(out_channels, out_channels, separable=separable),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Up(nn.Module):
    """One step up: double the size, join the skip connection, convolve."""

    def __init__(self, in_channels: int, out_channels: int, *, separable: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv = DoubleConv(2 * out_channels, out_channels, separable=separable)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join the level below (B, 2D, H / 2, W / 2) with the skip connection (B, D, H, W)."""
        x = self.up(x)  # (B, D, H, W)
        x = torch.cat([skip, x], dim=1)  # (B, 2D, H, W)
        x = self.conv(x)  # (B, D, H, W)
        return x


class UNet(nn.Module):
    """An encoder that halves, a decoder that doubles, and a bridge between them at every size.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image.
        widths: Channels of each level, from full size down; every further level halves the size.
        separable: Use depthwise separable convolutions in place of the 3x3 ones.
        auxiliary: Levels below full size that have heads, too, in training.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        separable: bool = False,
        auxiliary: int = 0,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(
                f"model.widths has {len(widths)} level, but a U needs 2 or more: e.g. [16, 32, 64]"
            )
        between = len(widths) - 2
        if not 0 <= auxiliary <= between:
            raise ValueError(
                f"model.auxiliary is {auxiliary}, but model.widths has {between} of its "
                f"{len(widths)} levels between the first and the last: give at most {between}"
            )
        self.stride = 2 ** (len(widths) - 1)
        self.first = DoubleConv(in_channels, widths[0], separable=separable)
        self.pool = nn.MaxPool2d(2)
        self.down = nn.ModuleList(
            DoubleConv(above, below, separable=separable) for above, below in pairwise(widths)
        )
        self.up = nn.ModuleList(
            Up(below, above, separable=separable) for below, above in pairwise(widths[::-1])
        )
        self.head = nn.Conv2d(widths[0], num_classes, 1)
        self.heads = nn.ModuleList(
            nn.Conv2d(width, num_classes, 1) for width in widths[1 : auxiliary + 1]
        )

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W).

        In training, and with auxiliary heads, a list: first those logits, then those of the coarser
        levels, enlarged to the same size.
        """
        height, width = image.shape[-2:]
        image = pad_to_multiple(image, self.stride)
        x = self.first(image)  # (B, widths[0], H, W)

        skips: list[Tensor] = []
        for down in self.down:
            skips.append(x)
            x = down(self.pool(x))  # (B, widths[i], H / 2^i, W / 2^i)

        levels: list[Tensor] = []
        for up in self.up:
            x = up(x, skips.pop())
            levels.append(x)

        logits: Tensor = self.head(x)[..., :height, :width]
        if not self.training or not self.heads:
            return logits
        coarse = levels[-2::-1]  # from half size down
        others = (head(level) for head, level in zip(self.heads, coarse, strict=False))
        size = (image.shape[-2], image.shape[-1])  # padded, as the levels are
        return [logits, *(_enlarged(other, size)[..., :height, :width] for other in others)]


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)
