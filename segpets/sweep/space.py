"""The space of a search: Hydra's syntax as distributions that Optuna draws from."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from segpets.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


_DIGITS: Final = 6


def distribution(override: Override) -> "BaseDistribution":
    """Turns Hydra's syntax into an Optuna distribution.

    `choice(a,b)` and `a,b` are categories, `range(1,9,2)` steps, `interval(0,1)` real numbers and
    `int(interval(1,8))` whole ones; `tag(log, ...)` draws the logarithm evenly.

    Raises:
        UserError: It is none of these.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    key, value = override.get_key_element(), override.value()
    try:
        if isinstance(value, ChoiceSweep):
            return CategoricalDistribution(list(override.sweep_string_iterator()))
        if isinstance(value, IntervalSweep):
            low, high, log_ = value.start, value.end, "log" in value.tags
            if isinstance(low, int) and isinstance(high, int) and not isinstance(low, bool):
                return IntDistribution(low, high, log=log_)
            assert low is not None and high is not None
            return FloatDistribution(float(low), float(high), log=log_)
        if isinstance(value, RangeSweep):
            assert value.start is not None and value.stop is not None
            whole = all(isinstance(n, int) for n in (value.start, value.stop, value.step))
            if whole:
                last = range(int(value.start), int(value.stop), int(value.step))[-1]
                return IntDistribution(int(value.start), last, step=int(value.step))
            steps = math.ceil((value.stop - value.start) / value.step) - 1
            last_ = value.start + steps * value.step
            return FloatDistribution(float(value.start), float(last_), step=float(value.step))
    except (ValueError, IndexError) as error:
        raise UserError(f"{override.input_line} can't be searched: {error}") from error
    raise UserError(
        f"{key} can't be searched by {override.input_line}: write interval(a,b), choice(a,b), "
        "range(a,b) or tag(log,interval(a,b))"
    )


def examples(space: Mapping[str, "BaseDistribution"]) -> list[dict[str, Any]]:
    """Draws values so that each choice occurs once."""
    every = {
        key: getattr(values, "choices", None) or (getattr(values, "low"),)  # noqa: B009
        for key, values in space.items()
    }
    first = {key: values[0] for key, values in every.items()}
    return [first, *(first | {key: v} for key, values in every.items() for v in values[1:])]


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Writes values as overrides; real numbers to six significant digits."""
    return [
        f"{key}={value:.{_DIGITS}g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]
