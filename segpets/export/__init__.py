"""Writes a run's model as one file: `python -m segpets.export run=latest format=onnx`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.export.recipe import Result as Result
    from segpets.export.recipe import export as export

__all__ = ["Result", "export"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.export.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
