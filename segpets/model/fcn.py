"""FCN-8s.

Fully Convolutional Networks for Semantic Segmentation. Jonathan Long, Evan Shelhamer, Trevor
Darrell, 2014, arXiv:1411.4038.

What we changed, and why:

- The paper starts from VGG-16 with ImageNet weights and 134 M parameters. Ours is trained from
  scratch, so its encoder has half of VGG's widths, and its two last layers 512 channels and a 3x3
  window in place of 4096 and 7x7: 5.1 M parameters.
- A BatchNorm follows every convolution of the encoder, and takes the place of the paper's dropout.
- The image is padded to a multiple of 32, and not by 100 pixels on each side.
- All upsampling starts bilinear and is learned; the paper keeps the last step fixed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segpets.model.pad import pad_to_multiple


class ConvStack(nn.Sequential):
    """3x3 convolution, BatchNorm, ReLU, `depth` times, and a pooling that halves the size."""

    def __init__(self, in_channels: int, out_channels: int, *, depth: int) -> None:
        layers: list[nn.Module] = []
        for channels in [in_channels] + [out_channels] * (depth - 1):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.MaxPool2d(2))


class Context(nn.Sequential):
    """VGG's two fully connected layers, read as convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Upsample(nn.ConvTranspose2d):
    """A learned upsampling of the scores by an even `factor`, bilinear at the start."""

    def __init__(self, channels: int, *, factor: int) -> None:
        super().__init__(
            channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False
        )
        # The weight of a pixel falls linearly from the centre of the kernel, one axis at a time.
        place = torch.arange(2 * factor) - (factor - 0.5)
        weight = 1 - place.abs() / factor  # (2 * factor)
        with torch.no_grad():
            self.weight.zero_()  # (C, C, 2 * factor, 2 * factor): no class bleeds into another
            self.weight[range(channels), range(channels)] = torch.outer(weight, weight)


class FCN8s(nn.Module):
    """Scores at strides 32, 16 and 8, each added to the upsampled sum of the coarser ones.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image.
        widths: Channels of the five stages of the encoder, of strides 2, 4, 8, 16 and 32.
        context: Channels of the two layers behind the encoder (fc6 and fc7 of VGG).
    """

    stride = 32

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        context: int = 512,
    ) -> None:
        super().__init__()
        if len(widths) != 5:
            raise ValueError(f"model.widths has {len(widths)} values, but FCN-8s has 5 stages")
        w1, w2, w3, w4, w5 = widths
        self.stage1 = ConvStack(in_channels, w1, depth=2)
        self.stage2 = ConvStack(w1, w2, depth=2)
        self.stage3 = ConvStack(w2, w3, depth=3)
        self.stage4 = ConvStack(w3, w4, depth=3)
        self.stage5 = ConvStack(w4, w5, depth=3)
        self.context = Context(w5, context)
        self.score8 = nn.Conv2d(w3, num_classes, 1)
        self.score16 = nn.Conv2d(w4, num_classes, 1)
        self.score32 = nn.Conv2d(context, num_classes, 1)
        self.up32 = Upsample(num_classes, factor=2)
        self.up16 = Upsample(num_classes, factor=2)
        self.up8 = Upsample(num_classes, factor=8)

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W).

        Raises:
            ValueError: In training, on a batch of one image of 32x32.
        """
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, self.stride)
        pool3 = self.stage3(self.stage2(self.stage1(x)))  # (B, widths[2], H / 8, W / 8)
        pool4 = self.stage4(pool3)  # (B, widths[3], H / 16, W / 16)
        pool5 = self.stage5(pool4)  # (B, widths[4], H / 32, W / 32)
        if self.training and pool5[:, 0].numel() == 1:
            raise ValueError(
                "fcn can't train on one image of 32x32, because nothing but one pixel is left for "
                "its last BatchNorm: set data.batch_size to 2 or more, or data.size to 64 or more"
            )

        score = self.score32(self.context(pool5))  # (B, C, H / 32, W / 32)
        score = self.up32(score) + self.score16(pool4)  # (B, C, H / 16, W / 16)
        score = self.up16(score) + self.score8(pool3)  # (B, C, H / 8, W / 8)
        logits: Tensor = self.up8(score)  # (B, C, H, W)
        return logits[..., :height, :width]
