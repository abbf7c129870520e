"""The cost of a net: its parameters, and the multiply-accumulates of one image."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torchinfo
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """The cost of a net.

    Attributes:
        params: See `parameters`.
        mult_adds: See `mult_adds`.
        table: See `layer_table`.
    """

    params: int
    mult_adds: int
    table: str


def cost_of(net: nn.Module, size: tuple[int, int], in_channels: int = 3) -> Cost:
    """Counts all that a net costs, for an image of this height, width and number of channels."""
    count = mult_adds(net, size, in_channels=in_channels)
    table = layer_table(net, size, in_channels=in_channels, count=count)
    return Cost(parameters(net), count, table)


def parameters(net: nn.Module) -> int:
    """Counts all parameters, frozen ones included: all that the net has, trained or not."""
    return sum(parameter.numel() for parameter in net.parameters())


def mult_adds(net: nn.Module, size: tuple[int, int], *, in_channels: int = 3) -> int:
    """Counts the multiply-accumulates of one forward pass of one image.

    Counted are convolutions (grouped and transposed ones too), matrix products and both products
    of attention: one for each multiplication with an addition, half of what is called FLOPs. Not
    counted are biases, norms, activations, pooling and interpolation, which are few beside them.
    The net's modes and buffers and the random state stay as they were.
    """
    # Neither the fused attention kernels nor the fused encoder layer of PyTorch are counted.
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            _probe(net, size, in_channels) as image,
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            net(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return int(counter.get_total_flops()) // 2


def layer_table(
    net: nn.Module, size: tuple[int, int], *, in_channels: int = 3, count: int | None = None
) -> str:
    """Writes the layers as a table: sizes, kernels, parameters and multiply-accumulates.

    The column of multiply-accumulates is torchinfo's, which miscounts attention and transposed
    convolutions; the last line gives the count of `mult_adds`.

    Args:
        net: The net, on any device.
        size: Height and width of the image.
        in_channels: Channels of the image.
        count: The result of `mult_adds` for this net, to save its forward pass; None calls it.
    """
    with _probe(net, size, in_channels) as image:
        summary = torchinfo.summary(
            net,
            # An image of our own: one made by torchinfo would advance the random state.
            input_data=image,
            col_names=("input_size", "output_size", "kernel_size", "num_params", "mult_adds"),
            depth=5,  # down to the convolutions, in a ResNet too
            device=image.device,
            verbose=0,
        )
    if count is None:
        count = mult_adds(net, size, in_channels=in_channels)
    height, width = size
    return (
        f"{summary}\n"
        f"Mult-adds of one {height}x{width} image, with attention and transposed convolutions "
        f"counted in full: {count:,}"
    )


@contextmanager
def _probe(net: nn.Module, size: tuple[int, int], in_channels: int) -> Iterator[Tensor]:
    """Yields a black image (1, in_channels, H, W), with the net in evaluation mode meanwhile."""
    weight = next(net.parameters())
    training = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield torch.zeros(1, in_channels, *size, device=weight.device, dtype=weight.dtype)
    finally:
        for module, mode in training.items():
            module.training = mode
