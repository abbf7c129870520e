"""First layers of pretrained nets for other channels than red, green and blue."""

import torch
from torch import Tensor, nn


def take_channels(net: nn.Module, channels: int) -> None:
    """Replaces the first convolution of a net by one that takes other channels, in place.

    Its weights follow the rule of timm (R. Wightman, PyTorch Image Models, 2019,
    https://github.com/huggingface/pytorch-image-models, `adapt_input_conv`): for one channel those
    of red, green and blue are added; for others they are repeated in turn, and scaled by 3 / C, so
    that what comes out is as large as before.

    Args:
        net: A net for 3 channels, pretrained or not.
        channels: C of the images.
    """
    if channels == 3:
        return
    name, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    weight: Tensor = first.weight.detach()
    if channels == 1:
        adapted = weight.sum(dim=1, keepdim=True)
    else:
        adapted = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)
    own = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    with torch.no_grad():
        own.weight.copy_(adapted)
        if first.bias is not None and own.bias is not None:
            own.bias.copy_(first.bias)
    parent, _, leaf = name.rpartition(".")
    setattr(net.get_submodule(parent), leaf, own)
