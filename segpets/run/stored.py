"""A run as its directory tells it, read once: config, summary, and the data it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError, did_you_mean
from segpets.paths import user_cache
from segpets.run.directory import find_run, read_summary
from segpets.run.files import RunFiles
from segpets.run.trust import Trust, read_yaml

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
        if "download" in data:
            data["download"] = False
        return data | dict(changes)


def on_this_machine(data: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces segpets' own folders, wherever they were on the machine that made the run."""
    here = dict(data)
    if str(here.get("root")).endswith("segpets/data/pets_mini"):
        here["root"] = str(_PETS_MINI)
    if here.get("cache_dir") is not None and not Path(str(here["cache_dir"])).is_dir():
        here["cache_dir"] = str(user_cache())
    return here


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
    return StoredRun(path, read_config(path, trust), read_summary(path), trust)


def read_config(path: Path, trust: Trust) -> dict[str, Any]:
    """Reads the config that a run was trained with, as today's code names its keys.

    Raises:
        UserError: It can't be read, or it names a class that isn't allowed.
    """
    file = RunFiles(path).config
    config = upgraded(read_yaml(file))
    trust.check(config, where=str(file))
    missing = [key for key in ("data", "model", "trainer") if not isinstance(config.get(key), dict)]
    if missing:
        raise UserError(f"{file} says nothing of {missing[0]}: it is no run's config")
    if not isinstance(config["data"].get("_target_"), str):
        raise UserError(f"{file} says nothing of data._target_: it is damaged")
    return config


def upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Renames the keys of a config that earlier versions wrote.

    Until 0.1.0, `data.module` repeated the keys of `data`, and its `source` named the class.
    """
    data = config.get("data")
    module = data.get("module") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(module, dict):
        return config
    source = module.get("source")
    kept = {key: value for key, value in data.items() if key != "module"}
    return config | {"data": kept | (source if isinstance(source, dict) else {})}
