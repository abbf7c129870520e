"""Compares runs: `python -m segpets.compare runs=logs/train/multiruns/first`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.compare.recipe import Result as Result
    from segpets.compare.recipe import compare as compare

__all__ = ["Result", "compare"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.compare.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
