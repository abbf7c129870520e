"""DeepLabv3 on ResNet-50, from torchvision.

Rethinking Atrous Convolution for Semantic Image Segmentation. Liang-Chieh Chen, George Papandreou,
Florian Schroff, Hartwig Adam, 2017, arXiv:1706.05587.

The net is torchvision's, without its auxiliary classifier; here it only gets this package's
contract: padding, plain logits, and no download that wasn't asked for.
"""

from typing import Literal

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50

from segpets.model.first_layer import take_channels
from segpets.model.pad import pad_to_multiple


class DeepLabV3(nn.Module):
    """ResNet-50 at stride 8 and a pyramid of atrous convolutions, 39.6 M parameters.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image. Pretrained weights are adapted to them.
        weights: None starts from scratch; "backbone" downloads the encoder's ImageNet weights,
            "coco" those of the whole net, of which all but the last layer is used.
    """

    stride = 8

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        weights: Literal["backbone", "coco"] | None = None,
    ) -> None:
        super().__init__()
        if weights == "coco":
            net = deeplabv3_resnet50(weights=DeepLabV3_ResNet50_Weights.DEFAULT)
            net.aux_classifier = None
            net.classifier[-1] = nn.Conv2d(net.classifier[-1].in_channels, num_classes, 1)
        elif weights in ("backbone", None):
            net = deeplabv3_resnet50(
                weights=None,
                # Without this key torchvision downloads a backbone all the same.
                weights_backbone=ResNet50_Weights.DEFAULT if weights else None,
                num_classes=num_classes,
                aux_loss=False,
            )
        else:
            raise ValueError(f"model.weights={weights} is unknown: use null, backbone or coco")
        take_channels(net, in_channels)
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W).

        Raises:
            ValueError: In training, on a batch of one image.
        """
        if self.training and len(image) == 1:
            raise ValueError(
                "deeplabv3 can't train on a batch of one image, because it normalises the mean of "
                "each image over the batch: set data.batch_size to 2 or more, or to a number that "
                "doesn't leave one image for the last batch"
            )
        height, width = image.shape[-2:]
        logits: Tensor = self.net(pad_to_multiple(image, self.stride))["out"]
        return logits[..., :height, :width]
