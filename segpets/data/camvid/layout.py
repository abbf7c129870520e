"""The folders and lists of CamVid; see `segpets.data.camvid.dataset`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from segpets.data.pairing import Found, Pairs
from segpets.data.source import STAGES

_SPLIT_FOLDERS: Final = (
    ("{}", "{}annot"),
    ("{}", "{}_labels"),
    ("{}/images", "{}/labels"),
    ("images/{}", "labels/{}"),
)


_WHOLE_FOLDERS: Final = (
    ("701_StillsRaw_full", "LabeledApproved_full"),
    ("images/701_StillsRaw_full", "labels"),  # as MathWorks' example unpacks it
    ("images", "labels"),
    ("CamVid_RGB", "CamVidGray"),
    ("default", "defaultannot"),  # as CVAT exports it
)


_STAGE_WORDS: Final = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


Layout = dict[str, tuple[str, str]]
"""Folders of images and of masks by stage; of the stage "" where all lie together."""


def layout_of(home: Path) -> Layout:
    """Finds the folders of images and masks of a folder; empty where it is no CamVid."""

    def there(pair: tuple[str, str], word: str) -> bool:
        return all(os.path.isdir(home / folder.format(word)) for folder in pair)

    for pair in _SPLIT_FOLDERS:
        folders = {
            stage: (pair[0].format(word), pair[1].format(word))
            for stage, words in _STAGE_WORDS.items()
            for word in words
            if there(pair, word)
        }
        if folders:
            return folders
    return next(({"": pair} for pair in _WHOLE_FOLDERS if there(pair, "")), {})


def lists_of(home: Path) -> dict[str, Path]:
    """Finds the lists of the stages that have one."""
    places = [
        (stage, home / f"{prefix}{word}.txt")
        for stage, words in _STAGE_WORDS.items()
        for prefix in ("camvid_", "")
        for word in reversed(words)
    ]
    return {stage: path for stage, path in places if path.is_file()}


def images_of(
    pairs: Pairs, layout: Layout, lists: Mapping[str, Path]
) -> dict[str, Iterable[Found]]:
    """Finds the images of each stage; lists go first."""
    only = next(iter(pairs.masks))
    stages: dict[str, Iterable[Found]] = {}
    for stage in STAGES:
        folder = layout.get(stage, (only, ""))[0]
        if stage in lists:
            stages[stage] = pairs.listed(lists[stage], folder)
        elif stage in layout:
            stages[stage] = pairs.all(folder)
    if "train" not in stages:  # fast.ai lists the images of val alone
        named = {found.name for path in lists.values() for found in pairs.listed(path, only)}
        rest = (found for found in pairs.all(only) if found.name not in named)
        stages = {"train": rest, **stages}
    return stages
