"""A run as its directory tells it, read once: config, summary, and the data it was trained on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError, did_you_mean
from segpets.paths import user_cache
from segpets.run import schema
from segpets.run.directory import find_run, read_summary
from segpets.run.files import RunFiles
from segpets.run.trust import Trust

_PETS_MINI: Final = Path(__file__).parents[1].absolute() / "data" / "pets_mini"


@dataclass(frozen=True)
class StoredRun:
    """A run directory, opened: its config, summary and checkpoints.

    Attributes:
        path: The run directory.
        config: The config that it was trained with, as plain data.
        summary: Its summary.
        trust: The trust by which its config was allowed.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    trust: Trust

    @property
    def files(self) -> RunFiles:
        """The paths of its files."""
        return RunFiles(self.path)

    def data(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Completes the keys of the run's data with this machine's paths and the user's changes.

        Nothing is downloaded.

        Args:
            changes: Keys of `data` to change, such as `root`; with `_target_`, other
                data, which replace the run's.

        Raises:
            UserError: A change names no key of the data.
        """
        if "_target_" in changes:
            return dict(changes)
        data = on_this_machine(self.config["data"])
        for key in changes:
            if key not in data:
                hint = did_you_mean(key, data, "data.")
                raise UserError(
                    f"data.{key} is no key of the run's data.{hint} They have "
                    f"{', '.join(key for key in data if not key.startswith('_'))}"
                )
        return data | dict(changes)


def on_this_machine(data: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces segpets' own folders, and takes away what acts: a run doesn't say what to fetch.

    Nor does it choose where a cache is written, or how many processes read.
    """
    here = dict(data)
    if str(here.get("root")).endswith("segpets/data/pets_mini"):
        here["root"] = str(_PETS_MINI)
    cache = None if here.get("cache_dir") is None else str(user_cache())
    workers = min(int(here.get("num_workers", 0)), os.cpu_count() or 1)
    harmless = {
        "download": False,
        "mirrors": [],
        "checksums": {},
        "cache_dir": cache,
        "cache_gb": 50,
        "num_workers": workers,
    }
    return here | {key: value for key, value in harmless.items() if key in here}


ACTING: Final = ("download", "mirrors", "checksums", "cache_dir", "cache_gb", "num_workers")
"""Keys of data that say what is done, not what the data are; a run's own aren't followed."""

_BEFORE: Final = {
    "fit": "stretch",
    "channels": 3,
    "range": None,
    "exif": "auto",
    "pages": None,
    "window": None,
    "crop": None,
}
"""Keys of data that earlier versions hadn't, and what they did."""

_DESCRIBES: Final = ("data", "augment", "model", "loss", "seed", "train", "init_from", "tags")


def open_run(
    run: str | Path,
    *,
    log_dir: str | Path = "logs/train",
    trust: Trust | None = None,
    key: str = "run",
) -> StoredRun:
    """Finds a run, and reads its config and summary.

    Args:
        run: A run directory, a job of a sweep, or `latest`.
        log_dir: Where `latest` is looked for.
        trust: Whose classes its config may name beside segpets' own.
        key: The override by which the user gave the run, for the message of an error.

    Raises:
        UserError: There is no such run, it can't be read, or its config isn't to be trusted.
    """
    trust = trust or Trust()
    path = find_run(run, log_dir=Path(log_dir), key=key)
    config = read_config(path, trust)
    if key != "resume":  # then only what describes the model and the data, and nothing that acts
        precision = config["trainer"].get("precision")
        config = {k: config[k] for k in _DESCRIBES if k in config}
        config["trainer"] = {"precision": precision}
    return StoredRun(path, config, read_summary(path), trust)


def read_config(path: Path, trust: Trust) -> dict[str, Any]:
    """Reads the config that a run was trained with, as today's code names its keys.

    Raises:
        UserError: It can't be read, or it names a class that isn't allowed.
    """
    file = RunFiles(path).config
    config = upgraded(schema.read_plain(file))
    trust.check(config, where=str(file))
    schema.check(config, file)
    return config


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Renames the keys of a config that earlier versions wrote.

    Until 0.1.0, `data.module` repeated the keys of `data`, and its `source` named the class; and
    all images were stretched RGB of 8 bits.
    """
    data = config.get("data")
    if not isinstance(data, dict):
        return config
    kept = {key: value for key, value in data.items() if key != "module"}
    module = data.get("module")
    source = module.get("source") if isinstance(module, dict) else None
    return config | {"data": _BEFORE | kept | (source if isinstance(source, dict) else {})}
