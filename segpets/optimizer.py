"""Optimizers as they run fastest: one kernel for all weights."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

_OTHER_WAYS = ("fused", "foreach", "capturable", "differentiable")


def made_fused(make: Callable[..., Optimizer], weights: Iterable[nn.Parameter]) -> Optimizer:
    """Makes an optimizer, fused where it can be, unless its config says how it runs.

    One kernel updates all weights, and reads nothing back from a device. Results differ in the last
    bits. On a CPU, AdamW's step takes a third of the time; see docs/LOG.md.

    Args:
        make: Makes the optimizer from weights and keyword arguments; Hydra makes it of a config.
        weights: What it trains, on the device where it is trained.
    """
    weights = list(weights)
    given: Mapping[str, Any] = getattr(make, "keywords", {})
    keys = inspect.signature(getattr(make, "func", make)).parameters
    chosen = any(given.get(key) for key in _OTHER_WAYS) or given.get("fused") is False
    devices = _get_fused_kernels_supported_devices()
    fits = all(one.device.type in devices and one.is_floating_point() for one in weights)
    if "fused" not in keys or chosen or not fits:
        return make(weights)
    optimizer = make(weights, fused=True)
    # It says that the optimizer undoes the scale of fp16 by itself, and Lightning refuses to clip
    # gradients then, in bf16, too. The scaler can undo it, as it does for all other optimizers.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer
