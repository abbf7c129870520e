"""SegNet.

SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation. Vijay
Badrinarayanan, Alex Kendall, Roberto Cipolla, 2015, arXiv:1511.00561.

What we changed, and why:

- Four levels of 64, 128, 256 and 512 channels in place of VGG-16's five: a fifth one, of 4 x 4
  pixels at an input of 128 x 128, would see next to nothing. That leaves 15.27 M parameters for
  three classes.
- A BatchNorm on the image itself: trained from scratch, the net learns its own normalisation.
- The last convolution of the decoder gives the logits by itself, with BatchNorm and ReLU like all
  others; the paper adds a classifier behind. The logits are therefore never negative.
- With `separable`, depthwise separable convolutions replace all 3x3 ones: 1.75 M parameters.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpets.model.narrow import batch_norm
from segpets.model.pad import pad_to_multiple
from segpets.model.separable import conv3x3


def upsample(x: Tensor) -> Tensor:
    """Repeat every pixel as a square of 2x2: (B, C, H, W) to (B, C, 2H, 2W)."""
    batch, channels, height, width = x.shape
    x = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return x.reshape(batch, channels, 2 * height, 2 * width)


def unpool_exact(x: Tensor, indices: Tensor) -> Tensor:
    """Unpool by comparing places: the same numbers as `max_unpool2d`, with simple operations."""
    height, width = 2 * x.shape[-2], 2 * x.shape[-1]
    pixel = torch.arange(height * width, device=x.device).reshape(height, width)
    return torch.where(upsample(indices) == pixel, upsample(x), 0.0)


def unpool(x: Tensor, indices: Tensor) -> Tensor:
    """Put every value back at the place in its 2x2 window that the pooling took it from.

    Args:
        x: (B, C, H, W).
        indices: int64 (B, C, H, W), as `max_pool2d` returns them.

    Returns:
        (B, C, 2H, 2W), zero at all other places.
    """
    # PyTorch refuses max_unpool2d under deterministic algorithms, because overlapping windows
    # could write one place twice (ours don't overlap), and ONNX has no operator for it.
    if torch.are_deterministic_algorithms_enabled() or torch.compiler.is_exporting():
        return unpool_exact(x, indices)
    # Autocast would turn x into float32, though values are only moved here.
    with torch.autocast(x.device.type, enabled=False):
        unpooled: Tensor = _Unpool.apply(x, indices)
        return unpooled


class _Unpool(torch.autograd.Function):
    """PyTorch's, with gradients that stay channels last in memory.

    Its own (2.14) come back as planes, and what is before works on both layouts at once: 18 ms
    instead of 5 for 8x64x64x64 floats with a ReLU before (see docs/PERFORMANCE.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        return F.max_unpool2d(x, indices, kernel_size=(2, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (indices,), (gradient,) = ctx.saved_tensors, gradients
        batch, channels, height, width = indices.shape
        if indices.is_contiguous(memory_format=torch.channels_last):
            pixels = gradient.permute(0, 2, 3, 1).reshape(batch, -1, channels)
            at = indices.permute(0, 2, 3, 1).reshape(batch, -1, channels)
            taken = pixels.gather(1, at).view(batch, height, width, channels)
            return taken.permute(0, 3, 1, 2), None
        return gradient.flatten(2).gather(2, indices.flatten(2)).view_as(indices), None


class ConvStack(nn.Sequential):
    """3x3 convolution, BatchNorm, ReLU, once for each step from one width to the next."""

    def __init__(self, *widths: int, separable: bool) -> None:
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            layers += [
                conv3x3(in_channels, out_channels, separable=separable),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, widths[0], H, W) to (B, widths[-1], H, W)."""
        for layer in self:
            x = batch_norm(layer, x) if isinstance(layer, nn.BatchNorm2d) else layer(x)
        return x


class SegNet(nn.Module):
    """An encoder that remembers where each maximum was, and a decoder that puts it back there.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image.
        separable: Use depthwise separable convolutions in place of the 3x3 ones.
    """

    stride = 16

    def __init__(self, *, num_classes: int, in_channels: int = 3, separable: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.encoder = nn.ModuleList(
            [
                ConvStack(in_channels, 64, 64, separable=separable),
                ConvStack(64, 128, 128, separable=separable),
                ConvStack(128, 256, 256, 256, separable=separable),
                ConvStack(256, 512, 512, 512, separable=separable),
            ]
        )
        self.decoder = nn.ModuleList(
            [
                ConvStack(512, 512, 512, 256, separable=separable),
                ConvStack(256, 256, 256, 128, separable=separable),
                ConvStack(128, 128, 64, separable=separable),
                ConvStack(64, 64, num_classes, separable=separable),
            ]
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W)."""
        height, width = image.shape[-2:]
        x = batch_norm(self.norm, pad_to_multiple(image, self.stride))

        places: list[Tensor] = []
        for encode in self.encoder:
            x = encode(x)  # (B, D, H / 2^i, W / 2^i)
            x, indices = F.max_pool2d(x, 2, return_indices=True)  # half of that
            places.append(indices)

        for decode in self.decoder:
            x = unpool(x, places.pop())
            x = decode(x)

        logits: Tensor = x
        return logits[..., :height, :width]
