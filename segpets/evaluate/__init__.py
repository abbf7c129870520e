"""Judges a trained model on the images of a stage: `python -m segpets.evaluate run=latest`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.evaluate.recipe import Result as Result
    from segpets.evaluate.recipe import evaluate as evaluate

__all__ = ["Result", "evaluate"]
__getattr__ = lazily(__name__, "recipe", __all__)
