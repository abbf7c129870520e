"""Checks stored configs: plain data, known shapes, and numbers within bounds.

It is read as data and never composed: Hydra would give a meaning to keys such as `defaults`, and
load whatever files they name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segpets.errors import FileError
from segpets.reading import in_one_line, read_yaml

LARGEST: Final = 1_000_000
"""Bytes of a config."""

MOST_CLASSES: Final = 254
LARGEST_SIDE: Final = 8192
_MOST_NODES: Final = 20_000  # nested aliases make a small file endless
_LONGEST_TEXT: Final = 4_096
_LARGEST_WIDTH: Final = 16_384
_DEEPEST: Final = 512
_MOST_WIDTHS: Final = 64
_PLAIN: Final = (str, int, float, bool, type(None))
_PROTOCOLS: Final = ("://", "::")  # fsspec opens what follows, through chains of programs
_TOLD: Final = ("overrides", "tags")  # the user's words, which are shown and act on nothing
_DAMAGED: Final = "restore it, or train the model anew"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
_Sides = Annotated[list[_Side], Field(min_length=2, max_length=2)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class _Made(_Table):
    """A table of which something is made."""

    target: Annotated[str, Field(alias="_target_")]


class _Data(_Made):
    """Keys of data that the model and the metrics take."""

    size: _Side | _Sides
    fit: Literal["stretch", "letterbox", "shorter", "none"] = "stretch"
    channels: Annotated[int, Field(ge=1, le=512)] = 3
    range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = None
    exif: Literal["auto", "apply", "ignore"] = "auto"
    pages: Literal["each", "channels"] | None = None
    window: _Side | _Sides | None = None
    crop: _Side | _Sides | None = None
    classes: Annotated[list[str], Field(min_length=1, max_length=MOST_CLASSES)]
    mean: Annotated[list[Finite], Field(min_length=1, max_length=512)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=512)]
    batch_size: Annotated[int, Field(ge=1, le=2**16)] = 1
    num_workers: Annotated[int, Field(ge=0, le=1024)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> "_Data":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need a number for each of {self.channels} channels")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError("range needs a larger second number")
        return self


class _Trainer(_Table):
    precision: str | int | None = None


class _Config(_Table):
    data: _Data
    model: _Made
    trainer: _Trainer
    loss: _Made | None = None
    seed: int = 0
    train: bool = True
    init_from: str | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "_Config":
        _check_widths(self.model.model_extra, "model")
        return self


def read_plain(file: Path) -> dict[str, Any]:
    """Reads plain data that a run's config may hold; `check` says whether it describes a run.

    Raises:
        FileError: It is missing, damaged or too large, or holds references, protocols or texts
            that steer a terminal.
    """
    try:
        config = read_yaml(file, LARGEST)
        for key in _TOLD:
            if isinstance(words := config.get(key), list):
                config[key] = [in_one_line(one) if isinstance(one, str) else one for one in words]
        _check_plain(config)
    except FileNotFoundError as error:
        raise FileError(file, "is missing", "without it nothing is known of the run") from error
    except (OSError, ValueError) as error:
        raise FileError(file, f"can't be read ({in_one_line(error)})", _DAMAGED) from error
    return config


def check(config: Mapping[str, Any], file: Path) -> None:
    """Checks that a config has the keys of a run, of their types and within bounds.

    Raises:
        FileError: One is missing, of another type, or out of range.
    """
    for key in ("data", "model", "trainer"):
        if not isinstance(config.get(key), dict):
            raise FileError(file, f"says nothing of {key}", "it is no run's config")
    try:
        _Config.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = in_one_line(".".join(map(str, first["loc"])) or "model")[:100]
        if first["type"] == "missing":
            raise FileError(file, f"says nothing of {key}", _DAMAGED) from error
        value = in_one_line(repr(first["input"]))[:60] if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        raise FileError(file, f"holds {key}={value}: {reason}", _DAMAGED) from error


def _check_plain(config: Mapping[str, Any]) -> None:
    """Refuses references, protocols, and anything but tables, lists, texts and numbers."""
    pending: list[tuple[Any, tuple[str, ...]]] = [(config, ())]
    for _ in range(_MOST_NODES):
        if not pending:
            return
        node, path = pending.pop()
        if isinstance(node, dict):
            if len(path) < 2 and isinstance(node.get("defaults"), list | dict):
                raise ValueError("it holds a list of defaults, but is never composed")
            pending += [(key, path) for key in node]
            # Of a path, the first two keys matter; of a table within itself it has no end.
            pending += [(value, (*path, str(key))[:2]) for key, value in node.items()]
        elif isinstance(node, list):
            pending += [(value, path) for value in node]
        elif not isinstance(node, _PLAIN):
            raise ValueError(f"it holds a {type(node).__name__}")
        elif isinstance(node, str):
            _check_text(node, path)
    raise ValueError(f"it holds more than {_MOST_NODES:,} values")


def _check_text(text: str, path: tuple[str, ...]) -> None:
    if "${" in text:
        raise ValueError(f"it holds the reference {text[:60]}, but all should be filled in")
    if path[:1] and path[0] in _TOLD:
        return
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"it holds a text of {len(text):,} characters")
    if in_one_line(text) != text:
        raise ValueError(f"it holds the text {text[:60]!r}, with characters that steer a terminal")
    if path[:2] != ("data", "mirrors") and any(part in text for part in _PROTOCOLS):
        raise ValueError(f"it holds {text[:60]}, an address, where no run has one")


def _check_widths(node: Any, key: str) -> None:
    """Refuses a net of numbers that no machine could make."""
    if isinstance(node, dict):
        for name, value in node.items():
            _check_widths(value, f"{key}.{name}")
    elif isinstance(node, list):
        if len(node) > _MOST_WIDTHS:
            raise ValueError(f"{key} has {len(node):,} entries")
        for value in node:
            _check_widths(value, key)
    elif isinstance(node, int | float):
        most = _DEEPEST if "depth" in key or "layers" in key else _LARGEST_WIDTH
        if not abs(node) <= most:
            raise ValueError(f"{key} is {node}, more than {most:,}")
