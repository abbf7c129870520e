"""Splits by chance: of images, or of groups of images that no split may part."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from segpets.data.source import STAGES, Problem, Sample
from segpets.errors import UserError


def holdout(
    samples: Sequence[Sample],
    *,
    fraction: float,
    seed: int,
    by: str | None = None,
    keep: int = 1,
) -> tuple[list[Sample], list[Sample]]:
    """Splits samples in two, in the same proportion within each value of an attribute.

    Which samples are held out depends on the set of names, the fraction and the seed alone, not
    on their order.

    Args:
        samples: What to split.
        fraction: The part to hold out, within (0, 1); rounded for each value of the attribute,
            but at least one image is held out and at least one kept where there are two.
        seed: Another seed, another choice.
        by: The attribute, such as `breed`; None takes all samples as one group.
        keep: How many groups that no split may part are kept, at least.

    Returns:
        The kept and the held-out samples, in the order of `samples`.

    Raises:
        UserError: There are too few groups.
    """
    if any(sample.group for sample in samples):
        return _grouped_holdout(samples, fraction, seed, keep=keep)
    groups: dict[str, list[str]] = {}
    for sample in samples:
        groups.setdefault(sample.attributes[by] if by else "", []).append(sample.name)
    held_out: set[str] = set()
    for index, key in enumerate(sorted(groups)):
        names = sorted(groups[key])
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        chosen = np.random.default_rng([seed, index]).permutation(len(names))[:count]
        held_out |= {names[i] for i in chosen}
    return parted(samples, held_out)


def _grouped_holdout(
    samples: Sequence[Sample], fraction: float, seed: int, *, keep: int = 1
) -> tuple[list[Sample], list[Sample]]:
    """Holds out whole groups, as near to the fraction of images as they allow.

    Args:
        samples: What to split.
        fraction: The part to hold out.
        seed: Another seed, another choice.
        keep: So many groups at least are kept.

    Raises:
        UserError: There are no more groups than are kept.
    """
    counts = Counter(map(_group, samples))
    if len(counts) <= keep:
        groups = f"{len(counts)} group{'s' * (len(counts) != 1)}"
        raise UserError(
            f"{len(samples)} images, such as {samples[0].name}, are in {groups}, which no split "
            "may part, but some are to be held out: name smaller groups, or add images"
        )
    keys, wanted = sorted(counts), max(fraction * len(samples), 1)
    chosen: set[str] = set()
    total = 0
    for index in np.random.default_rng(seed).permutation(len(keys)):
        key = keys[index]
        nearer = abs(total + counts[key] - wanted) < abs(total - wanted)
        if nearer and len(chosen) < len(keys) - keep:
            chosen.add(key)
            total += counts[key]
    if not chosen:  # all are larger than what is wanted
        chosen = {min(keys, key=lambda key: (counts[key], key))}
    return parted(samples, {sample.name for sample in samples if _group(sample) in chosen})


def _group(sample: Sample) -> str:
    return sample.group or f"={sample.name}"


def in_three(
    samples: Sequence[Sample], *, seed: int, place: object, problems: Sequence[Problem] = ()
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Splits samples by `holdout` into 80 % train, 10 % val and 10 % test.

    Args:
        samples: What to split.
        seed: Another seed, another choice.
        place: Where they come from, as an error names it.
        problems: Those that can't be used; an error names the first.

    Raises:
        UserError: There are fewer than three.
    """
    if len(samples) < len(STAGES):
        more = f". {len(problems)} can't be used: {problems[0].error}" if problems else ""
        raise UserError(
            f"{place} has {len(samples)} images with masks, but train, val and test need at least "
            f"one each: add images{more}"
        )
    if (groups := len(set(map(_group, samples)))) < len(STAGES):
        raise UserError(
            f"{place} has {len(samples)} images in {groups} groups, which no split may part, but "
            "train, val and test need one each: add images, or name smaller groups"
        )
    rest, test = holdout(samples, fraction=1 / 10, seed=seed, keep=2)  # for train and val
    return *holdout(rest, fraction=1 / 9, seed=seed), test


def parted(samples: Sequence[Sample], names: Collection[str]) -> tuple[list[Sample], list[Sample]]:
    """Divides samples into those without and those with the given names."""
    return [s for s in samples if s.name not in names], [s for s in samples if s.name in names]
