"""Optimizers as they run fastest, and what they train: all weights, or not all alike."""

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from torch import nn
from torch.optim import Optimizer
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

BROUGHT: Final = "init_from"
"""The word for the weights that `init_from` brought."""

_OTHER_WAYS = ("fused", "foreach", "capturable", "differentiable")


def chosen(
    net: nn.Module, patterns: Iterable[str], *, key: str, brought: Collection[str] = ()
) -> dict[str, list[str]]:
    """Finds the weights that patterns name.

    Args:
        net: The net.
        patterns: Each the name of a weight or of a module, with `*` and `?` for any letters, or
            `init_from`.
        key: The override that gave them, for messages.
        brought: The weights that `init_from` brought.

    Returns:
        For each pattern the names of its weights.

    Raises:
        ValueError: One names nothing.
    """
    names = [name for name, _ in net.named_parameters()]
    found = {}
    for pattern in patterns:
        if pattern == BROUGHT:
            own = [name for name in names if name in brought]
            hint = "give init_from=RUN, from which some fit"
        else:
            own = [name for name in names if _matches(name, pattern)]
            parts = dict.fromkeys(name.partition(".")[0] for name in names)
            hint = f"the model has {', '.join(parts)}"
        if not own:
            raise ValueError(f"{key} names {pattern}, but no weight is called so: {hint}")
        found[pattern] = own
    return found


def _matches(name: str, pattern: str) -> bool:
    parts = name.split(".")
    wholes = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return any(fnmatchcase(whole, pattern) for whole in wholes)


def freeze(net: nn.Module, patterns: Sequence[str], *, brought: Collection[str] = ()) -> None:
    """Stops the training of weights; modules that are wholly frozen also keep their statistics.

    Raises:
        ValueError: A pattern names nothing, or they name everything.
    """
    named = chosen(net, patterns, key="freeze", brought=brought)
    frozen = {name for names in named.values() for name in names}
    for name, weight in net.named_parameters():
        weight.requires_grad_(name not in frozen)
    if not any(weight.requires_grad for weight in net.parameters()):
        raise ValueError(f"freeze=[{','.join(patterns)}] leaves nothing to train")


def keep_statistics(net: nn.Module) -> None:
    """Puts the modules in evaluation mode all of whose weights are frozen, such as BatchNorms."""
    for module in net.modules():
        weights = [*module.parameters()]
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


def with_rates(
    net: nn.Module, factors: Mapping[str, float], *, lr: float, brought: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Divides the weights that are trained into groups with rates of their own.

    Args:
        net: The net.
        factors: By pattern, what multiplies the rate; of several that name a weight, the last.
        lr: The rate of the others.
        brought: The weights that `init_from` brought.

    Raises:
        ValueError: A pattern names nothing, or a factor isn't positive.
    """
    for pattern, factor in factors.items():
        if not 0 < factor < math.inf:
            raise ValueError(f"lr_factors.{pattern}={factor} must be positive; freeze stops them")
    named = chosen(net, factors, key="lr_factors", brought=brought)
    owner = {name: pattern for pattern, names in named.items() for name in names}
    groups: dict[str, dict[str, Any]] = {"others": {"params": [], "name": "others"}}
    for pattern, factor in factors.items():
        groups[pattern] = {"params": [], "name": pattern, "lr": lr * factor}
    for name, weight in net.named_parameters():
        if weight.requires_grad:
            groups[owner.get(name, "others")]["params"].append(weight)
    return [group for group in groups.values() if group["params"]]


def rate_of(make: Callable[..., Optimizer]) -> float:
    """Finds the rate of an optimizer that is to be made: the one given, or its default.

    Raises:
        ValueError: It knows no `lr`.
    """
    known = inspect.signature(getattr(make, "func", make)).parameters.get("lr")
    rate = getattr(make, "keywords", {}).get("lr", known.default if known else None)
    if not isinstance(rate, int | float):
        raise ValueError(f"lr_factors multiplies optimizer.lr, which is {rate}")
    return float(rate)


def made_fused(
    make: Callable[..., Optimizer], weights: Iterable[nn.Parameter] | list[dict[str, Any]]
) -> Optimizer:
    """Makes an optimizer, fused where it can be, unless its config says how it runs.

    One kernel updates all weights, and reads nothing back from a device. Results differ in the last
    bits. On a CPU, AdamW's step takes a third of the time; see docs/LOG.md.

    Args:
        make: Makes the optimizer from weights and keyword arguments; Hydra makes it of a config.
        weights: What it trains, on the device where it is trained, perhaps in groups.
    """
    given_groups = [*weights]
    every = [one for group in given_groups for one in _of_group(group)]
    given: Mapping[str, Any] = getattr(make, "keywords", {})
    keys = inspect.signature(getattr(make, "func", make)).parameters
    said = any(given.get(key) for key in _OTHER_WAYS) or given.get("fused") is False
    devices = _get_fused_kernels_supported_devices()
    fits = all(one.device.type in devices and one.is_floating_point() for one in every)
    if "fused" not in keys or said or not fits:
        return make(given_groups)
    optimizer = make(given_groups, fused=True)
    # It says that the optimizer undoes the scale of fp16 by itself, and Lightning refuses to clip
    # gradients then, in bf16, too. The scaler can undo it, as it does for all other optimizers.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def _of_group(group: nn.Parameter | dict[str, Any]) -> list[nn.Parameter]:
    return [*group["params"]] if isinstance(group, dict) else [group]
