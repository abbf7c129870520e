"""Trains a model and tests it: `python -m segpets.train model=segnet loss=soft_iou`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.train.recipe import Result as Result
    from segpets.train.recipe import train as train

__all__ = ["Result", "train"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.train.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
