"""BatchNorm of few channels on a CPU."""

import torch
from torch import Tensor, nn

_WIDE = 8
"""Channels from which PyTorch (2.14) is as fast with channels last as by planes."""


def batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a BatchNorm to (B, C, H, W), in training plane by plane where channels are few.

    With channels last, a CPU takes one pixel after the other: 12 ms forward and backward for
    8x3x128x128 floats, by planes 2 (see docs/PERFORMANCE.md). Statistics differ by rounding only.
    """
    if (
        not norm.training
        or x.shape[1] >= _WIDE
        or x.device.type != "cpu"
        or not x.is_contiguous(memory_format=torch.channels_last)
        or torch.compiler.is_compiling()
    ):
        return norm(x)  # type: ignore[no-any-return]
    y: Tensor = norm(x.contiguous())
    if y.requires_grad:
        # Or backward takes a slower way.
        y.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return y.contiguous(memory_format=torch.channels_last)
