"""Static quantisation after training: int8 weights and activations, with measured ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor

from segpets.export.program import quiet

_PRODUCTS: Final = ("Conv", "MatMul", "Gemm")
_FLOAT_ONLY: Final = {"ConvTranspose"}
"""onnxruntime has no integer kernel for it on a CPU: to and from int8 would only take time."""


def to_int8(source: Path, file: Path, images: Iterable[Tensor]) -> None:
    """Quantises an ONNX file.

    Args:
        source: The file in float32.
        file: The file to write.
        images: Training images, uint8 (3, H, W), H and W multiples of the stride: the range of
            every activation is measured on them.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.images, None)
            return None if image is None else {"image": np.asarray(image[None])}

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".int8-") as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared, load_external_data=False).graph.node
        first = next((i for i, node in enumerate(nodes) if node.op_type in _PRODUCTS), 0)
        quantization.quantize_static(
            prepared,
            file,
            Reader(),
            op_types_to_quantize=sorted(set(QDQRegistry) - _FLOAT_ONLY),
            nodes_to_exclude=[node.name for node in nodes[:first]],  # the normalisation
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
