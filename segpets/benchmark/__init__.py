"""Measures what models cost and how fast they are: `python -m segpets.benchmark model=unet`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.benchmark.recipe import Result as Result
    from segpets.benchmark.recipe import benchmark as benchmark

__all__ = ["Result", "benchmark"]
__getattr__ = lazily(__name__, "recipe", __all__)
