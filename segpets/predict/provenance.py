"""prediction.json: the model and settings of a folder's predictions, so that none are mixed."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.predict.sources import FOLDERS
from segpets.reading import LARGEST_TABLE, in_one_line, read_json
from segpets.run.files import shown, write_atomically

FILE: Final = "prediction.json"
TABLE: Final = "predictions.csv"
_SETTINGS: Final = ("tile", "foreground", "decide", "tta")
_COMPOSITES: Final = ("background", "zoom")
"""What only composites depend on; a folder may have none at first."""


def fingerprint(checkpoints: Sequence[Path]) -> str:
    """Computes the SHA-256 of a checkpoint file, or one of those of several."""
    digests = []
    for checkpoint in checkpoints:
        with checkpoint.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256(str(digests).encode()).hexdigest()


def check_folder(folder: Path) -> None:
    """Refuses a folder with files, where outputs go, that no prediction left there.

    Raises:
        UserError: It holds some, but no record of ours; the message names the first.
    """
    if not folder.is_dir() or _read(folder / FILE) is not None or (folder / TABLE).is_file():
        return
    below = (path for name in FOLDERS for path in sorted((folder / name).rglob("*")))
    files = (path for path in below if path.is_file() and not path.name.startswith(".segpets-"))
    if (first := next(files, None)) is not None:
        raise UserError(
            f"output={shown(folder)} holds {in_one_line(first.relative_to(folder))}, which no "
            "prediction left there: choose another folder"
        )


def begun(folder: Path) -> set[str]:
    """Lists the names of pictures that a prediction has begun, and may not have noted yet."""
    names = (_read(folder / FILE) or {}).get("begun")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def finish(folder: Path) -> None:
    """Forgets what was begun, as the table holds it now."""
    origin = _read(folder / FILE) or {}
    origin.pop("begun", None)
    write_atomically(folder / FILE, json.dumps(origin, indent=2, ensure_ascii=False) + "\n")


def checked(
    folder: Path,
    origin: Mapping[str, Any],
    *,
    there: Collection[str],
    wanted: Collection[str],
    overwrite: bool,
) -> dict[str, Any]:
    """Checks that a folder's pictures may be predicted so, and returns what is to be noted.

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
    return kept


def claim(folder: Path, origin: Mapping[str, Any], names: Collection[str]) -> None:
    """Notes what predicts a folder's pictures, before the first is predicted.

    Args:
        folder: The output's folder.
        origin: As `checked` returns it.
        names: The names of the pictures' outputs.
    """
    noted = {**origin, "begun": sorted({*names, *begun(folder)})}
    write_atomically(folder / FILE, json.dumps(noted, indent=2, ensure_ascii=False) + "\n")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    if before.get("weights") != now["weights"]:
        if members := before.get("members"):
            return f"by another model ({len(members)} averaged: {', '.join(map(str, members))})"
        return f"by another model ({before.get('run')}, epoch {before.get('epoch')})"
    keys = list(_SETTINGS)
    if not _no_composites(before) and not _no_composites(now):
        keys += _COMPOSITES
    plain = {key: "null" if before.get(key) is None else before[key] for key in keys}
    differs = [f"{key}={plain[key]}" for key in keys if before.get(key) != now[key]]
    return f"with {', '.join(differs)}" if differs else None


def _no_composites(origin: Mapping[str, Any]) -> bool:
    return all(origin.get(key) is None for key in _COMPOSITES)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = read_json(path, LARGEST_TABLE)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): choose another output=") from error
    if "weights" not in content:
        raise UserError(f"{path} wasn't written by segpets.predict: choose another output=")
    return content
