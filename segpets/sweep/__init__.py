"""Reports the progress of a sweep: `python -m segpets.sweep status=logs/train/multiruns/first`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.sweep.recipe import sweep as sweep

__all__ = ["sweep"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.sweep.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
