"""Lite R-ASPP on MobileNetV3, from torchvision.

Searching for MobileNetV3. Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen,
Mingxing Tan, Weijun Wang, Yukun Zhu, Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam, 2019,
arXiv:1905.02244.

The net is torchvision's; here it only gets this package's contract: padding, plain logits, and no
download that wasn't asked for.
"""

from typing import Literal

from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights
from torchvision.models.segmentation import (
    LRASPP_MobileNet_V3_Large_Weights,
    lraspp_mobilenet_v3_large,
)

from segpets.model.first_layer import take_channels
from segpets.model.pad import pad_to_multiple


class LRASPP(nn.Module):
    """MobileNetV3-Large with the light segmentation head of the same paper, 3.2 M parameters.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image. Pretrained weights are adapted to them.
        weights: None starts from scratch; "backbone" downloads the encoder's ImageNet weights,
            "coco" those of the whole net, of which all but the last layers is used.
    """

    stride = 16

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        weights: Literal["backbone", "coco"] | None = None,
    ) -> None:
        super().__init__()
        if weights == "coco":
            net = lraspp_mobilenet_v3_large(weights=LRASPP_MobileNet_V3_Large_Weights.DEFAULT)
            head = net.classifier
            head.low_classifier = nn.Conv2d(head.low_classifier.in_channels, num_classes, 1)
            head.high_classifier = nn.Conv2d(head.high_classifier.in_channels, num_classes, 1)
        elif weights in ("backbone", None):
            net = lraspp_mobilenet_v3_large(
                weights=None,
                # Without this key torchvision downloads a backbone all the same.
                weights_backbone=MobileNet_V3_Large_Weights.DEFAULT if weights else None,
                num_classes=num_classes,
            )
        else:
            raise ValueError(f"model.weights={weights} is unknown: use null, backbone or coco")
        take_channels(net, in_channels)
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W)."""
        height, width = image.shape[-2:]
        logits: Tensor = self.net(pad_to_multiple(image, self.stride))["out"]
        return logits[..., :height, :width]
