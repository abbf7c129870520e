"""Trains a model and tests it: `python -m segpets.train model=segnet loss=soft_iou`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.train.recipe import Result as Result
    from segpets.train.recipe import train as train

__all__ = ["Result", "train"]
__getattr__ = lazily(__name__, "recipe", __all__)
