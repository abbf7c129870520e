"""Near duplicates as pictures, tables and lists, and the ceiling of the labels."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from segpets.browse.ceiling import Ceiling, label_ceiling
from segpets.browse.duplicates import Pair
from segpets.browse.survey import DUPLICATES, Survey, are_parted
from segpets.data import SegmentationDataModule
from segpets.data.decoded import read_sample
from segpets.errors import FileError
from segpets.reading import csv_cell
from segpets.report.figure import in_columns, outlined, sheet, shrunk, visible
from segpets.report.paint import RGB
from segpets.run.files import shown, write_atomically
from segpets.stats import Estimate

log = logging.getLogger("segpets.browse")

CEILING: Final = "ceiling.json"
_SHOWN = 200


@dataclass(frozen=True)
class Copies:
    """Pairs of images of one photograph.

    Attributes:
        pairs: The pairs, the likest first.
        tiles: A caption and both images of the first of them, each with its mask's edges beside.
        ceiling: How far annotations of the same photograph agree, if enough are there twice.
    """

    pairs: list[Pair]
    tiles: list[tuple[str, RGB]]
    ceiling: Ceiling | None


def copies_of(found: Survey, datamodule: SegmentationDataModule, classes: Sequence[str]) -> Copies:
    """Draws pairs of images of one photograph, and compares their masks."""
    tiles = []
    for pair in found.pairs[:_SHOWN]:
        row = []
        try:
            for one in (pair.first, pair.second):
                decoded = read_sample(found.samples[one], datamodule.source, datamodule.reader)
                image = visible(torch.from_numpy(decoded.image))
                row += [shrunk(image), shrunk(outlined(image, decoded.mask, classes))]
        except FileError:  # it was readable a moment ago
            continue
        height = max(part.shape[0] for part in row)
        row = [np.pad(part, ((0, height - len(part)), (0, 0), (0, 0))) for part in row]
        tiles.append((_caption(found, pair), np.hstack(row)))
    source, reader = datamodule.source, datamodule.reader
    ceiling = label_ceiling(found.pairs, found.samples, source, reader, classes)
    return Copies(found.pairs, tiles, ceiling)


def save(
    copies: Copies,
    found: Survey,
    folder: Path,
    *,
    classes: Sequence[str],
    protocol: dict[str, Any],
    before: str = "",
) -> None:
    """Writes pairs as CSV and PNG, the list for `data.exclude`, and the ceiling as JSON.

    The list goes on after `before`, another list for `data.exclude`.
    """
    write_atomically(folder / "duplicates.csv", _as_csv(copies, found))
    write_atomically(folder / DUPLICATES, before + _exclusions(copies, found))
    if copies.tiles:
        drawn = sheet(
            in_columns([[tile] for _, tile in copies.tiles]),
            heading="two images of one photograph, and the edges of their masks",
            captions=[caption for caption, _ in copies.tiles],
            classes=classes,
        )
        Image.fromarray(drawn).save(folder / "duplicates.png")
    if copies.ceiling is not None:
        text = json.dumps({"protocol": protocol, **asdict(copies.ceiling)}, indent=2)
        write_atomically(folder / CEILING, text + "\n")


def say(copies: Copies, found: Survey, folder: Path) -> None:
    """Prints what was found, and where it lies."""
    count = len(copies.pairs)
    if not count:
        log.info("No two images are of the same photograph")
        return
    parted = sum(_straddles(found, pair) for pair in copies.pairs)
    pairs = f"{count} pair{'s' if count > 1 else ''} of images of one photograph"
    where = "splits or folds" if found.folds else "splits"
    log.info("%s, %d of them in two %s: %s/duplicates.csv", pairs, parted, where, shown(folder))
    if parted:
        log.info("data.exclude=%s/%s leaves them out of training", shown(folder), DUPLICATES)
    if (ceiling := copies.ceiling) is not None:
        log.info(
            "%d photographs have two masks or more, which agree to a mean IoU of %s (%s) and on %s "
            "of the pixels: what a second annotator would score",
            ceiling.photographs,
            _with_interval(ceiling.mean_iou),
            ", ".join(f"{name} {one.mean:.3f}" for name, one in ceiling.iou.items()),
            f"{ceiling.pixel_accuracy.mean:.1%}",
        )


def _with_interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f}, 95 % interval {estimate.low:.3f} to {estimate.high:.3f}"


def _caption(found: Survey, pair: Pair) -> str:
    names = " | ".join(
        f"{found.title(row)} ({', '.join(found.stages_of[row])})"
        for row in (pair.first, pair.second)
    )
    return f"{names}  {pair.alike:.3f}{' mirrored' if pair.mirrored else ''}"


def _straddles(found: Survey, pair: Pair) -> bool:
    one, other = found.stages_of[pair.first], found.stages_of[pair.second]
    return are_parted(one, other, folds=found.folds)


def _as_csv(copies: Copies, found: Survey) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = ["first", "second", "first_in", "second_in", "alike", "mirrored", "moved", "difference"]
    table.writerow([*head, "first_file", "second_file"])
    for pair in copies.pairs:
        rows = (pair.first, pair.second)
        cells = [found.samples[row].name for row in rows]
        cells += [" ".join(found.stages_of[row]) for row in rows]
        numbers = [
            f"{pair.alike:.4f}",
            pair.mirrored,
            f"{pair.moved:.3f}",
            f"{pair.difference:.2f}",
        ]
        files = [csv_cell(found.files[row]) for row in rows]
        table.writerow([*map(csv_cell, cells), *numbers, *files])
    return text.getvalue()


def _exclusions(copies: Copies, found: Survey) -> str:
    """Lists, of each pair in two splits or folds, the image that is nearer to training."""
    order = list(found.stages)
    lines = ["# Images whose copy is in a later split or another fold: data.exclude=THIS_FILE"]
    listed = set()
    for pair in copies.pairs:
        if not _straddles(found, pair):
            continue
        rows = (pair.first, pair.second)
        row, other = sorted(rows, key=lambda row: (order.index(found.stages_of[row][-1]), row))
        name = found.samples[row].name
        if name not in listed:
            listed.add(name)
            also = f"{found.files[other]} of {found.stages_of[other][-1]}"
            lines.append(f"{name}  # {found.files[row]}, as {also}")
    return "\n".join(lines) + "\n"
