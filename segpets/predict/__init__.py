"""Predicts pictures: `python -m segpets.predict run=latest source=photos output=predicted`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.predict.recipe import Result as Result
    from segpets.predict.recipe import predict as predict

__all__ = ["Result", "predict"]
__getattr__ = lazily(__name__, "recipe", __all__)
