"""ONNX files, run by ONNX Runtime."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from segpets.errors import UserError


def need_onnx() -> None:
    """Checks that the extra is installed.

    Raises:
        UserError: A package is missing.
    """
    packages = ("onnx", "onnxscript", "onnxruntime")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"exporting to ONNX needs {' and '.join(missing)}: pip install 'segpets[export]'"
        )


class OnnxModel:
    """An ONNX file, ready to predict on the CPU.

    Args:
        file: The file.
        threads: The number of threads; None takes as many as PyTorch.
    """

    def __init__(self, file: Path, *, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Maps uint8 (B, 3, H, W) to float32 logits (B, C, H, W)."""
        (logits,) = self._session.run(["logits"], {"image": image.numpy()})
        return torch.from_numpy(logits)
