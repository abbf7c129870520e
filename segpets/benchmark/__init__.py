"""Measures what models cost and how fast they are: `python -m segpets.benchmark model=unet`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.benchmark.recipe import Result as Result
    from segpets.benchmark.recipe import benchmark as benchmark

__all__ = ["Result", "benchmark"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.benchmark.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
