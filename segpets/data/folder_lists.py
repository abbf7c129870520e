"""Splits of the reader's own images by lists, or by a column of a table."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from segpets.data.listed import AMBIGUOUS, listed_names, rows_by_name
from segpets.data.source import STAGES, Problem, Sample, Splits, sample_name
from segpets.errors import FileError, UserError

log = logging.getLogger(__name__)

Chosen = dict[str, list[int]]
"""The places of a stage's samples in a list, by stage."""


def of_rows(
    rows: Chosen, samples: Sequence[Sample], *, place: Path, problems: list[Problem]
) -> Splits:
    """Makes the splits that were chosen; without a test, val serves as test.

    Raises:
        UserError: Nothing is listed for train or val.
    """
    for stage in ("train", "val"):
        if not rows[stage] and not problems:
            raise UserError(
                f"data.split=files, but no image of {place} is listed for "
                f"{stage}: list some, or use data.split=holdout"
            )
    named = {row for listed in rows.values() for row in listed}
    unused = [samples[row].image for row in range(len(samples)) if row not in named]
    if unused:
        log.info("%d images are in no split and are left out", len(unused))
    if not rows["test"]:
        log.warning("No image is listed for test: those of val serve as test, too")
    stages = {stage: [samples[row] for row in rows[stage]] for stage in STAGES}
    return Splits(
        train=stages["train"],
        val=stages["val"],
        test=stages["test"] or stages["val"],
        val_is_test=not rows["test"],
        problems=problems,
        unused=unused,
    )


def has_stages(samples: Sequence[Sample], table: Path) -> bool:
    """Tells whether the column `split` of a table names train and val, and says what follows."""
    words = {sample.attributes["split"] for sample in samples} - {""}
    if {"train", "val"} <= words:
        told = "The column split of %s makes the splits; data.split=holdout overrules"
        log.info(told, table)
        return True
    if words:
        told = "The column split of %s holds %s, but not train and val: it isn't used"
        log.warning(told, table, ", ".join(sorted(words)[:8]))
    return False


def by_column(samples: Sequence[Sample], table: Path) -> Chosen:
    """Chooses by the column `split` of a table of pairs.

    Raises:
        UserError: It holds another word.
    """
    rows: Chosen = {stage: [] for stage in STAGES}
    for row, word in enumerate(sample.attributes["split"] for sample in samples):
        if word and word not in rows:
            raise UserError(
                f"{table} has the split {word}: its column split may hold train, val "
                "and test, or nothing"
            )
        rows.get(word, []).append(row)
    return rows


def by_lists(
    lists: Mapping[str, Path],
    samples: Sequence[Sample],
    bases: Sequence[Path],
    problems: list[Problem],
    *,
    optional_test: bool,
) -> Chosen:
    """Chooses by lists of names, an image a line; what can't be found becomes a problem."""
    by_path, by_name = rows_by_name(samples, bases)
    known = {problem.name for problem in problems}
    rows: Chosen = {stage: [] for stage in STAGES}
    taken: dict[int, str] = {}
    twice: set[int] = set()
    for stage in filter(lists.__contains__, STAGES):
        path = lists[stage]
        if stage == "test" and optional_test and not path.exists():
            continue
        for number, word in listed_names(path, stage, bases):
            name = sample_name(os.path.splitext(word)[0])
            row = by_path.get(word, by_name.get(word))
            if row is not None and row != AMBIGUOUS:
                if row in taken:
                    error = FileError(
                        path,
                        f"names {word} in line {number}, as {taken[row]} does",
                        "remove one of the lines, as an image belongs to one split, once",
                    )
                    problems.append(Problem(samples[row].name, error))
                    twice.add(row)
                    continue
                taken[row] = f"{path.name}:{number}"
                rows[stage].append(row)
            elif row == AMBIGUOUS or not {name, sample_name(word)} & known:
                what = "isn't there" if row is None else "fits several images"
                error = FileError(
                    path,
                    f"names {word} in line {number}, which {what}",
                    "correct the name (sub-folder/name.suffix is exact), or remove the line",
                )
                problems.append(Problem(name, error))
    return {stage: [row for row in rows[stage] if row not in twice] for stage in STAGES}
