import pytest
import torch
from torch.nn import functional as F

from segpets.build.cost import parameters
from segpets.model.segnet import SegNet, unpool, unpool_exact


@pytest.mark.parametrize(("separable", "millions"), [(False, 15.27), (True, 1.75)])
def test_the_published_number_of_parameters(separable: bool, millions: float) -> None:
    assert round(parameters(SegNet(num_classes=3, separable=separable)) / 1e6, 2) == millions


def test_unpooling_puts_each_maximum_back_where_it_was() -> None:
    image = torch.tensor([[1.0, 2.0, 0.0, 5.0], [4.0, 3.0, -1.0, -2.0]])[None, None]
    x, indices = F.max_pool2d(image, 2, return_indices=True)
    expected = torch.tensor([[0.0, 0.0, 0.0, 50.0], [40.0, 0.0, 0.0, 0.0]])[None, None]
    assert torch.equal(unpool(10 * x, indices), expected)
    assert torch.equal(unpool_exact(10 * x, indices), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_both_forms_of_unpooling_agree_to_the_bit(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    image = torch.randn(2, 3, 12, 10).to(dtype).contiguous(memory_format=layout)
    pooled, indices = F.max_pool2d(image, 2, return_indices=True)
    weight = torch.randn(2, 3, 12, 10).to(dtype)
    results = []
    for form in (unpool, unpool_exact):
        x = pooled.detach().requires_grad_()
        y = form(x, indices)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x)
        results.append((y, gradient))
    (y1, gradient1), (y2, gradient2) = results
    assert y2.dtype == dtype
    assert torch.equal(y1, y2)
    assert torch.equal(gradient1, gradient2)
    (gradient,) = torch.autograd.grad((unpool(x, indices) * weight).sum(), x)
    assert gradient.is_contiguous(memory_format=layout), "what is before is slow otherwise"


def test_deterministic_algorithms_get_the_exact_form(deterministic: None) -> None:
    x, indices = F.max_pool2d(torch.randn(1, 2, 8, 8), 2, return_indices=True)
    with pytest.raises(RuntimeError, match="deterministic"):
        F.max_unpool2d(x, indices, (2, 2))
    assert torch.equal(unpool(x, indices), unpool_exact(x, indices))


def test_autocast_leaves_the_values_in_their_precision() -> None:
    x, indices = F.max_pool2d(torch.randn(1, 2, 8, 8).bfloat16(), 2, return_indices=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert unpool(x, indices).dtype == torch.bfloat16
        assert torch.equal(unpool(x, indices), unpool_exact(x, indices))


def test_the_last_relu_leaves_no_negative_logit() -> None:
    logits = SegNet(num_classes=3, separable=True).eval()(torch.randn(1, 3, 32, 32))
    assert logits.min() >= 0


def test_the_net_normalises_the_image_itself() -> None:
    net = SegNet(num_classes=3, separable=True)
    image = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        logits, scaled = net(image), net(5 * image + 2)
    torch.testing.assert_close(logits, scaled, rtol=1e-2, atol=1e-2)
