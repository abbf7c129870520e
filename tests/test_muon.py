"""Muon steps matrices as torch's does, and the rest as torch's AdamW."""

import copy
import itertools
import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim import Muon as MuonOfTorch

from segpets.hardware import threads
from segpets.model.vit import ViT
from segpets.muon import Muon, _alike, all_orthogonalised, is_matrix, orthogonalised
from segpets.optimizer import made_fused

OPTIONS: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_steps_are_those_of_torch() -> None:
    """A convolution, a transposed one and a linear layer; a bias, a depthwise one, an embedding."""
    shapes = [(20, 5, 3, 3), (50, 5, 2, 2), (7, 90), (13,), (16, 1, 3, 3), (3, 9, 4)]
    own = [nn.Parameter(drawn(*shape)) for shape in shapes]
    matrices = [nn.Parameter(drawn(*shape).flatten(1)) for shape in shapes[:3]]
    others = [nn.Parameter(drawn(*shape)) for shape in shapes[3:]]
    optimizer = made_fused(partial(Muon, momentum=0.9, **OPTIONS), own)
    oracles = (
        MuonOfTorch(matrices, momentum=0.9, adjust_lr_fn="match_rms_adamw", **OPTIONS),
        AdamW(others, **OPTIONS),
    )
    for seed in range(1, 6):
        for weight, twin in zip(own, [*matrices, *others], strict=True):
            weight.grad = drawn(*weight.shape, seed=seed)
            twin.grad = weight.grad.view_as(twin).clone()
        optimizer.step()
        for oracle in oracles:
            oracle.step()
    # Torch's iteration is always in bfloat16; ours is where the hardware multiplies in it.
    for weight, twin in zip(own, matrices, strict=False):
        torch.testing.assert_close(weight.flatten(1), twin, rtol=0, atol=2e-3)
    for weight, twin in zip(own[3:], others, strict=True):
        torch.testing.assert_close(weight, twin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 60), (60, 30), (16, 40), (3, 200), (128, 600), (900, 200)])
def test_a_step_keeps_the_directions_and_evens_out_their_sizes(shape: tuple[int, int]) -> None:
    matrix = drawn(*shape) @ torch.diag(torch.linspace(1, 20, shape[1]))
    found = orthogonalised(matrix)
    assert found.shape == matrix.shape and found.dtype == matrix.dtype
    left, before, right = torch.linalg.svd(matrix, full_matrices=False)
    sizes = (left.mT @ found @ right.mT).diagonal()
    assert before.max() / before.min() > 1.3
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    rest = found - left @ torch.diag(sizes) @ right
    assert rest.norm() < 0.05 * found.norm()


@pytest.mark.parametrize("shape", [(128, 512), (700, 150), (2, 160, 1440)])
def test_gathered_rounds_are_those_of_torch(shape: tuple[int, ...]) -> None:
    """Singular values over eight decades: those that rounding in bfloat16 would blow up."""
    left, _, right = torch.linalg.svd(drawn(*shape), full_matrices=False)
    sizes = torch.logspace(0, -8, left.shape[-1])
    stack = (left * sizes @ right).view(-1, *shape[-2:])
    found = orthogonalised((left * sizes @ right).view(shape)).view_as(stack)
    for matrix, one in zip(stack, found, strict=True):
        weight = nn.Parameter(torch.zeros_like(matrix))
        weight.grad = matrix
        MuonOfTorch([weight], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
        oracle = -weight.detach() / max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
        assert float((one - oracle).norm() / oracle.norm()) < 0.25
        assert float(torch.linalg.matrix_norm(one, 2)) < 1.3


def test_matrices_may_be_done_together() -> None:
    shapes = [(8, 20), (30, 6), (8, 12), (6, 6), (6, 40), (8, 8)]
    matrices = [drawn(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    matrices[2] *= 1e-3
    for matrix, together in zip(matrices, all_orthogonalised(matrices), strict=True):
        assert together.shape == matrix.shape
        torch.testing.assert_close(together, orthogonalised(matrix), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "shapes", [[(20, 5, 3, 3), (7, 90), (64, 32), (9, 9)], [(64, 300), (3, 9)]]
)
def test_threads_change_nothing(shapes: list[tuple[int, ...]]) -> None:
    """The second time one matrix takes longer than the rest, and gets all threads."""
    sides = []
    for count in (1, 2):
        weights = [nn.Parameter(drawn(*shape)) for shape in shapes]
        optimizer = Muon(weights, lr=0.1)
        with threads(count):
            for seed in range(1, 4):
                for weight in weights:
                    weight.grad = drawn(*weight.shape, seed=seed)
                optimizer.step()
        sides.append(weights)
    for one, two in zip(*sides, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-3)


def test_layouts_in_memory_change_nothing() -> None:
    """A weight's and its gradient's may differ: after `net.to(memory_format=...)`, for one."""
    layouts = (torch.contiguous_format, torch.channels_last)
    sides = []
    for layout, of_gradient in itertools.product(layouts, layouts):
        shapes = [(160, 71, 3, 3), (6, 9, 2, 2)]
        weights = [nn.Parameter(drawn(*shape).to(memory_format=layout)) for shape in shapes]
        optimizer = Muon([*weights, turned := nn.Parameter(drawn(5, 8).mT)], lr=0.1)
        for seed in (1, 2):
            for weight in weights:
                weight.grad = drawn(*weight.shape, seed=seed).to(memory_format=of_gradient)
            turned.grad = drawn(8, 5, seed=seed)
            optimizer.step()
        assert weights[0].is_contiguous(memory_format=layout)
        sides.append([*weights, turned])
    for other in sides[1:]:
        for one, two in zip(sides[0], other, strict=True):
            # Of steps of 0.04 in all, by bfloat16.
            torch.testing.assert_close(one, two, rtol=0, atol=5e-3)


def test_no_stack_is_mostly_zeros() -> None:
    lengths = [18432, 4608, 2304, 2304, 1024, 256]  # of a head, a backbone's last layers ...
    wide = [torch.zeros(256, length) for length in lengths] + [torch.zeros(8, 9), torch.zeros(8, 8)]
    groups = [*_alike(wide)]
    assert sorted(place for group in groups for place in group) == [*range(8)]
    assert [7, 6] in [sorted(group, reverse=True) for group in groups]
    for group in groups:
        held = sum(wide[place].numel() for place in group)
        assert len(group) * max(wide[place].numel() for place in group) <= 2 * held + 2**20
    assert len(groups) == 3


def test_a_step_is_as_large_as_the_rate_says() -> None:
    """Whatever the gradient's scale: its root mean square is about 0.17 of the rate."""
    for scale in (1e-6, 1.0, 1e4):
        weight = nn.Parameter(torch.zeros(64, 64, 3, 3))
        optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
        weight.grad = scale * drawn(64, 64, 3, 3)
        optimizer.step()
        assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.017, rel=0.25)


def test_no_gradient_and_a_gradient_of_zeros() -> None:
    still, decayed = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([still, decayed], lr=0.1, weight_decay=0.5)
    decayed.grad = torch.zeros(4, 4)
    optimizer.step()
    assert torch.equal(still, torch.ones(4, 4))
    torch.testing.assert_close(decayed.detach(), torch.full((4, 4), 0.95))


def test_what_counts_as_a_matrix() -> None:
    net = ViT(num_classes=3, image_size=32, patch=8, width=16, depth=1, heads=2)
    rest = {name for name, weight in net.named_parameters() if not is_matrix(weight)}
    assert all(name.endswith("bias") or "norm" in name or "pos" in name for name in rest)
    assert any("pos" in name for name in rest)


def test_it_goes_on_where_it_stopped() -> None:
    def step(optimizer: Muon, weights: list[nn.Parameter], seed: int) -> None:
        for weight in weights:
            weight.grad = drawn(*weight.shape, seed=seed)
        optimizer.step()

    one = [nn.Parameter(drawn(8, 4, 3, 3)), nn.Parameter(drawn(8))]
    first = Muon(one)
    step(first, one, 1)
    other = [nn.Parameter(weight.detach().clone()) for weight in one]
    second = Muon(other)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(first, one, 2)
    step(second, other, 2)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -0.1}, "lr is -0.1; give a number >= 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan; give a number >= 0"),
        ({"momentum": 1.0}, "momentum has 1.0; give a number in [0, 1)"),
        ({"betas": (0.9, 1.5)}, "betas has 1.5; give a number in [0, 1)"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Muon([nn.Parameter(torch.ones(2, 2))], **options)
