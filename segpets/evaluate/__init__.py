"""Judges a trained model on the images of a stage: `python -m segpets.evaluate run=latest`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.evaluate.recipe import Result as Result
    from segpets.evaluate.recipe import evaluate as evaluate

__all__ = ["Result", "evaluate"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.evaluate.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
