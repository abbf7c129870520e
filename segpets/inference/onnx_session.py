"""ONNX files, run by ONNX Runtime."""

import importlib.util
import threading
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from segpets.errors import UserError

_LONGEST: Final = 120


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
        self._file, self._first = file, True

    def __call__(self, image: Tensor) -> Tensor:
        """Maps uint8 (B, 3, H, W) to float32 logits (B, C, H, W).

        Raises:
            UserError: The first pass doesn't end: a file from others may hold an endless loop.
        """
        if not self._first:
            return self._run(image, None)
        from onnxruntime import RunOptions

        self._first, options = False, RunOptions()
        timer = threading.Timer(_LONGEST, setattr, (options, "terminate", True))
        timer.start()
        try:
            return self._run(image, options)
        except Exception as error:
            if options.terminate:
                raise UserError(
                    f"{self._file} doesn't end within {_LONGEST} s: export the run again"
                ) from error
            raise
        finally:
            timer.cancel()

    def _run(self, image: Tensor, options: Any) -> Tensor:
        (logits,) = self._session.run(["logits"], {"image": image.numpy()}, options)
        return torch.from_numpy(logits)
