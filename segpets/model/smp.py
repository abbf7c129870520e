"""Any architecture and encoder of segmentation_models_pytorch.

Segmentation Models PyTorch. Pavel Iakubovskii, 2019,
https://github.com/qubvel-org/segmentation_models.pytorch. Its documentation lists architectures,
encoders and their papers.

The net is the library's; here it only gets this package's contract: padding, and no download that
wasn't asked for.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from segpets.model.pad import pad_to_multiple


class SMP(nn.Module):
    """A net of segmentation_models_pytorch, by the names that the library uses.

    Args:
        num_classes: C of the logits.
        in_channels: Channels of the image; the library adapts pretrained weights to them.
        arch: The architecture, e.g. "unet", "fpn", "deeplabv3plus".
        encoder: The encoder, e.g. "resnet18", "mobilenet_v2", "tu-convnext_tiny".
        encoder_weights: None starts from scratch; a name as "imagenet" downloads them.
        options: Further arguments of the architecture, e.g. {"decoder_attention_type": "scse"}.
    """

    stride = 32

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int = 3,
        arch: str = "unet",
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not re.fullmatch(r"[\w.-]+", encoder):
            raise ValueError(
                f"model.encoder={encoder} is no encoder's name; those of a hub, or of a folder, "
                "aren't taken"
            )
        try:
            # Late, because it is an extra, and because it takes seconds.
            import segmentation_models_pytorch
        except ImportError as error:
            raise ImportError(
                'model=smp needs segmentation_models_pytorch: pip install "segpets[smp]"'
            ) from error
        try:
            self.net = segmentation_models_pytorch.create_model(
                arch,
                encoder_name=encoder,
                encoder_weights=encoder_weights,
                in_channels=in_channels,
                classes=num_classes,
                **(options or {}),
            )
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"segmentation_models_pytorch refuses model.arch={arch} model.encoder={encoder} "
                f"model.encoder_weights={encoder_weights} model.options={options}: {error.args[0]}"
            ) from error

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalised image (B, in_channels, H, W) to logits (B, C, H, W).

        Raises:
            ValueError: In training, if the architecture normalises one value, e.g. the mean of the
                only image of a batch.
        """
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, self.stride)
        try:
            logits: Tensor = self.net(x)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ValueError(
                f"this net can't train on a batch of {len(x)} of this size, because one of its "
                f"BatchNorms gets a single value: set data.batch_size to 2 or more"
            ) from error
        return logits[..., :height, :width]
