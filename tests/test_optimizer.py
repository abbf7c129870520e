"""Optimizers run fused, unless their config says otherwise, and give the same weights."""

from functools import partial
from typing import Any

import pytest
import torch
from fixture_types import Train
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from segpets.optimizer import made_fused


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(n, 3, generator=generator)) for n in (5, 40)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"lr": 0.1}),
        (AdamW, {"lr": 0.1, "weight_decay": 0.05}),
        (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_a_fused_optimizer_follows_the_same_path(
    kind: type[Optimizer], options: dict[str, Any]
) -> None:
    paths = []
    for make in (partial(made_fused, partial(kind, **options)), partial(kind, **options)):
        trained = weights()
        optimizer = make(trained)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            for weight in trained:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
        paths.append((optimizer.param_groups[0]["fused"], trained))
    assert [fused for fused, _ in paths] == [True, None]
    for one, other in zip(paths[0][1], paths[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["foreach", "capturable", "differentiable"])
def test_a_config_that_says_how_it_runs_is_obeyed(key: str) -> None:
    optimizer = made_fused(partial(AdamW, **{key: True}), weights())
    assert optimizer.param_groups[0][key] and not optimizer.param_groups[0]["fused"]


def test_what_has_no_such_kernel_is_made_as_ever() -> None:
    assert not made_fused(partial(AdamW, fused=False), weights()).param_groups[0]["fused"]
    assert "fused" not in made_fused(partial(RMSprop, lr=0.1), weights()).param_groups[0]
    assert made_fused(partial(Adagrad, lr=0.1), weights()).param_groups[0]["fused"]


def test_gradients_are_clipped_in_bf16(train_tiny: Train) -> None:
    """Lightning refuses it for optimizers that say that they undo a scale by themselves."""
    clip = ["trainer.gradient_clip_val=0.001", "trainer.precision=bf16-mixed"]
    sgd = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false"]
    plain = ["optimizer.weight_decay=0", "scheduler=none"]
    one = [*clip, *sgd, *plain, "trainer.max_epochs=1", "data.batch_size=15"]  # a single step
    first = train_tiny(*one, "optimizer.lr=0", folder="a").module.net
    before = [weight.detach().clone() for weight in first.parameters()]
    after = train_tiny(*one, "optimizer.lr=1", folder="b").module.net.parameters()
    moved = (
        sum(float(((a.detach() - b) ** 2).sum()) for a, b in zip(after, before, strict=True)) ** 0.5
    )
    assert moved == pytest.approx(0.001, rel=1e-3)
