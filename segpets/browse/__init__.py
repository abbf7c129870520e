"""Shows a data set, and what is wrong with it: `python -m segpets.browse doctor=true`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.browse.recipe import Result as Result
    from segpets.browse.recipe import browse as browse

__all__ = ["Result", "browse"]


def __getattr__(name: str) -> Any:
    # The recipe imports torch, which takes seconds; --help and typos are answered without it.
    if name in __all__:
        return getattr(import_module("segpets.browse.recipe"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
