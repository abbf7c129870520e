"""Reports the progress of a sweep: `python -m segpets.sweep status=logs/train/multiruns/first`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.sweep.recipe import sweep as sweep

__all__ = ["sweep"]
__getattr__ = lazily(__name__, "recipe", __all__)
