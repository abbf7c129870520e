"""Cross-validation: the images of training and val, dealt into folds of which one is val."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segpets.data.source import Sample, Splits
from segpets.errors import UserError

log = logging.getLogger(__name__)


def check_folds(folds: int | None, fold: int | None) -> None:
    """Refuses a fold without its number, or beyond it.

    Raises:
        UserError: They don't fit each other.
    """
    if folds is None and fold is None:
        return
    if folds is None:
        raise UserError(f"data.fold={fold} needs data.folds, the number of folds: data.folds=5")
    each = ",".join(map(str, range(folds)))
    if fold is None:
        raise UserError(
            f"data.folds={folds} needs data.fold, which of them is val: -m data.fold={each} trains "
            "with each"
        )
    if not 0 <= fold < folds:
        raise UserError(f"data.fold={fold}, but data.folds={folds} are numbered from 0: {each}")


def of_fold(splits: Splits, *, folds: int, fold: int, seed: int, by: str | None) -> Splits:
    """Makes one fold val and the others train; test stays what it is.

    Args:
        splits: The splits of the data set. What is train and val there is dealt anew, but for val
            that holds the test images.
        folds: K.
        fold: Which of them is val, from 0.
        seed: Another seed, other folds.
        by: The attribute whose values each fold shall have in the same proportion.

    Raises:
        UserError: There are fewer images, or groups of images, than folds.
    """
    pool = {sample.name: sample for sample in splits.train}
    if not splits.val_is_test:
        pool |= {sample.name: sample for sample in splits.val}
    dealt = deal([*pool.values()], folds, seed=seed, by=by)
    held_out = {name for name, place in dealt.items() if place == fold}
    return replace(
        splits,
        train=[sample for sample in pool.values() if sample.name not in held_out],
        val=[sample for sample in pool.values() if sample.name in held_out],
        augment_val=False,
        val_is_test=False,
    )


def deal(samples: Sequence[Sample], folds: int, *, seed: int, by: str | None) -> dict[str, int]:
    """Deals samples into folds, in the same proportion within each value of an attribute.

    Groups stay together. Who is in which fold depends on the set of names, the number of folds and
    the seed alone, not on the order.

    Args:
        samples: What is dealt.
        folds: K.
        seed: Another seed, other folds.
        by: The attribute, such as `breed`; None takes all samples as one.

    Returns:
        The fold of each, from 0, by its name.

    Raises:
        UserError: There are fewer images, or groups of images, than folds.
    """
    units: dict[str, list[Sample]] = {}
    for sample in samples:
        key = f"group {sample.group}" if sample.group else sample.name
        units.setdefault(key, []).append(sample)
    if len(units) < folds:
        what = "groups of images" if len(units) < len(samples) else "images"
        raise UserError(
            f"data.folds={folds}, but train and val have {len(units)} {what}: choose fewer folds"
        )
    strata: dict[str, list[str]] = {}
    for key in sorted(units):
        strata.setdefault(units[key][0].attributes.get(by, "") if by else "", []).append(key)
    fewer = [value for value, keys in strata.items() if len(keys) < folds]
    if fewer:
        log.warning(
            "%d values of %s have fewer images than there are folds (%s has %d, data.folds=%d): "
            "not every fold shows them",
            len(fewer),
            by,
            fewer[0],
            len(strata[fewer[0]]),
            folds,
        )
    sizes = np.zeros(folds, dtype=np.int64)
    dealt: dict[str, int] = {}
    for index, value in enumerate(sorted(strata)):
        generator = np.random.default_rng([seed, index])
        keys = [strata[value][i] for i in generator.permutation(len(strata[value]))]
        keys.sort(key=lambda key: -len(units[key]))  # large groups first; it keeps the order else
        own = np.zeros(folds, dtype=np.int64)  # of this value
        for key in keys:
            fold = min(range(folds), key=lambda k: (own[k], sizes[k], k))
            own[fold] += len(units[key])
            sizes[fold] += len(units[key])
            dealt |= {sample.name: fold for sample in units[key]}
    return dealt
