"""What every loss keeps to; a new conf/loss/*.yaml is tested here without being named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from torch import Tensor, nn

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import safe_divide

BuildLoss = Callable[..., nn.Module]
CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
IGNORED = IGNORE_INDEX


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loss(build_loss: BuildLoss, name: str) -> nn.Module:
    return build_loss(name)


@pytest.fixture
def logits() -> Tensor:
    return 2 * torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def target() -> Tensor:
    target = torch.randint(0, 3, (2, 6, 5), generator=torch.Generator().manual_seed(2))
    target[:, -2:] = IGNORED
    return target


def weight_overrides(name: str, weights: str) -> list[str]:
    if name == "combined":
        return [f"loss.losses.{term}.class_weights={weights}" for term in ("pixel", "overlap")]
    return [f"loss.class_weights={weights}"]


def certain(target: Tensor) -> Tensor:
    """Logits of +-20 that say exactly what the target says: (B, 3, H, W)."""
    truth = F.one_hot(target.where(target != IGNORED, 0), 3).permute(0, 3, 1, 2)
    return 40.0 * truth - 20.0


def gradient(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, target).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_every_shipped_loss_is_found() -> None:
    shipped = {"combined", "cross_entropy", "dice", "focal", "soft_iou", "tversky"}
    assert shipped <= set(NAMES)


def test_value_is_a_float32_scalar(loss: nn.Module, logits: Tensor, target: Tensor) -> None:
    value = loss(logits, target)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value > 0


def test_perfect_prediction_costs_nothing_and_the_opposite_most(
    loss: nn.Module, target: Tensor
) -> None:
    perfect = loss(certain(target), target)
    undecided = loss(torch.zeros(2, 3, 6, 5), target)
    wrong = loss(certain(target).roll(1, dims=1), target)
    assert perfect == pytest.approx(0, abs=1e-5)
    assert perfect < undecided < wrong


@pytest.mark.parametrize("rubbish", [1e30, -1e30, torch.inf, torch.nan])
def test_logits_of_ignored_pixels_change_nothing(
    loss: nn.Module, logits: Tensor, target: Tensor, rubbish: float
) -> None:
    value, slope = loss(logits, target), gradient(loss, logits, target)
    spoilt = logits.clone()
    spoilt[:, 1, -2:] = rubbish
    assert loss(spoilt, target) == value
    torch.testing.assert_close(gradient(loss, spoilt, target), slope, rtol=0, atol=0)
    assert not slope[:, :, -2:].any()
    assert slope[:, :, :-2].any()


def test_ignoring_pixels_is_the_same_as_not_having_them(
    loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    torch.testing.assert_close(loss(logits, target), loss(logits[:, :, :-2], target[:, :-2]))


def test_wholly_ignored_image_is_the_same_as_not_having_it(
    loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    target[1] = IGNORED
    torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]))


def test_wholly_ignored_batch_gives_zero_and_no_gradient(loss: nn.Module, logits: Tensor) -> None:
    target = torch.full((2, 6, 5), IGNORED)
    logits[0, 0, 0, 0] = torch.nan
    assert loss(logits, target) == 0
    assert torch.equal(gradient(loss, logits, target), torch.zeros_like(logits))


def test_nan_in_a_pixel_that_counts_is_not_hidden(
    loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    logits[0, 0, 0, 0] = torch.nan
    assert loss(logits, target).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_gradient_is_finite(
    loss: nn.Module, logits: Tensor, target: Tensor, scale: float, dtype: torch.dtype
) -> None:
    within_float16 = (scale * logits).clamp(-6e4, 6e4)
    slope = gradient(loss, within_float16.to(dtype), target)
    assert slope.dtype == dtype
    assert slope.isfinite().all()


def test_bf16_autocast_does_not_lower_the_precision(
    loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    logits = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, target)
    assert value == loss(logits.float(), target)


def test_softened_edges_are_float32_under_bf16_autocast(
    build_loss: BuildLoss, logits: Tensor, target: Tensor
) -> None:
    loss = build_loss("jaccard", "loss.edge_sigma=1.0")
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, target)
    assert value == loss(logits, target)


def test_order_of_images_and_pixels_does_not_matter(
    loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    value = loss(logits, target)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), value)
    torch.testing.assert_close(loss(logits.flip(-1), target.flip(-1)), value)
    torch.testing.assert_close(loss(logits.mT, target.mT), value)


def test_memory_format_does_not_matter(loss: nn.Module, logits: Tensor, target: Tensor) -> None:
    channels_last = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(channels_last, target), loss(logits, target))


def test_order_of_classes_does_not_matter(loss: nn.Module, logits: Tensor, target: Tensor) -> None:
    order = torch.tensor([2, 0, 1])  # the old class of each new channel
    renamed = order.argsort()[target.where(target != IGNORED, 0)]
    renamed[target == IGNORED] = IGNORED
    torch.testing.assert_close(loss(logits[:, order], renamed), loss(logits, target))


def test_weights_of_one_are_no_weights(
    build_loss: BuildLoss, name: str, loss: nn.Module, logits: Tensor, target: Tensor
) -> None:
    ones = build_loss(name, *weight_overrides(name, "[1,1,1]"))
    assert ones(logits, target) == loss(logits, target)


def test_class_of_weight_zero_can_be_got_wrong_for_nothing(
    build_loss: BuildLoss, name: str, logits: Tensor
) -> None:
    """The pixels of the other classes are right; those of class 2 are given to nobody."""
    loss = build_loss(name, *weight_overrides(name, "[0,0,1]"))
    target = torch.tensor([[[0, 1], [2, 2]]])
    confused = certain(torch.tensor([[[1, 0], [2, 2]]]))
    assert loss(confused, target) == pytest.approx(0, abs=1e-5)
    assert build_loss(name)(confused, target) > 0.1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("[1,2]", "loss.class_weights has 2 values, but the data has 3 classes"),
        ("[1,2,3,4]", "loss.class_weights has 4 values, but the data has 3 classes"),
        ("[]", "loss.class_weights has 0 values, but the data has 3 classes"),
        ("[1,-1,1]", "finite numbers >= 0"),
        ("[1,nan,1]", "finite numbers >= 0"),
        ("[1,inf,1]", "finite numbers >= 0"),
        ("[0,0,0]", "at least one of them positive"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    build_loss: BuildLoss, name: str, weights: str, message: str
) -> None:
    with pytest.raises(InstantiationException, match="ValueError") as refusal:
        build_loss(name, *weight_overrides(name, weights))
    assert message in str(refusal.value)


def test_single_class_is_refused(build_loss: BuildLoss, name: str) -> None:
    with pytest.raises(InstantiationException, match="at least 2 classes"):
        build_loss(name, num_classes=1)


def test_shapes_that_do_not_fit_are_refused(loss: nn.Module, target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"expects \(B, 3, H, W\): model.num_classes"):
        loss(torch.zeros(2, 4, 6, 5), target)
    with pytest.raises(ValueError, match=r"the target has shape \(2, 6, 5\)"):
        loss(torch.zeros(2, 3, 5, 6), target)


def test_checkpoint_holds_nothing_of_the_loss(
    build_loss: BuildLoss, name: str, loss: nn.Module
) -> None:
    assert loss.state_dict() == {}
    assert build_loss(name, *weight_overrides(name, "[1,2,3]")).state_dict() == {}


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 1), (2,)])
def test_gradient_steps_find_the_target(
    loss: nn.Module, logits: Tensor, target: Tensor, classes: tuple[int, ...]
) -> None:
    """Also where classes are absent: their probability must go down, not up."""
    target = torch.where(target == IGNORED, IGNORED, torch.tensor(classes)[target % len(classes)])
    free = logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        value = loss(free, target)
        value.backward()
        optimizer.step()
    valid = target != IGNORED
    assert torch.equal(free.argmax(1)[valid], target[valid])
    assert value < 0.1 * loss(logits, target)


def test_a_division_by_zero_has_neither_value_nor_gradient() -> None:
    numerator = torch.tensor([1.0, 3.0], requires_grad=True)
    denominator = torch.tensor([0.0, 2.0], requires_grad=True)
    value = safe_divide(numerator, denominator)
    assert value.tolist() == [0.0, 1.5]
    value.sum().backward()
    assert numerator.grad is not None and denominator.grad is not None
    assert numerator.grad.tolist() == [0.0, 0.5]
    assert denominator.grad.tolist() == [0.0, -0.75]
    assert safe_divide(torch.tensor(1.0), torch.tensor(torch.nan)).isnan()
