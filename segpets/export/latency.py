"""Latencies of models for one image, measured side by side."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from torch import Tensor

_ROUNDS: Final = 5


def latencies(
    models: Mapping[str, Callable[[Tensor], Tensor]], images: Sequence[Tensor], *, repeats: int
) -> dict[str, float]:
    """Measures the median time of each model for one image, in milliseconds.

    The models take turns, in five rounds, so that whatever else the machine does affects all of
    them. The first two images of a turn aren't counted: they wake the model's threads, and put
    those of the previous model to sleep.

    Args:
        models: uint8 (1, 3, H, W) to logits, by name.
        images: uint8 (3, H, W).
        repeats: The number of counted measurements for each model.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    each = -(-repeats // _ROUNDS)
    for turn in range(_ROUNDS):
        for name, predict in models.items():
            for step in range(-2, each):
                image = images[(turn * each + step) % len(images)][None]
                begun = time.perf_counter()
                predict(image)
                if step >= 0:
                    times[name].append(time.perf_counter() - begun)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}
