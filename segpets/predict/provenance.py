"""prediction.json: the model and settings of a folder's predictions, so that none are mixed."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.reading import read_json
from segpets.run.files import shown, write_atomically

FILE: Final = "prediction.json"
_SETTINGS: Final = ("tile", "foreground")
_COMPOSITES: Final = ("background", "zoom")
"""What only composites depend on; a folder may have none at first."""


def fingerprint(checkpoint: Path) -> str:
    """Computes the SHA-256 of a checkpoint file."""
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(
    folder: Path,
    origin: Mapping[str, Any],
    *,
    there: Collection[str],
    wanted: Collection[str],
    overwrite: bool,
) -> None:
    """Records what predicts a folder's pictures, before the first is predicted.

    Args:
        folder: The output's folder.
        origin: `run`, `epoch`, `weights` (a fingerprint) and the settings, as plain data.
        there: The pictures that already have predictions in the folder.
        wanted: The pictures that are to be predicted now.
        overwrite: Whether they are made anew.

    Raises:
        UserError: Existing predictions come from another model or other settings.
    """
    before = _read(folder / FILE)
    if before is None:
        reason = "by a model that isn't noted there" if there else None
    else:
        reason = _difference(before, origin)
    if reason is not None and (not overwrite or set(there) - set(wanted)):
        raise UserError(
            f"output={shown(folder)} holds predictions {reason}, and a folder holds those of one: "
            "choose another output=, or give all pictures that it holds with overwrite=true"
        )
    kept = dict(origin)
    if before is not None and reason is None and _no_composites(origin):
        kept |= {key: before.get(key) for key in _COMPOSITES}
    write_atomically(folder / FILE, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if before.get("weights") != now["weights"]:
        return f"by another model ({before.get('run')}, epoch {before.get('epoch')})"
    keys = list(_SETTINGS)
    if not _no_composites(before) and not _no_composites(now):
        keys += _COMPOSITES
    differs = [f"{key}={before.get(key)}" for key in keys if before.get(key) != now[key]]
    return f"with {', '.join(differs)}" if differs else None


def _no_composites(origin: Mapping[str, Any]) -> bool:
    return all(origin.get(key) is None for key in _COMPOSITES)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): choose another output=") from error
    if "weights" not in content:
        raise UserError(f"{path} wasn't written by segpets.predict: choose another output=")
    return content
