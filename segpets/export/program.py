"""Tracing a net for any batch and size, and the file of `torch.export`."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segpets.errors import UserError

log = logging.getLogger(__name__)

_CHATTY: Final = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps libraries' messages off the console; their warnings go to our log."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            log.debug("%s: %s", warning.category.__name__, warning.message)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def trace(segmenter: nn.Module, like: Tensor, *, stride: int) -> ExportedProgram:
    """Turns a net into a graph for any batch and for any height and width that fit its stride.

    Args:
        segmenter: Images (B, C, H, W) to logits, on the CPU.
        like: An image, (C, H, W), of the size that it was trained at.
        stride: The multiple that height and width must be.

    Raises:
        UserError: `torch.export` can't trace the net.
    """
    # Two strides at least: a size of one would be taken for a constant.
    high, wide = (max(2, -(-side // stride)) * stride for side in like.shape[-2:])
    image = torch.zeros(2, len(like), high, wide, dtype=like.dtype)
    # Multiples of the stride leave no padding to the graph, and none could be written into it.
    shapes = {"image": {0: Dim("batch"), 2: stride * Dim("rows"), 3: stride * Dim("columns")}}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                segmenter, (), {"image": image}, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # somebody else's net can raise anything
        log.debug("torch.export fails", exc_info=error)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"the net can't be exported for all sizes ({type(error).__name__}: {reason}): its "
            "forward must not ask for the values of tensors, nor branch by the image's size"
        ) from error


def to_program(
    segmenter: nn.Module, file: Path, like: Tensor, *, stride: int, metadata: Mapping[str, str]
) -> None:
    """Writes a file for `torch.export.load`, with the metadata as `extra_files`.

    Args:
        segmenter: Images (B, C, H, W) to logits, on the CPU.
        file: The file to write; its name ends in `.pt2`.
        like: An image, (C, H, W), of the size that it was trained at.
        stride: The multiple that height and width must be.
        metadata: Names and values.

    Raises:
        UserError: The net can't be exported.
    """
    program = trace(segmenter, like, stride=stride)
    with quiet():
        torch.export.save(program, file, extra_files=dict(metadata))


class ProgramModel:
    """A file of `torch.export`, ready to predict.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        with quiet():
            self._module = torch.export.load(file).module()

    def __call__(self, image: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to float32 logits (B, C, H, W)."""
        with torch.inference_mode():
            logits: Tensor = self._module(image=image)
        return logits
