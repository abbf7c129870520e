"""Learning-rate schedules: `schedule(optimizer, total_steps=...)` gives what Lightning asks for.

The optimizer's own `lr` is the base, or the peak, of every schedule. Except for `plateau` the rate
is a function of the number of steps (or epochs) done and of the keys that the run was started with,
and the number of steps is all that a checkpoint decides. So a run that is resumed with a larger
`trainer.max_epochs` follows the longer schedule, and a step beyond the end keeps the last rate,
where torch's OneCycleLR would raise.
"""

import math
from typing import Any, Literal

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


def constant(optimizer: Optimizer, *, total_steps: int) -> LRSchedulerConfigType:
    """Keep the rate."""
    return {"scheduler": _Multiplied(optimizer, lambda _: 1.0), "interval": "epoch"}


def step(
    optimizer: Optimizer, *, total_steps: int, step_size: int = 7, gamma: float = 0.7
) -> LRSchedulerConfigType:
    """Multiply the rate by `gamma` every `step_size` epochs, as torch's StepLR."""
    if step_size < 1:
        raise ValueError(f"scheduler.step_size is {step_size}; give a number of epochs >= 1")
    scheduler = _Multiplied(optimizer, lambda epoch: gamma ** (epoch // step_size))
    return {"scheduler": scheduler, "interval": "epoch"}


def cosine(
    optimizer: Optimizer, *, total_steps: int, warmup: float = 0.0, final: float = 0.0
) -> LRSchedulerConfigType:
    """Rise linearly, then fall along half a cosine, as torch's LinearLR and CosineAnnealingLR.

    SGDR: Stochastic Gradient Descent with Warm Restarts. Ilya Loshchilov, Frank Hutter, 2016,
    arXiv 1608.03983; here without restarts.

    Args:
        optimizer: Its lr is the peak.
        total_steps: Steps of the optimizer in the whole run.
        warmup: Share of the run, in [0, 1), that rises.
        final: The last rate, as a factor of the peak.

    Raises:
        ValueError: If `warmup` or `total_steps` is out of range.
    """
    _check_total(total_steps)
    if not 0 <= warmup < 1:
        raise ValueError(f"scheduler.warmup is {warmup}; give a share of the run in [0, 1)")
    rise = int(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / (total_steps - rise))
        return _cosine_between(1.0, final, done)

    return {"scheduler": _Multiplied(optimizer, factor), "interval": "step"}


def onecycle(
    optimizer: Optimizer,
    *,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> LRSchedulerConfigType:
    """Rise and fall along two half cosines, as torch's OneCycleLR.

    Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates. Leslie N.
    Smith, Nicholay Topin, 2017, arXiv 1708.07120. The paper, and torch by default, let momentum
    (Adam's beta1) fall and rise against the rate; here it stays what the optimizer says.

    Args:
        optimizer: Its lr is the peak.
        total_steps: Steps of the optimizer in the whole run.
        pct_start: Share of the run, in [0, 1), that rises.
        div_factor: The first rate is the peak divided by this.
        final_div_factor: The last rate is the first divided by this.

    Raises:
        ValueError: If `pct_start`, a divisor or `total_steps` is out of range.
    """
    _check_total(total_steps)
    if not 0 <= pct_start < 1:
        raise ValueError(f"scheduler.pct_start is {pct_start}; give a share of the run in [0, 1)")
    if min(div_factor, final_div_factor) <= 0:
        raise ValueError("scheduler.div_factor and scheduler.final_div_factor must be positive")
    first = 1 / div_factor
    last = first / final_div_factor
    end = total_steps - 1  # the run's last step has the last rate
    peak = pct_start * total_steps - 1

    def factor(step: int) -> float:
        step = min(step, end)
        if step < peak:
            return _cosine_between(first, 1.0, step / peak)
        return _cosine_between(1.0, last, (step - peak) / (end - peak))

    return {"scheduler": _Multiplied(optimizer, factor), "interval": "step"}


def polynomial(
    optimizer: Optimizer, *, total_steps: int, power: float = 0.9
) -> LRSchedulerConfigType:
    """Fall to 0 as (1 - step / total_steps) ** power, as torch's PolynomialLR.

    ParseNet: Looking Wider to See Better. Wei Liu, Andrew Rabinovich, Alexander C. Berg, 2015,
    arXiv 1506.04579, whence DeepLab has it.
    """
    _check_total(total_steps)
    if power <= 0:
        raise ValueError(f"scheduler.power is {power}; give a positive number")
    scheduler = _Multiplied(optimizer, lambda step: max(0.0, 1 - step / total_steps) ** power)
    return {"scheduler": scheduler, "interval": "step"}


def plateau(
    optimizer: Optimizer,
    *,
    total_steps: int,
    monitor: str = "val/mean_iou",
    mode: Literal["min", "max"] = "max",
    factor: float = 0.5,
    patience: int = 5,
) -> LRSchedulerConfigType:
    """Multiply the rate by `factor` after `patience` epochs without a better `monitor`."""
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
    # Not strict: an epoch without validation has no new value, and is no error.
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "strict": False}


class _Multiplied(LambdaLR):
    """The base rate times factor(steps done), also right after a checkpoint was loaded."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the number of steps, and compute the rate anew."""
        super().load_state_dict(state_dict)
        # The checkpoint's rate belongs to the total_steps of the run that wrote it.
        self._last_lr = [
            base * factor(self.last_epoch)
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def _cosine_between(start: float, end: float, done: float) -> float:
    """Half a cosine from start (done = 0) to end (done = 1)."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


def _check_total(total_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(
            f"the run has {total_steps} steps, but this schedule needs to know at least one: "
            "set trainer.max_epochs, or take scheduler=none"
        )
