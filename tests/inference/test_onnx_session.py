"""An ONNX file from others can't keep a command for ever."""

from pathlib import Path

import pytest
import torch

from segpets.errors import UserError
from segpets.inference import onnx_session
from segpets.inference.onnx_session import OnnxModel

onnx = pytest.importorskip("onnx")


def endless(file: Path) -> None:
    """Writes a model whose logits wait for a loop of 2 ** 62 rounds."""
    from onnx import TensorProto, helper

    number = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["sum", "one"], ["next_sum"]),
        ],
        "body",
        [
            number("round", TensorProto.INT64, []),
            number("on", TensorProto.BOOL, []),
            number("sum", TensorProto.FLOAT, []),
        ],
        [number("still_on", TensorProto.BOOL, []), number("next_sum", TensorProto.FLOAT, [])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["rounds", "yes", "zero"], ["added"], body=body),
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["floats", "added"], ["logits"]),
        ],
        "endless",
        [number("image", TensorProto.UINT8, ["b", 3, "h", "w"])],
        [number("logits", TensorProto.FLOAT, ["b", 3, "h", "w"])],
        [
            helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file)


def test_a_file_that_never_ends_is_stopped_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_session, "_LONGEST", 1)
    endless(tmp_path / "model.onnx")
    model = OnnxModel(tmp_path / "model.onnx", threads=1)
    with pytest.raises(UserError, match=r"model\.onnx doesn't end within 1 s: export the run"):
        model(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
