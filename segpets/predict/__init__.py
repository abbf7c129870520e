"""Predicts pictures: `python -m segpets.predict run=latest source=photos output=predicted`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.predict.recipe import Result as Result
    from segpets.predict.recipe import predict as predict

__all__ = ["Result", "predict"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.predict.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
