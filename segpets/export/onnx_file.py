"""ONNX files: written by PyTorch's exporter, checked, and run by ONNX Runtime."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from segpets.errors import UserError
from segpets.export.program import quiet, trace

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger(__name__)

_LIMIT: Final = 2**31 - 2**20
"""Bytes: a protobuf holds less than 2 GiB."""


def to_onnx(
    segmenter: nn.Module, file: Path, like: Tensor, *, stride: int, metadata: Mapping[str, str]
) -> None:
    """Writes one ONNX file that takes any batch and any multiple of the stride, and checks it.

    Args:
        segmenter: Images (B, C, H, W) to logits, on the CPU.
        file: The file to write.
        like: An image, (C, H, W), of the size that it was trained at.
        stride: The multiple that height and width must be.
        metadata: Names and values.

    Raises:
        UserError: The net can't be exported, or is too large for one file.
    """
    import onnx

    weights = sum(w.numel() * w.element_size() for w in segmenter.state_dict().values())
    if weights > _LIMIT:
        raise UserError(
            f"the weights take {weights / 1e9:.1f} GB, but an ONNX file holds less than 2.1: "
            "export with format=torch_export"
        )
    program = trace(segmenter, like, stride=stride)
    try:
        with torch.no_grad(), quiet():
            made = torch.onnx.export(
                program,
                input_names=["image"],
                output_names=["logits"],
                dynamo=True,
                verbose=False,
            )
        assert made is not None
        model: ModelProto = made.model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        log.debug("torch.onnx.export fails", exc_info=error)
        reason = str(error).strip().splitlines()[0][:300]
        raise UserError(
            f"the net has an operation that ONNX can't express ({reason}): "
            "export with format=torch_export"
        ) from error
    _tidy(model)
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _tidy(model: "ModelProto") -> None:
    """Names the axes, and removes the exporter's notes: source lines, with this machine's paths.

    The inferred shapes of inner values go, too, since they use the axes' former names; readers of
    the file infer them anew.
    """
    graph = model.graph
    for value, channels in ((graph.input[0], "channels"), (graph.output[0], "classes")):
        for name, axis in zip(
            ("batch", channels, "height", "width"), value.type.tensor_type.shape.dim, strict=True
        ):
            if not axis.HasField("dim_value"):
                axis.dim_param = name
    del graph.value_info[:]
    functions = [function.node for function in model.functions]
    for noted in (graph.input, graph.output, graph.initializer, graph.node, *functions):
        for item in noted:
            del item.metadata_props[:]
            item.ClearField("doc_string")
    del graph.metadata_props[:], model.metadata_props[:]


def opset_of(file: Path) -> int:
    """Reads the version of ONNX's own operators that a file uses."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    return next(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))
