import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.optim import SGD, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from segpets import scheduler

CONF = Path(__file__).parents[1] / "conf"
Make = Callable[..., Any]
PEAK = 0.1
TOTAL = 97  # prime, so that no share of it is a whole number of steps


def new_optimizer(lr: float = PEAK) -> SGD:
    """Two parameter groups, the second with a tenth of the rate."""
    groups: list[dict[str, Any]] = [
        {"params": [torch.nn.Parameter(torch.zeros(1))]},
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr / 10},
    ]
    return SGD(groups, lr=lr)


def advance(optimizer: Optimizer, schedule: LRScheduler, steps: int) -> list[float]:
    """Train for some steps; return the first group's rate in each."""
    rates = []
    for _ in range(steps):
        first, second = (float(group["lr"]) for group in optimizer.param_groups)
        assert second == pytest.approx(first / 10, rel=1e-12)
        rates.append(first)
        optimizer.step()
        schedule.step()
    return rates


def rates_of(make: Callable[[Optimizer], LRScheduler], steps: int = TOTAL) -> list[float]:
    optimizer = new_optimizer()
    return advance(optimizer, make(optimizer), steps)


def cosine_with_warmup(optimizer: Optimizer) -> LRScheduler:
    rise = int(0.1 * TOTAL)
    linear = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL - rise)
    return lr_scheduler.SequentialLR(optimizer, [linear, fall], milestones=[rise])


def torch_onecycle(optimizer: Optimizer, **keys: Any) -> LRScheduler:
    peaks = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(
        optimizer, max_lr=peaks, total_steps=TOTAL, cycle_momentum=False, **keys
    )


PAIRS = [
    pytest.param(
        scheduler.cosine,
        {},
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL),
        id="cosine",
    ),
    pytest.param(scheduler.cosine, {"warmup": 0.1}, cosine_with_warmup, id="cosine-warmup"),
    pytest.param(scheduler.onecycle, {}, torch_onecycle, id="onecycle"),
    pytest.param(
        scheduler.onecycle,
        {"pct_start": 0.05, "div_factor": 10.0, "final_div_factor": 100.0},
        lambda optimizer: torch_onecycle(
            optimizer, pct_start=0.05, div_factor=10.0, final_div_factor=100.0
        ),
        id="onecycle-keys",
    ),
    pytest.param(
        scheduler.polynomial,
        {},
        lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=TOTAL, power=0.9),
        id="polynomial",
    ),
    pytest.param(
        scheduler.step,
        {},
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.7),
        id="step",
    ),
    pytest.param(
        scheduler.constant,
        {},
        lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        id="constant",
    ),
]
BY_STEP_FUNCTIONS = [scheduler.cosine, scheduler.onecycle, scheduler.polynomial]


@pytest.mark.parametrize(("make", "keys", "torch_make"), PAIRS)
def test_rates_of_a_whole_run_are_those_of_torch(
    make: Make, keys: dict[str, float], torch_make: Callable[[Optimizer], LRScheduler]
) -> None:
    rates = rates_of(lambda optimizer: make(optimizer, total_steps=TOTAL, **keys)["scheduler"])
    assert rates == pytest.approx(rates_of(torch_make), rel=1e-12, abs=1e-12 * PEAK)


def test_rates_worked_by_hand() -> None:
    cosine = rates_of(lambda o: scheduler.cosine(o, total_steps=6, warmup=1 / 3)["scheduler"], 7)
    half = math.sqrt(0.5)
    expected = [1 / 3, 2 / 3, 1, (1 + half) / 2, 1 / 2, (1 - half) / 2, 0]
    assert cosine == pytest.approx([PEAK * factor for factor in expected])
    final = rates_of(lambda o: scheduler.cosine(o, total_steps=2, final=0.2)["scheduler"], 4)
    assert final == pytest.approx([PEAK * factor for factor in (1, 0.6, 0.2, 0.2)])
    polynomial = rates_of(lambda o: scheduler.polynomial(o, total_steps=4, power=2)["scheduler"], 5)
    assert polynomial == pytest.approx([PEAK * factor for factor in (1, 9 / 16, 1 / 4, 1 / 16, 0)])


@pytest.mark.parametrize("make", BY_STEP_FUNCTIONS)
def test_rate_stays_at_its_last_value_beyond_the_end(make: Make) -> None:
    """The last step of a run already asks for the rate of a step that doesn't come."""
    rates = rates_of(lambda o: make(o, total_steps=TOTAL)["scheduler"], TOTAL + 20)
    beyond = rates[TOTAL:]
    assert len(set(beyond)) == 1
    assert 0 <= beyond[0] <= min(rates[:TOTAL])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(
    ("make", "key"), [(scheduler.cosine, "warmup"), (scheduler.onecycle, "pct_start")]
)
@pytest.mark.parametrize("total_steps", [1, 2, 10])
def test_short_run_rises_and_falls_within_the_peak(
    make: Make, key: str, share: float, total_steps: int
) -> None:
    """torch's own OneCycleLR divides by zero at pct_start=0.1 of 10 steps."""
    keys = {key: share}
    rates = rates_of(
        lambda o: make(o, total_steps=total_steps, **keys)["scheduler"], total_steps + 2
    )
    top = rates.index(max(rates))
    assert all(0 <= rate <= PEAK for rate in rates)
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)


def saved(optimizer: Optimizer, schedule: LRScheduler) -> dict[str, Any]:
    """What a checkpoint would give back."""
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "scheduler").glob("*.yaml")))
def test_resumed_run_has_the_rates_of_one_that_never_stopped(name: str) -> None:
    def start() -> tuple[SGD, LRScheduler]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(overrides=[f"+scheduler={name}", "+optimized_metric=val/loss"])
        optimizer = new_optimizer()
        return optimizer, instantiate(config.scheduler)(optimizer, total_steps=TOTAL)["scheduler"]

    def train(optimizer: SGD, schedule: LRScheduler, steps: int) -> list[float]:
        if not isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            return advance(optimizer, schedule, steps)
        rates = []
        for _ in range(steps):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            schedule.step(torch.tensor(0.5))
        return rates

    whole = train(*start(), steps=TOTAL)
    optimizer, schedule = start()
    before = train(optimizer, schedule, 40)
    state = saved(optimizer, schedule)
    optimizer, schedule = start()
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    assert before + train(optimizer, schedule, TOTAL - 40) == whole


@pytest.mark.parametrize("make", BY_STEP_FUNCTIONS)
@pytest.mark.parametrize("stop", [40, TOTAL])
def test_extended_run_follows_the_longer_schedule_at_once(make: Make, stop: int) -> None:
    optimizer = new_optimizer()
    schedule = make(optimizer, total_steps=TOTAL)["scheduler"]
    advance(optimizer, schedule, stop)
    state = saved(optimizer, schedule)
    optimizer = new_optimizer()
    schedule = make(optimizer, total_steps=2 * TOTAL)["scheduler"]
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    rates_of_the_longer = rates_of(lambda o: make(o, total_steps=2 * TOTAL)["scheduler"], 2 * TOTAL)
    assert schedule.get_last_lr()[0] == rates_of_the_longer[stop]
    assert advance(optimizer, schedule, 2 * TOTAL - stop) == rates_of_the_longer[stop:]


def test_plateau_lowers_the_rate_when_the_metric_stops_rising() -> None:
    optimizer = new_optimizer()
    schedule = scheduler.plateau(optimizer, total_steps=TOTAL, factor=0.5, patience=2)
    assert schedule["monitor"] == "val/mean_iou"
    plateau = schedule["scheduler"]
    assert isinstance(plateau, lr_scheduler.ReduceLROnPlateau)
    rates = []
    for mean_iou in (0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.4):
        plateau.step(mean_iou)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [PEAK] * 5 + [PEAK / 2] * 2


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("none", "epoch"),
        ("step", "epoch"),
        ("plateau", "epoch"),
        ("cosine", "step"),
        ("onecycle", "step"),
        ("polynomial", "step"),
    ],
)
@pytest.mark.parametrize("optimizer_name", ["muon", "adam", "adamw", "sgd"])
def test_every_optimizer_goes_with_every_schedule(
    optimizer_name: str, name: str, interval: str
) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            overrides=[f"+optimizer={optimizer_name}", f"+scheduler={name}", "+optimized_metric=a"]
        )
    optimizer = instantiate(config.optimizer)([torch.nn.Parameter(torch.ones(1))])
    schedule = instantiate(config.scheduler)(optimizer, total_steps=TOTAL)
    assert schedule["interval"] == interval
    assert 0 < optimizer.param_groups[0]["lr"] <= config.optimizer.lr


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (scheduler.cosine, {"warmup": 1.0}, r"scheduler.warmup is 1.0; give a share"),
        (scheduler.onecycle, {"pct_start": -0.1}, r"scheduler.pct_start is -0.1; give a share"),
        (scheduler.onecycle, {"div_factor": 0.0}, "must be positive"),
        (scheduler.polynomial, {"power": 0.0}, r"scheduler.power is 0.0; give a positive"),
        (scheduler.step, {"step_size": 0}, r"scheduler.step_size is 0; give a number of epochs"),
        (scheduler.cosine, {"total_steps": 0}, r"set trainer.max_epochs, or take scheduler=none"),
        (scheduler.onecycle, {"total_steps": -1}, r"set trainer.max_epochs"),
        (scheduler.polynomial, {"total_steps": 0}, r"set trainer.max_epochs"),
    ],
)
def test_keys_out_of_range_are_refused(make: Make, keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(new_optimizer(), **{"total_steps": TOTAL, **keys})
