"""What a run tells of itself: its config, checked, and its data as an option of `data=`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from segpets.errors import UserError
from segpets.paths import conf_dir, user_cache
from segpets.run import CONFIG, find_run
from segpets.trust import allowed_targets, read_config

OPTION: Final = "stored"
"""The option of the group `data` that is the run's own data."""


def stored_config(
    path: Path, *, allow: Sequence[str] | None = None, folders: Sequence[Path] = ()
) -> dict[str, Any]:
    """Reads the config that a run was trained with.

    Args:
        path: The run directory.
        allow: Classes of the user's own that it may name, beside those of `conf/`.
        folders: Folders with configs of the user's own; what they name is allowed.

    Raises:
        UserError: It can't be read, or it names a class that isn't allowed.
    """
    allowed = allowed_targets([conf_dir(), *folders], allow)
    config = read_config(path / CONFIG, allowed=allowed)
    missing = [key for key in ("data", "model", "trainer") if not isinstance(config.get(key), dict)]
    if missing:
        raise UserError(f"{path / CONFIG} says nothing of {missing[0]}: it is no run's config")
    return config


def offer_data(config: dict[str, Any]) -> None:
    """Makes a run's data the option `data=stored`, of which each key can be overridden.

    The stored config has all references filled in. Below `module` they are put back, so that
    `data.size=96` reaches the DataModule, too. Nothing is downloaded, and no image is augmented.

    Args:
        config: What `stored_config` gave.

    Raises:
        UserError: It describes no data.
    """
    data = dict(config["data"])
    module = data.get("module")
    if not isinstance(module, dict) or not isinstance(module.get("source"), dict):
        raise UserError("the run's config says nothing of data.module.source: it is damaged")
    here = Path(__file__).parent.absolute()
    if str(data.get("root")).endswith("segpets/data/pets_mini"):
        data["root"] = str(here / "data" / "pets_mini")  # wherever it was where the run was made
    if data.get("cache_dir") is not None and not Path(str(data["cache_dir"])).is_dir():
        data["cache_dir"] = str(user_cache())
    if "download" in data:
        data["download"] = False
    source = _linked(module["source"], config["data"])
    data["module"] = _linked(module, config["data"]) | {"source": source, "augment": "${augment}"}
    ConfigStore.instance().store(OPTION, data, group="data")


def offer_data_of(overrides: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Offers the data of the run that `run=` among a command's overrides names, if it names one.

    Raises:
        UserError: There is no such run, or its config isn't to be trusted.
    """
    values = _values(overrides, ("run", "allow", "train_log_dir"))
    run = values.get("run")
    if isinstance(run, str) and run:
        log_dir = Path(str(values.get("train_log_dir", "logs/train")))
        allow = values.get("allow")
        path = find_run(run, log_dir=log_dir)
        words = allow if isinstance(allow, list | str) else None
        offer_data(stored_config(path, allow=words, folders=folders))


def _values(overrides: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """The values of some keys on a command line; Hydra itself answers what can't be parsed."""
    parser = OverridesParser.create()
    found = {}
    for word in overrides:
        key = word.lstrip("+").partition("=")[0]
        if key in keys and "=" in word:
            try:
                found[key] = parser.parse_override(word).value()
            except HydraException:
                continue
    return found


def _linked(node: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """A table whose values refer to those of the same name, and value, in `data`."""
    return {
        key: f"${{data.{key}}}" if key in above and above[key] == value else value
        for key, value in node.items()
    }
