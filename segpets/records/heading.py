"""The heading of a group of runs: what its metrics mean, in words."""

from collections.abc import Sequence
from typing import Final

from segpets.records.group import Group

_WORDS: Final = {
    "border": "border: {}",
    "channels": "{} channels",
    "classes": "classes {}",
    "data": "{}",
    "folds.count": "{} folds",
    "images.test": "{} test images",
    "images.train": "{} train images",
    "images.train and val": "{} images in train and val",
    "images.val": "{} val images",
    "resolution": "at {}",
    "split_seed": "data.seed {}",
}
_LAST: Final = {"data_fingerprint", "folds.images", "samples", "masks"}
"""Hashes and long rules, for groups that nothing else tells apart."""
_NOTHING: Final = {"-", "None", "{}", "[]", ""}
_LONGEST: Final = 60


def heading(groups: Sequence[Group], index: int) -> str:
    """Says what a group's metrics mean, as far as that distinguishes it from the others."""
    group = groups[index]
    if not group.peculiar:
        words = [str(group.protocol.get("data")), f"split {group.protocol.get('split')}"]
        words += [
            _size(str(group.protocol.get("resolution"))),
            f"classes {', '.join(group.classes)}",
        ]
        return ", ".join(words)
    said = [_said(one, fully=False) for one in groups]
    words = said[index] if said.count(said[index]) == 1 else _said(group, fully=True)
    return f"Protocol {index + 1} of {len(groups)}: {', '.join(words) or 'as the runs have it'}"


def _said(group: Group, *, fully: bool) -> list[str]:
    """Puts the part of a protocol in words that other groups don't share."""
    words = []
    for key, value in group.peculiar.items():
        if value in _NOTHING or (key in _LAST and not fully):
            continue
        short = _size(value) if key == "resolution" else value.strip("[]").replace(",", ", ")
        short = short if len(short) <= _LONGEST else f"{short[:_LONGEST]} ..."
        if key in _WORDS:
            words.append(_WORDS[key].format(short))
        else:  # a summary of others may have any key
            words.append(f"{key.replace('.', ' ').replace('_', ' ')}: {short}")
    return words


def _size(resolution: str) -> str:
    return resolution.strip("[]").replace(" ", "").replace(",", "x")
