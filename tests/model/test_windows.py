"""Windows over whole images: the same logits as at once, wherever the net sees enough."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from segpets.model.windows import by_windows


def blurring(images: Tensor) -> Tensor:
    """A net that sees two pixels to each side."""
    kernels = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return conv2d(images.float() / 255, kernels, padding=2)


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [(90, 150), (64, 96), (65, 97), (40, 400)])
@pytest.mark.parametrize("window", [(64, 96), (64, 64)])
def test_windows_agree_with_the_whole(size: tuple[int, int], window: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    logits = by_windows(blurring, images, window, stride=4)
    torch.testing.assert_close(logits, blurring(images), rtol=0, atol=1e-4)


def test_what_fits_one_window_is_predicted_at_once_and_in_one_batch() -> None:
    shapes = []

    def noting(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return blurring(images)

    images = noise(3, 3, 50, 96)
    assert torch.equal(by_windows(noting, images, (64, 96), stride=32), blurring(images))
    assert shapes == [(3, 3, 50, 96)]


def test_windows_are_multiples_of_the_stride_and_reach_the_net_in_batches() -> None:
    shapes = []

    def noting(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return blurring(images)

    by_windows(noting, noise(1, 3, 200, 300), (60, 90), stride=32)
    assert {shape[2:] for shape in shapes} == {(64, 96)}
    assert max(shape[0] for shape in shapes) > 1
