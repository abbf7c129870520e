"""Optimizers run fused, unless their config says otherwise, and give the same weights."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from fixture_types import Train
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from segpets.errors import UserError
from segpets.muon import Muon
from segpets.optimizer import freeze, made_fused, rate_of, with_rates


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


class Two(nn.Module):
    """An encoder with a BatchNorm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, 2, 1)


def test_rates_by_hand() -> None:
    net = Two()
    groups = with_rates(net, {"encoder": 0.1, "*.bias": 0.5}, lr=0.2)
    rates = {id(weight): group.get("lr", 0.2) for group in groups for weight in group["params"]}
    named = {name: rates[id(weight)] for name, weight in net.named_parameters()}
    assert named == {
        "encoder.0.weight": pytest.approx(0.02),
        "encoder.0.bias": pytest.approx(0.1),
        "encoder.1.weight": pytest.approx(0.02),
        "encoder.1.bias": pytest.approx(0.1),
        "head.weight": 0.2,
        "head.bias": pytest.approx(0.1),
    }
    optimizer = made_fused(partial(SGD, lr=0.2), groups)
    assert [group["name"] for group in optimizer.param_groups] == ["others", "encoder", "*.bias"]


def test_frozen_weights_are_in_no_group() -> None:
    net = Two()
    freeze(net, ["encoder.0", "init_from"], brought={"head.weight"})
    trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert trained == {"encoder.1.weight", "encoder.1.bias", "head.bias"}
    groups = with_rates(net, {"head": 2.0}, lr=0.1)
    assert sum(len(group["params"]) for group in groups) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["freeze=[encodr]"],
            "freeze names encodr, but no weight is called so: the model has",
        ),
        (["freeze=['*']"], "freeze=[*] leaves nothing to train"),
        (
            ["freeze=[init_from]"],
            "freeze names init_from, but no weight is called so: give",
        ),
        (["lr_factors={tail:2}"], "lr_factors names tail, but no weight is called so"),
        (["lr_factors={head:0}"], "lr_factors.head=0.0 must be positive"),
        (["lr_factors={head:fast}"], "lr_factors={'head': 'fast'} must be a table of patterns"),
    ],
)
def test_names_of_nothing_are_answered(train_tiny: Train, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        train_tiny(*words)


def test_what_is_frozen_keeps_weights_and_statistics(train_tiny: Train) -> None:
    first = train_tiny("trainer.max_epochs=1", folder="first")
    before = {name: value.clone() for name, value in first.module.net.state_dict().items()}
    start = [f"init_from={first.path}", "freeze=[first,down]", "trainer.max_epochs=2"]
    after = train_tiny(*start, folder="second").module.net.state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    frozen = {name for name in after if name.startswith(("first.", "down."))}
    assert frozen <= same, "running means and variances of BatchNorms, too"
    assert any(name.startswith("up.") for name in after.keys() - same)
    assert any(name.startswith("head.") for name in after.keys() - same)


def test_a_rate_of_its_own_moves_weights_by_as_much_less(train_tiny: Train) -> None:
    """One step of plain gradient descent from the same weights."""
    sgd = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.lr=0.1"]
    one = [*sgd, "optimizer.weight_decay=0", "scheduler=none", "trainer.max_epochs=1"]
    one += ["data.batch_size=15", "trainer.precision=32-true"]
    nets = {
        name: train_tiny(*one, *words, folder=name).module.net.state_dict()
        for name, words in {
            "start": ["optimizer.lr=1e-12"],
            "plain": [],
            "slow": ["lr_factors={head:0.25}"],
        }.items()
    }
    for weight, factor in (("head.weight", 0.25), ("first.0.weight", 1.0)):
        plain, slow = (nets[name][weight] - nets["start"][weight] for name in ("plain", "slow"))
        assert plain.abs().max() > 1e-4
        torch.testing.assert_close(slow, factor * plain, rtol=1e-2, atol=1e-6)


def test_an_optimizer_keeps_its_own_rate_where_none_is_given(train_tiny: Train) -> None:
    words = ["optimizer=adam", "~optimizer.lr", "scheduler=none", "lr_factors={head:0.5}"]
    result = train_tiny(*words, "trainer.max_epochs=1", "test=false", "logger=[tensorboard]")
    groups = result.module.trainer.optimizers[0].param_groups
    assert {group["name"]: group["lr"] for group in groups} == {"others": 1e-3, "head": 5e-4}


def test_the_rate_of_an_optimizer_that_is_to_be_made() -> None:
    assert rate_of(partial(Muon, momentum=0.9)) == 5e-3
    assert rate_of(partial(SGD, lr=0.2)) == 0.2
    with pytest.raises(ValueError, match=r"lr_factors multiplies optimizer\.lr, which is None"):
        rate_of(lambda params: SGD(params))
