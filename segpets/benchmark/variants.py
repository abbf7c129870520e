"""The ways in which a model computes, each as a callable that can be timed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from segpets.benchmark.subject import Subject
from segpets.errors import UserError
from segpets.inference.onnx_session import OnnxModel, need_onnx
from segpets.inference.trained import autocast
from segpets.module import Preprocess
from segpets.run.files import shown

Pass = Callable[[], None]
"""Computes the logits of one batch, and returns when they are there."""


@dataclass(frozen=True)
class Variant:
    """A way to compute.

    Attributes:
        name: Its name in the config.
        title: A description in words.
        devices: The types of devices that it is for.
        precision: Lightning's name of the precision that it computes in.
        channels_last: Whether channels come last in memory, in images and weights; else first.
        compiled: Whether torch.compile compiles it.
        file: The exported file that it runs, below the run directory; None computes with PyTorch.
    """

    name: str
    title: str
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    precision: str = "32-true"
    channels_last: bool = True
    compiled: bool = False
    file: str | None = None


_ALL: Final = (
    Variant("eager", "eager, fp32, channels first", channels_last=False),
    Variant("channels_last", "eager, fp32, channels last"),
    Variant("bf16", "eager, bf16 autocast, channels last", precision="bf16-mixed"),
    Variant(
        "fp16",
        "eager, fp16 autocast, channels last",
        devices=("cuda", "mps"),
        precision="16-mixed",
    ),
    Variant("compile", "torch.compile, fp32, channels last", ("cpu", "cuda"), compiled=True),
    Variant(
        "compile_bf16",
        "torch.compile, bf16 autocast, channels last",
        devices=("cpu", "cuda"),
        precision="bf16-mixed",
        compiled=True,
    ),
    Variant("onnx", "ONNX, fp32, onnxruntime", ("cpu",), file="export/model.onnx"),
    Variant("onnx_int8", "ONNX, int8, onnxruntime", ("cpu",), file="export/model_int8.onnx"),
)
VARIANTS: Final = {variant.name: variant for variant in _ALL}
OWN: Final = {"32-true": "channels_last", "bf16-mixed": "bf16", "16-mixed": "fp16"}
"""What `segpets.load` computes with, by a run's precision."""
EXPORTS: Final = {"export/model.onnx": "onnx", "export/model_int8.onnx": "onnx_int8"}
"""The format of `segpets.export` that writes a file."""


class ChannelsFirst(nn.Module):
    """`Preprocess`, with the image's channels first in memory."""

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, image: Tensor) -> Tensor:
        """Normalises (B, C, H, W) to float32 (B, C, H, W)."""
        return torch.addcmul(self.preprocess.shift, image.float(), self.preprocess.scale)


def prepare(
    variant: Variant, subject: Subject, device: torch.device, threads: int
) -> Callable[[int], Pass]:
    """Loads what a variant runs; returns a function that makes passes for a batch size.

    Raises:
        UserError: The variant isn't available; the message says why, and how to get it.
    """
    if variant.file is not None:
        return _onnx(variant.file, subject, threads)
    return _torch(variant, subject, device)


def _torch(variant: Variant, subject: Subject, device: torch.device) -> Callable[[int], Pass]:
    segmenter = subject.segmenter(device)
    if not variant.channels_last:
        assert isinstance(segmenter.preprocess, Preprocess)
        segmenter.preprocess = ChannelsFirst(segmenter.preprocess)
        segmenter.net.to(memory_format=torch.contiguous_format)

    def passes(batch: int) -> Pass:
        images = subject.images(batch, subject.size).to(device)
        model: Callable[[Tensor], Tensor] = segmenter
        if variant.compiled:
            torch.compiler.reset()  # else many sizes reach its limit, and the rest runs eager
            model = torch.compile(segmenter, dynamic=False)

        def one() -> None:
            with torch.inference_mode(), autocast(device, variant.precision):
                model(images)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)

        return one

    return passes


def _onnx(file: str, subject: Subject, threads: int) -> Callable[[int], Pass]:
    path = exported(file, subject)
    need_onnx()
    model = OnnxModel(path, threads=threads)

    def passes(batch: int) -> Pass:
        images = subject.images(batch, subject.padded)
        return lambda: (model(images), None)[1]

    return passes


def exported(file: str, subject: Subject) -> Path:
    """Finds a run's exported file.

    Raises:
        UserError: There is none.
    """
    if subject.run is None:
        raise UserError("only a trained run can be exported: give run=DIR")
    if subject.others:
        raise UserError("several models can't be exported as one file")
    path = subject.run.path / file
    if not path.is_file():
        raise UserError(
            f"{file} is missing: python -m segpets.export run={shown(subject.run.path)} "
            f"format={EXPORTS[file]}"
        )
    return path
