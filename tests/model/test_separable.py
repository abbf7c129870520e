import torch
from torch.nn import functional as F

from segpets.model.separable import SeparableConv2d, conv3x3


def test_it_is_the_3x3_convolution_whose_kernel_is_the_product_of_both_steps() -> None:
    separable = SeparableConv2d(3, 5)
    depthwise, pointwise = separable[0].weight, separable[1].weight  # (3, 1, 3, 3), (5, 3, 1, 1)
    x = torch.randn(2, 3, 7, 6)
    plain = F.conv2d(x, pointwise * depthwise[:, 0], padding=1)
    torch.testing.assert_close(separable(x), plain, rtol=1e-4, atol=1e-5)


def test_the_weights_are_counted_as_documented() -> None:
    def count(*, separable: bool) -> int:
        return sum(p.numel() for p in conv3x3(16, 32, separable=separable).parameters())

    assert count(separable=False) == 9 * 16 * 32
    assert count(separable=True) == 9 * 16 + 16 * 32
