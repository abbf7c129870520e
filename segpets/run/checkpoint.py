"""Reads checkpoints: tensors and plain data, with errors in our own words.

PyTorch's `weights_only` runs no code, but a file of some hundred bytes can make it ask for
gigabytes. So the archive is looked at before PyTorch sees it: its records lie there as they are,
uncompressed and within the file, and its pickle names nothing but tensors and their parts.
"""

import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from segpets.errors import FileError, UserError
from segpets.reading import in_one_line

_LARGEST_PICKLE: Final = 64_000_000
_LARGEST_TEXT: Final = 1_000_000
_TENSORS: Final = {
    *(("collections", "OrderedDict"), ("torch", "Size"), ("torch", "device")),
    *(("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")),
    ("_codecs", "encode"),  # bytes, in pickle's second protocol
}


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
        _check_archive(file)
        saved: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise FileError(file, "is missing", "train the model first") from error
    except ForeignError as error:
        raise FileError(
            file,
            f"holds more than weights and plain data: {in_one_line(error)}. It isn't loaded",
            f"don't use it, unless checkpoint={other} is sound",
        ) from error
    except Exception as error:  # damaged bytes can raise anything
        reason = "" if isinstance(error, pickle.UnpicklingError) else _reason(error)
        raise FileError(
            file,
            f"can't be read ({reason or 'its data are damaged'}); was it cut off?",
            f"take checkpoint={other}, or continue the training with resume=RUN",
        ) from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise FileError(file, "is no checkpoint of a training: it has no state_dict", "replace it")
    if odd := [key for key, value in state.items() if not _is_whole(value)]:
        raise FileError(
            file, f"is damaged: {in_one_line(odd[0])[:100]} is no tensor of numbers", "replace it"
        )
    for key in ("epoch", "global_step"):
        if not isinstance(saved.get(key, 0), int):
            raise FileError(file, f"is damaged: its {key} is no number", "replace it")
    return dict(saved)


def verify(file: Path) -> None:
    """Compares a checkpoint's records with their checksums, which PyTorch writes but never reads.

    Raises:
        FileError: Some bytes aren't those that were written.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except Exception as error:  # damaged bytes can raise anything
        raise FileError(file, f"can't be read ({_reason(error)})", "restore it") from error
    if damaged is not None:
        raise FileError(file, "is damaged: its checksum is another", "restore it")


class LostError(UserError):
    """Checkpoints that a training would go on from are damaged."""


class ForeignError(ValueError):
    """A checkpoint names something besides tensors and plain data."""


def _check_archive(file: Path) -> None:
    """Refuses an archive that costs more than its size, or that names what isn't a tensor's.

    Raises:
        OSError: It isn't there, or is no regular file.
        ForeignError: It names something else.
        ValueError: It is no archive as PyTorch writes it.
    """
    if not file.is_file():
        raise OSError("it is no regular file") if file.exists() else FileNotFoundError(file)
    with file.open("rb") as stream:
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            stream.seek(0)
            if stream.read(1) == b"\x80":
                raise ForeignError(
                    "it is a bare pickle, which today's PyTorch doesn't write"
                ) from error
            raise ValueError("it is no whole archive of PyTorch") from error
        records = archive.infolist()
        if any(r.compress_type != zipfile.ZIP_STORED for r in records):
            raise ValueError("it holds compressed records, which PyTorch doesn't write")
        if sum(r.file_size for r in records) > file.stat().st_size:
            raise ValueError("its records claim more bytes than the file has")
        pickles = [r for r in records if r.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _LARGEST_PICKLE:
            raise ValueError("it holds no data.pkl, or one that is too large")
        _check_pickle(archive.read(pickles[0]))


def _check_pickle(content: bytes) -> None:
    allowed = _TENSORS | {(t.__module__, t.__qualname__) for t in _extra_globals()}
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            _check_global(module, name, allowed)
        elif operation.proto > 2:  # torch.save writes the second protocol
            raise ForeignError(f"the operation {operation.name}")
        if isinstance(argument, int) and argument.bit_length() > 64:
            raise ValueError("it holds a number of more than 64 bits")
        if isinstance(argument, str | bytes) and len(argument) > _LARGEST_TEXT:
            raise ValueError(f"it holds a text of {len(argument):,} characters")


def _check_global(module: str, name: str, allowed: set[tuple[str, str]]) -> None:
    plain = module == "torch" and (
        name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)
    )
    if not plain and (module, name) not in allowed:
        raise ForeignError(repr(f"{module}.{name}")[:100])


def _extra_globals() -> list[Any]:
    """Lists what the user's own code has declared to be safe."""
    extra = torch.serialization.get_safe_globals()
    return [one[0] if isinstance(one, tuple) else one for one in extra]


def _is_whole(value: Any) -> bool:
    """Tells whether a value is a dense tensor whose elements lie in the file, each once."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    if value.is_nested or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return in_one_line(lines[0].split(". ")[0])[:200]
