"""BatchNorm of few channels means what PyTorch's means, whatever way it takes."""

import pytest
import torch
from torch import Tensor, nn

from segpets.model.narrow import batch_norm


def trained(norm: nn.BatchNorm2d, image: Tensor, *, ours: bool) -> list[Tensor]:
    """The output, gradients and statistics of a step."""
    x = image.clone(memory_format=torch.preserve_format).requires_grad_()
    y = batch_norm(norm, x) if ours else norm(x)
    torch.relu_(y).square().sum().backward()
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.weight.grad is not None and norm.bias.grad is not None and x.grad is not None
    found = [y.detach(), x.grad, norm.weight.grad, norm.bias.grad]
    return [*found, norm.running_mean, norm.running_var]


@pytest.mark.parametrize("channels", [1, 3, 7, 8])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_it_gives_pytorchs_numbers_in_the_layout_of_its_input(
    channels: int, layout: torch.memory_format
) -> None:
    image = (5 + 2 * torch.randn(4, channels, 12, 10)).contiguous(memory_format=layout)
    pairs = zip(
        trained(nn.BatchNorm2d(channels), image, ours=True),
        trained(nn.BatchNorm2d(channels).double(), image.double(), ours=False),
        strict=True,
    )
    for found, expected in pairs:
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    y = batch_norm(nn.BatchNorm2d(channels), image)
    assert y.is_contiguous(memory_format=layout)


def test_evaluation_uses_the_running_statistics() -> None:
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean, norm.running_var = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 4, 4])
    image = torch.full((1, 3, 4, 4), 5.0).contiguous(memory_format=torch.channels_last)
    expected = torch.tensor([2.0, 1.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(batch_norm(norm, image), expected, rtol=1e-4, atol=1e-4)
