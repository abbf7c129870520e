"""Splits that folders name: images/train, images/val, images/test, as most sets are handed out."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from segpets.data.holdout import holdout
from segpets.data.source import STAGES, Problem, Sample, Splits
from segpets.errors import UserError

log = logging.getLogger(__name__)

WORDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Names of folders, and the stages that they hold."""


_NESTED: Final = re.compile(r"\([^()]*[+*}][^()]*\)[+*{]")


def stage_of(path: str) -> str | None:
    """Finds the stage that a folder of a path, relative to the data, names; the first counts."""
    folders = path.split("/")[:-1]
    return next((WORDS[name.lower()] for name in folders if name.lower() in WORDS), None)


def named_stages(paths: Sequence[str]) -> set[str]:
    """Finds the stages that folders name; none if there is only one, which splits nothing."""
    named = {stage for path in paths if (stage := stage_of(path)) is not None}
    return named if len(named) > 1 and "train" in named else set()


def empty_stage(place: Path) -> Path | None:
    """Finds a folder named as a stage that holds no files at all."""
    for folder in sorted(place.iterdir()) if place.is_dir() else ():
        if folder.is_dir() and folder.name.lower() in WORDS and not any(folder.rglob("*.*")):
            return folder
    return None


def by_folders(
    samples: Sequence[Sample],
    paths: Mapping[str, str],
    *,
    place: Path,
    seed: int,
    problems: Sequence[Problem],
) -> Splits:
    """Splits samples as their folders say, and says so.

    Without a folder of val, a tenth of train is held out; without one of test, val serves as test.

    Args:
        samples: The samples.
        paths: The path of each, relative to the data, by name.
        place: The data, for messages.
        seed: Chooses what is held out.
        problems: Samples that can't be used.

    Raises:
        UserError: A stage's folder holds nothing that can be used.
    """
    chosen: dict[str, list[Sample]] = {stage: [] for stage in STAGES}
    unused = []
    for sample in samples:
        stage = stage_of(paths[sample.name])
        if stage is None:
            unused.append(sample.image)
        else:
            chosen[stage].append(sample)
    if (empty := empty_stage(place)) is not None or not chosen["train"]:
        raise UserError(
            f"{empty or place / 'train'} holds no images, but its name makes it a split: add some, "
            "remove the folder, or split anew by data.split=holdout"
        )
    train, val, test = (chosen[stage] for stage in STAGES)
    if not val:
        train, val = holdout(train, fraction=1 / 10, seed=seed)
    counts = ", ".join(
        f"{len(part)} {stage}" for stage, part in zip(STAGES, (train, val, test), strict=True)
    )
    more = "" if chosen["val"] else ", val being a tenth of train"
    more += "" if test else ", and those of val serve as test, too"
    said = "The folders of %s are its splits: %s%s; data.split=holdout overrules"
    log.info(said, place, counts, more)
    if unused:
        log.info("%d images lie in no folder of a split and are left out", len(unused))
    return Splits(
        train=train,
        val=val,
        test=test or val,
        val_is_test=not test,
        problems=problems,
        unused=unused,
    )


def path_within(sample: Sample, root: Path) -> str:
    """Returns the path of a sample's image within a folder, without its suffix."""
    path = os.path.relpath(os.path.abspath(sample.image), os.path.abspath(root))
    return os.path.splitext(path)[0].replace(os.sep, "/")


def with_groups(
    samples: Sequence[Sample], paths: Mapping[str, str], pattern: str | None
) -> list[Sample]:
    """Notes the group of each sample, which `holdout` keeps together.

    Args:
        samples: The samples.
        paths: The path of each without its suffix, relative to the data, by name.
        pattern: A regular expression that is searched in the path: what its first bracket matches,
            or all that it does, names the group. A sample that it doesn't match is alone.

    Raises:
        UserError: It is no regular expression, matches nothing, or puts all in one group.
    """
    if pattern is None:
        return list(samples)
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"data.group={pattern} is no regular expression ({error}): "
            "'data.group=\"^(\\w+)_\\d+\"' takes what comes before a number"
        ) from error
    if _NESTED.search(pattern):
        raise UserError(
            f"data.group={pattern} repeats what repeats, which can take for ever: use one + or *"
        )
    grouped, unmatched = [], 0
    for sample in samples:
        match = compiled.search(paths[sample.name])
        unmatched += match is None
        key = f"={sample.name}" if match is None else match[1 if compiled.groups else 0] or ""
        grouped.append(replace(sample, group=key))
    example = next(iter(paths.values()), "")
    if unmatched == len(samples):
        raise UserError(f"data.group={pattern} matches nothing, for example not in {example}")
    groups = {sample.group for sample in grouped}
    if len(groups) == 1:
        raise UserError(
            f"data.group={pattern} puts all {len(samples)} images in one group, "
            f"{groups.pop()!r}: match what tells patients, scenes or films apart"
        )
    log.info("data.group keeps %d images together in %d groups", len(samples), len(groups))
    if unmatched:
        log.warning("data.group matches %d of them not at all: each is alone", unmatched)
    return grouped


def grouped_stages(
    stages: Mapping[str, Sequence[Sample]], pattern: str | None, root: Path
) -> dict[str, list[Sample]]:
    """Notes the groups of the samples of several stages, by their paths; see `with_groups`."""
    every = [sample for samples in stages.values() for sample in samples]
    groups = iter(with_groups(every, {s.name: path_within(s, root) for s in every}, pattern))
    return {stage: [next(groups) for _ in samples] for stage, samples in stages.items()}


def warned(splits: Splits) -> Splits:
    """Warns of groups whose images lie in several splits, which lists or folders put there."""
    if parted := straddling(splits):
        log.warning(
            "%d groups of data.group have images in several splits, for example %s: what is "
            "measured on one was learnt on another",
            len(parted),
            parted[0],
        )
    return splits


def straddling(splits: Splits) -> list[str]:
    """Lists the groups whose images lie in several stages, as lists or folders put them."""
    places: dict[str, set[str]] = {}
    stages = {"train": splits.train, "test": splits.test}
    if not splits.val_is_test:
        stages["val"] = splits.val
    for stage, samples in stages.items():
        for sample in samples:
            if sample.group:
                places.setdefault(sample.group, set()).add(stage)
    return sorted(group for group, where in places.items() if len(where) > 1)
