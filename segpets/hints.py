"""What to type instead of what can't be understood. Imports nothing heavy."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"[\w./@]+")
_SURE, _LIKELY = 0.75, 0.6


def nearest(word: str, words: Sequence[str], cutoff: float = 0.5) -> str | None:
    """The most similar of some words, if one is similar at all."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=cutoff)
    return close[0] if close else None


def nearest_key(word: str, keys: Sequence[str], groups: Sequence[str]) -> str | None:
    """The key that somebody means who leaves its group out, or misspells it.

    `lr` is optimizer.lr, and `epochs` trainer.max_epochs.

    Args:
        word: What was typed.
        keys: All keys in full, in the order of the config.
        groups: The config groups.
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
    """A name without what separates its words."""
    return re.sub(r"[-_]", "", name).lower()


def spaced(overrides: Sequence[str], groups: Sequence[str]) -> str | None:
    """What to say where spaces tear an override apart; None where each word is one.

    Args:
        overrides: The words of the command line that are no options.
        groups: The config groups.
    """
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
    """What to say of an override that isn't of Hydra's grammar."""
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
    """A path, or any text, as a value in Hydra's grammar."""
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def where_looked(group: str, conf: Path, given: Sequence[Path]) -> str:
    """Where an option of a group was looked for, and where the folder of one's own may be.

    Args:
        group: The group.
        conf: segpets' own folder.
        given: Those of `--config-dir`.
    """
    if not given:
        return f". If it is your own, say --config-dir FOLDER, where FOLDER/{group} holds it"
    looked = f". Looked in {', '.join(str(folder / group) for folder in [conf, *given])}"
    for folder in given:
        for below in (folder / "conf", folder.parent):
            if not (folder / group).is_dir() and (below / group).is_dir():
                return f"{looked}: did you mean --config-dir {below}?"
    lacks = [folder for folder in given if not (folder / group).is_dir()]
    return f"{looked}: --config-dir is the folder that holds {group}/" if lacks else looked
