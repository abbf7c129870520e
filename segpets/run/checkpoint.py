"""Reads checkpoints: tensors and plain data, with errors in our own words."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segpets.errors import FileError


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a training checkpoint without running any code that it may hold.

    Returns:
        The saved data, with `state_dict`, `epoch` and `global_step`; its tensors stay on the disk
        until they are used.

    Raises:
        FileError: It isn't there, is damaged, or holds something else.
    """
    other = "last" if file.stem == "best" else "best"
    try:
        saved: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise FileError(file, "is missing", "train the model first") from error
    except pickle.UnpicklingError as error:
        raise FileError(
            file,
            "holds more than weights and plain data, or is damaged, and isn't loaded "
            f"({str(error).splitlines()[0].strip()[:200]})",
            f"don't use it, unless checkpoint={other} is sound",
        ) from error
    except Exception as error:  # damaged bytes can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:200]
        raise FileError(
            file,
            f"can't be read ({reason}); was it cut off?",
            f"take checkpoint={other}, or continue the training with resume=RUN",
        ) from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FileError(file, "is no checkpoint of a training: it has no state_dict", "replace it")
    if not isinstance(saved.get("epoch", 0), int):
        raise FileError(file, "is damaged: its epoch is no number", "replace it")
    return dict(saved)
