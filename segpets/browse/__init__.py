"""Shows a data set, and what is wrong with it: `python -m segpets.browse doctor=true`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.browse.recipe import Result as Result
    from segpets.browse.recipe import browse as browse

__all__ = ["Result", "browse"]
__getattr__ = lazily(__name__, "recipe", __all__)
