"""Names of masks, made by a pattern from the names of their images."""

import itertools
import os
from collections import Counter

from segpets.data.filenames import SUFFIXES, Names
from segpets.errors import UserError

STEM = "{stem}"


def check_pattern(pattern: object) -> None:
    """Refuses a pattern without `{stem}`, or with a suffix.

    Raises:
        UserError: The pattern has no `{stem}`, or has a suffix.
    """
    text = str(pattern)
    if not isinstance(pattern, str) or STEM not in pattern:
        raise UserError(
            f"data.mask_pattern={text} must hold {STEM}, which stands for the image's name "
            "without its suffix: 'data.mask_pattern=\"{stem}_mask\"'"
        )
    stem, suffix = os.path.splitext(text)
    if suffix.lower() in SUFFIXES:
        raise UserError(
            f"data.mask_pattern={text} names no suffix, since any will do: "
            f"'data.mask_pattern=\"{stem}\"'"
        )


def mask_stem(stem: str, pattern: str) -> str:
    """Fills in a pattern by the stem of an image, which may lie in a sub-folder."""
    folder, _, last = stem.rpartition("/")
    mask = pattern.replace(STEM, last)
    return f"{folder}/{mask}" if folder else mask


def strays_of(images: Names, masks: Names, pattern: str) -> dict[str, list[str]]:
    """Lists the masks of images that have none in their own sub-folder, by name alone.

    A sub-folder with masks of its own images has none of others: frame 3 of one film isn't that of
    another.
    """
    lone = [stem for stem in images if mask_stem(stem, pattern) not in masks]
    if not lone:
        return {}
    taken = {mask_stem(stem, pattern) for stem in images}
    owned = {stem.rpartition("/")[0] for stem in taken & masks.keys()} - {""}
    free: dict[str, list[str]] = {}
    for stem in masks.keys() - taken:
        folder, _, last = stem.rpartition("/")
        if folder not in owned:
            free.setdefault(last, []).append(stem)
    wanted = {stem: mask_stem(stem.rpartition("/")[2], pattern) for stem in lone}
    return {stem: sorted(free[mask]) for stem, mask in wanted.items() if mask in free}


def guessed_pattern(images: Names, masks: Names) -> str | None:
    """Finds the pattern that gives most of the first images a mask, quoted for Hydra."""
    lasts = [stem.rpartition("/")[2] for stem in itertools.islice(images, 50)]
    there = {stem.rpartition("/")[2] for stem in masks}
    guesses = Counter(
        mask.replace(stem, STEM, 1)
        for stem in lasts[:3]
        for mask in itertools.islice((m for m in there if stem in m), 50)
    )
    fits = {g: sum(g.replace(STEM, stem) in there for stem in lasts) for g in guesses}
    best = max(sorted(fits), key=lambda guess: fits[guess], default=None)
    return f"'\"{best}\"'" if best and fits[best] > len(lasts) / 2 else None
