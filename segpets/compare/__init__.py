"""Compares runs: `python -m segpets.compare runs=logs/train/multiruns/first`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.compare.recipe import Result as Result
    from segpets.compare.recipe import compare as compare

__all__ = ["Result", "compare"]
__getattr__ = lazily(__name__, "recipe", __all__)
