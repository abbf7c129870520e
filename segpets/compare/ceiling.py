"""Results as a share of how far two annotations agree, by the doctor's `ceiling.json`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from segpets.errors import FileError
from segpets.reading import in_one_line, read_json
from segpets.records.group import Configuration, Group
from segpets.stats import Estimate

METRIC: Final = "test/mean_iou"
SHARE: Final = "of_ceiling"
_MEANT: Final = ("data", "labels", "classes", "resolution", "fit")


class _Mean(BaseModel):
    mean: float
    low: float
    high: float


class _Ceiling(BaseModel):
    protocol: dict[str, Any]
    pairs: int
    photographs: int | None = None  # not in earlier files
    mean_iou: _Mean


def add_shares(groups: Sequence[Group], file: Path) -> None:
    """Adds each configuration's mean IoU as a share of the ceiling, where they mean the same.

    Args:
        groups: The configurations; a group of another protocol gets a note.
        file: `ceiling.json`, as `segpets.browse doctor=true` writes it.

    Raises:
        UserError: It can't be read.
    """
    remedy = "give the ceiling.json that segpets.browse doctor=true writes"
    try:
        ceiling = _Ceiling.model_validate(read_json(file))
        if not 0 < ceiling.mean_iou.low <= ceiling.mean_iou.mean <= ceiling.mean_iou.high <= 1:
            raise ValueError("its mean IoU isn't between 0 and 1")
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise FileError(file, f"is no ceiling: its {key} is missing or wrong", remedy) from error
    except (OSError, ValueError) as error:
        raise FileError(file, f"can't be read ({in_one_line(error)[:100]})", remedy) from error
    found = ceiling.mean_iou
    for group in groups:
        if other := _difference(ceiling.protocol, group):
            group.notes.append(f"The ceiling is of another {other}, so no share of it is shown")
            continue
        for configuration in group.configurations:
            _add_share(configuration, found)
        photographs = ceiling.photographs or ceiling.pairs
        group.notes.append(
            f"The ceiling of the labels: {photographs} photographs were annotated twice, and one "
            f"annotation judged by the other has a mean IoU of {found.mean:.3f} (95 % interval "
            f"{found.low:.3f} to {found.high:.3f})"
        )


def _difference(protocol: dict[str, Any], group: Group) -> str | None:
    """Names the first part of a protocol in which the ceiling's differs."""
    tested, here = (_tested(one) for one in (protocol, group.protocol))
    limited = (group.protocol.get("limits") or {}).get("test")
    if limited or tested not in (None, here):  # earlier versions didn't count them
        return "number of test images"
    for key in _MEANT:
        here = group.protocol.get(key, "stretch" if key == "fit" else None)
        if here != protocol.get(key):
            return key
    return None


def _tested(protocol: dict[str, Any]) -> object:
    images = protocol.get("images")
    return images.get("test") if isinstance(images, dict) else None


def _add_share(configuration: Configuration, ceiling: _Mean) -> None:
    """Adds the share, with the interval that both intervals make.

    Of the logarithms, whose difference is that of the share: G. Y. Zou, A. Donner, "Construction of
    confidence limits about effect measures", Statistics in Medicine 27 (2008).
    """
    value = configuration.values.get(METRIC)
    if value is None:
        return
    share = value.mean / ceiling.mean
    low, high = value.low, value.high
    if low is not None and high is not None:
        below = math.hypot(_apart(low, value.mean), _apart(ceiling.mean, ceiling.high))
        above = math.hypot(_apart(value.mean, high), _apart(ceiling.low, ceiling.mean))
        low, high = share * math.exp(-below), share * math.exp(above)
    configuration.values[SHARE] = Estimate(share, low, high, value.count)


def _apart(low: float, high: float) -> float:
    """Returns the logarithm of high / low; infinity for a low end that isn't positive."""
    return math.log(high / low) if low > 0 else math.inf
