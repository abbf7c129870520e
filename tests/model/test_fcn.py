import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segpets.build.cost import parameters
from segpets.model.fcn import FCN8s, Upsample


@pytest.mark.parametrize("factor", [2, 8])
def test_upsampling_starts_as_bilinear_interpolation(factor: int) -> None:
    x = torch.randn(1, 3, 6, 7)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    inside = slice(factor, -factor)  # at the edge one repeats the last pixel, the other takes zeros
    torch.testing.assert_close(
        Upsample(3, factor=factor)(x)[..., inside, inside], expected[..., inside, inside]
    )


def test_the_encoder_is_compact() -> None:
    assert parameters(FCN8s(num_classes=3)) < 8e6


def test_the_scores_of_three_strides_are_added() -> None:
    torch.manual_seed(0)
    net = FCN8s(num_classes=3, widths=(4, 4, 4, 4, 4), context=8).eval()
    image = torch.randn(1, 3, 64, 64)
    scores = {8: net.score8, 16: net.score16, 32: net.score32}
    for score in scores.values():
        nn.init.zeros_(score.weight)
        nn.init.zeros_(score.bias)
    for value, score in zip((1.0, 10.0, 100.0), scores.values(), strict=True):
        nn.init.constant_(score.bias, value)
    with torch.no_grad():
        centre = net(image)[..., 28:36, 28:36]
    torch.testing.assert_close(centre, torch.full_like(centre, 111.0))


def test_one_image_of_one_last_pixel_can_t_be_trained_on() -> None:
    net = FCN8s(num_classes=3, widths=(4, 4, 4, 4, 4), context=8).train()
    with pytest.raises(ValueError, match=r"data\.batch_size to 2 or more"):
        net(torch.randn(1, 3, 32, 32))
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    assert net(torch.randn(1, 3, 33, 32)).shape == (1, 3, 33, 32)


def test_the_encoder_has_five_stages() -> None:
    with pytest.raises(ValueError, match=r"model\.widths has 3 values"):
        FCN8s(num_classes=3, widths=(4, 4, 4))
