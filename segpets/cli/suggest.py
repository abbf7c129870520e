"""Suggests replacements for words that no command understands. Imports nothing heavy."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from segpets.errors import did_you_mean, nearest
from segpets.paths import conf_dir

_NAME = re.compile(r"[\w./@]+")
_SURE, _LIKELY = 0.75, 0.6


def nearest_key(word: str, keys: Sequence[str], groups: Sequence[str]) -> str | None:
    """Finds the intended key where its group is left out or it is misspelt.

    `lr` is optimizer.lr, and `epochs` trainer.max_epochs.
    """
    every = [*keys, *groups]
    parent, _, name = word.rpartition(".")
    beside = [key.rpartition(".")[2] for key in every if key.rpartition(".")[0] == parent]
    if (near := nearest(name, beside, _LIKELY if parent else _SURE)) is not None:
        return f"{parent}.{near}" if parent else near
    keys = [key for key in keys if not key.startswith(("hydra.", "callback.", "logger."))]
    last = _plain(name)
    by_name: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: key.count(".")):  # data.size before data.module.size
        by_name.setdefault(_plain(key.rpartition(".")[2]), key)
    last = {"learningrate": "lr"}.get(last, last)
    if last in by_name:
        return by_name[last]
    if holding := [name for name in by_name if len(last) > 2 and last in name]:
        return by_name[min(holding, key=len)]
    if (near := nearest(last, list(by_name), _SURE)) is not None:
        return by_name[near]
    return nearest(word, every, _SURE if parent else _LIKELY)


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()


def spaced(overrides: Sequence[str], groups: Sequence[str]) -> str | None:
    """Explains an override that spaces tear apart; None where each word is one."""
    for at, word in enumerate(overrides):
        before = overrides[at - 1] if at else ""
        after = overrides[at + 1] if at + 1 < len(overrides) else ""
        if word.startswith("~") or ("=" in word and not word.startswith("=")):
            continue
        key, _, value = before.partition("=")
        if value[:1] in ("{", "[") and value[-1] not in "}]":
            end = next((i for i, w in enumerate(overrides) if i >= at and w[-1:] in ("}", "]")), at)
            joined = " ".join([before, *overrides[at : end + 1]])
            return f"{before} is torn apart at its spaces: put quotes around it, '{joined}'"
        if word.startswith("="):
            key, value = before, word[1:] or after
        elif before.endswith("="):
            key, value = before[:-1], word
        elif after.startswith("="):
            key, value = word, after[1:] or "".join(overrides[at + 2 : at + 3])
        elif word in groups and after and "=" not in after:
            key, value = word, after
        elif before.endswith(","):
            return f"{before} {word}: write {before}{word}, without spaces"
        elif value and word not in groups:
            return (
                f"{word} is no override, since an override is KEY=VALUE. A value with spaces wants "
                f"quotes within quotes: \"{key}='{value} {word}'\""
            )
        else:
            key, value = word, after if after and "=" not in after else ""
        if value and _NAME.fullmatch(key):
            return f"{key} {value}: write {key}={value}, without spaces"
        what = f"{word}=OPTION" if word in groups else "KEY=VALUE"
        return f"{word or quoted('')} is no override: write {what}"
    return None


def unreadable(override: str, why: str) -> str:
    """Explains an override that doesn't follow Hydra's grammar."""
    key, _, value = override.partition("=")
    why = "" if "Exception" in why else f": {why}"  # some of Hydra's grammar have no words
    text = f"{override} can't be read{why}. Are brackets and quotes closed? "
    if value[:1] in ("{", "["):
        text += f"The shell wants quotes around the whole word: '{key}={value[0]}...'"
        return f"{text}; a colour is written 255 0 0" if "#" in value else text
    return (
        f"{text}A value with spaces, commas, brackets or # wants quotes within quotes: "
        f'"{key}={quoted(value)}"'
    )


def quoted(value: Path | str) -> str:
    """Quotes a path, or any text, as a value in Hydra's grammar."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def where_looked(group: str, conf: Path, given: Sequence[Path]) -> str:
    """Names the folders searched for an option of a group, and a likelier one."""
    if not given:
        return f". If it is your own, say --config-dir FOLDER, where FOLDER/{group} holds it"
    looked = f". Looked in {', '.join(str(folder / group) for folder in [conf, *given])}"
    for folder in given:
        for below in (folder / "conf", folder.parent):
            if not (folder / group).is_dir() and (below / group).is_dir():
                return f"{looked}: did you mean --config-dir {below}?"
    lacks = [folder for folder in given if not (folder / group).is_dir()]
    return f"{looked}: --config-dir is the folder that holds {group}/" if lacks else looked


def meant(key: str, name: str, argv: Sequence[str]) -> str | None:
    """Finds the key of a command's config that was intended by an option."""
    try:
        keys = _keys(composed(name, [], argv))
    except HydraException:  # there is no run yet whose data complete it
        keys = [str(own) for own in OmegaConf.load(conf_dir() / f"{name}.yaml")]
    return nearest_key(key, keys, list(groups(config_dirs(argv))))


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Lists the config groups and their options, with those of nested groups.

    Names that begin with `_` are parts of options, not options themselves.
    """
    options: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not file.stem.startswith("_"):
                options.setdefault(group, set()).add(file.stem)
    return {group: sorted(options[group]) for group in sorted(options)}


def suggest(name: str, argv: Sequence[str]) -> str | None:
    """Finds the first override that names nothing, and the nearest known name.

    Returns:
        What to tell the user; None if all names are known.
    """
    known_groups = groups(config_dirs(argv))
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    choices = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group, _, _package = key.partition("@")
        options = known_groups.get(group.strip("/"))
        if options is None:
            continue
        value = re.sub(r"^choice\((.*)\)$", r"\1", value)
        words = [w for w in re.split(r"[\[\],\s'\"]+", value) if w and w != "null"]
        if not value:
            return f"{override} names no {group}. Available: {', '.join(options)}"
        for word in words:
            if word not in options:
                near = nearest(word, options, 0.6)
                hint = f"Did you mean {group}={near}? " if near else ""
                listed = ", ".join(options)
                told = f"{group}={word}: there is no such {group}. {hint}Available: {listed}"
                given = config_dirs(argv)[1:]
                return told + (where_looked(group, conf_dir(), given) if given or not near else "")
        choices.append(override)
    ordered = _keys(composed(name, [c for c in choices if "," not in c or "[" in c], argv))
    keys = set(ordered) | set(known_groups)
    for override in overrides:
        key = override.partition("=")[0]
        if key.startswith(("+", "~")) or "@" in key or key in keys:
            continue
        near = nearest_key(key, ordered, list(known_groups))
        hint = f" Did you mean {near}?" if near else ""
        may_add = name == "train" or key.partition(".")[0] in keys
        more = f"; +{override} adds a new one" if may_add else ""
        return f"{key} is no key of the config.{hint} `--cfg job` prints all keys{more}"
    return None


def superfluous(name: str, argv: Sequence[str]) -> str | None:
    """Finds a key that is added to a command's config, and that the command would ignore.

    A training's config may name components of one's own, whose keys nobody knows.
    """
    added = [word for word in argv if word.startswith("+") and "=" in word]
    if name == "train" or not added:
        return None
    own = OmegaConf.load(conf_dir() / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    chosen = [str(key) for one in own.defaults if isinstance(one, DictConfig) for key in one]
    known = {"hydra", *map(str, own), *(key.split()[-1].partition("@")[0] for key in chosen)}
    for word in added:
        key = word.lstrip("+").partition("=")[0].partition("@")[0]
        if key.partition(".")[0].strip("/") not in known:
            hint = did_you_mean(key, known, cutoff=0.6)
            return f"segpets.{name} has no key {key}, and would ignore it.{hint}"
    return None


def composed(name: str, choices: list[str], argv: Sequence[str]) -> DictConfig:
    """Composes a command's config with some options of groups, and Hydra's own part."""
    if own := [quoted(folder.absolute()) for folder in config_dirs(argv)[1:]]:
        choices = [*choices, f"hydra.searchpath=[{','.join(own)}]"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return hydra.compose(name, overrides=choices, return_hydra_config=True)


def _keys(cfg: Any, prefix: str = "") -> list[str]:
    if not isinstance(cfg, DictConfig):
        return []
    keys: list[str] = []
    for key in map(str, cfg):
        path = f"{prefix}{key}"
        keys.append(path)
        if not OmegaConf.is_interpolation(cfg, key) and not OmegaConf.is_missing(cfg, key):
            keys += _keys(cfg._get_node(key), f"{path}.")
    return keys


def config_dirs(argv: Sequence[str]) -> list[Path]:
    """Lists the config folders: ours, and those given by --config-dir."""
    folders = [conf_dir()]
    for index, word in enumerate(argv):
        if word.startswith(("--config-dir=", "-cd=")):
            folders.append(Path(word.partition("=")[2]))
        elif word in ("--config-dir", "-cd") and index + 1 < len(argv):
            folders.append(Path(argv[index + 1]))
    return [folder for folder in folders if folder.is_dir()]
