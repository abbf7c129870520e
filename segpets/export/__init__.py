"""Writes a run's model as one file: `python -m segpets.export run=latest format=onnx`."""

from typing import TYPE_CHECKING

from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.export.recipe import Result as Result
    from segpets.export.recipe import export as export

__all__ = ["Result", "export"]
__getattr__ = lazily(__name__, "recipe", __all__)
