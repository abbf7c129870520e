"""Masks that models of other folds contradict: likely errors of the labels, the likeliest first."""

import csv
import io
import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.browse.survey import Survey
from segpets.data import SegmentationDataModule
from segpets.data.decode import read_indices
from segpets.data.decoded import read_sample
from segpets.data.pixels import in_threads
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX
from segpets.reading import csv_cell, read_csv
from segpets.report.figure import colourise, in_columns, mixed, sheet, shrunk, visible
from segpets.report.paint import RGB
from segpets.run.directory import read_summary
from segpets.run.files import OUT_OF_FOLD, shown, write_atomically
from segpets.run.find import find_runs
from segpets.stats import iou, mean_over_classes

log = logging.getLogger("segpets.browse")

ISSUES: Final = "label_issues.csv"
SHOWN: Final = 60
_MOST_ROWS: Final = 5_000_000
_MEANT: Final = ("data", "classes", "labels", "masks")  # of a protocol


@dataclass(frozen=True)
class Issue:
    """A mask, and what a model that wasn't trained on it says.

    Attributes:
        row: The sample's place in the survey.
        contradiction: From 0, none, to 1, sure of other classes throughout; the mean of the runs
            that predicted it.
        mean_iou: Of the prediction, judged by the mask; NaN where no pixel counts.
        mask: The file of the predicted mask, of the run that is nearest to the mean.
        run: That run.
        changed: Whether the mask has changed since.
    """

    row: int
    contradiction: float
    mean_iou: float
    mask: Path
    run: Path
    changed: bool = False


def find_issues(
    words: object,
    found: Survey,
    datamodule: SegmentationDataModule,
    log_dir: Path,
    meant: Mapping[str, Any],
) -> list[Issue]:
    """Reads the predictions of folds, and ranks the masks that they contradict.

    Masks that have changed since are last, where the pictures have the size that the runs saw.

    Args:
        words: Runs or folders of runs, as `predictions=` names them.
        found: The survey of the same data.
        datamodule: The data.
        log_dir: Where `latest` and sweeps by their names are looked for.
        meant: What the data's labels mean, in the words of a protocol.

    Raises:
        UserError: There is no such run, none has such predictions of these images, or one is of
            another data set or knows other classes.
    """
    listed = [words] if isinstance(words, str) else list(words)  # type: ignore[call-overload]
    paths, _ = find_runs([str(word) for word in listed], log_dir=log_dir, key="predictions")
    rows = {sample.name: row for row, sample in enumerate(found.samples)}
    told: dict[int, list[Issue]] = defaultdict(list)
    sized_alike: set[Path] = set()
    for run in paths:
        known = read_summary(run).get("protocol") or {}
        for key in _MEANT if (run / OUT_OF_FOLD).is_file() else ():
            if known.get(key) not in (None, meant[key]):
                raise UserError(
                    f"predictions={shown(run)} was trained with other data ({key}: "
                    f"{_words(known[key])}; and not {_words(meant[key])}): give those"
                )
        alike = known.get("fit", "stretch") == meant["fit"]
        if alike and known.get("resolution") == meant["resolution"]:
            sized_alike.add(run)
        for issue in _of_run(run, rows):
            told[issue.row].append(issue)
    if not told:
        raise UserError(
            f"predictions={words}: no run there holds {OUT_OF_FOLD} of these images. Train with "
            "folds: -m data.folds=5 data.fold=0,1,2,3,4"
        )
    ranked = sorted(map(_mean, told.values()), key=lambda one: (-one.contradiction, one.row))
    return _of_today(ranked, found, datamodule, sized_alike)


def _mean(issues: Sequence[Issue]) -> Issue:
    """Averages what several runs say of a mask."""
    mean = statistics.fmean(issue.contradiction for issue in issues)
    nearest = min(issues, key=lambda issue: abs(issue.contradiction - mean))
    return replace(nearest, contradiction=mean)


def _of_today(
    issues: list[Issue], found: Survey, datamodule: SegmentationDataModule, comparable: set[Path]
) -> list[Issue]:
    """Puts last the masks that aren't those that were judged.

    Raises:
        UserError: Most aren't.
    """

    def has_changed(at: int) -> bool:
        issue, sample = issues[at], found.samples[issues[at].row]
        try:
            mask = read_sample(sample, datamodule.source, datamodule.reader).mask
            predicted = read_indices(issue.mask)
        except FileError:  # lost, or not a picture
            return False
        if mask.shape != predicted.shape:
            return False
        now = _mean_iou(mask, predicted, found.counts.shape[1] - 1)
        return abs(now - issue.mean_iou) > 1e-4

    looked = [at for at, issue in enumerate(issues) if issue.run in comparable]
    answers = in_threads(lambda i: has_changed(looked[i]), len(looked), "Comparing")
    changed = {at for at, answer in zip(looked, answers, strict=True) if answer}
    if 2 * len(changed) > len(looked):
        raise UserError(
            f"{len(changed)} of {len(looked)} masks aren't those that the runs of predictions= "
            "were judged by: give the data that they were trained with, or train the folds anew"
        )
    if changed:
        log.warning(
            "%d of the masks have changed since, such as that of %s: they are ranked last. Train "
            "the folds anew to rank them, too",
            len(changed),
            found.title(issues[min(changed)].row),
        )
    kept = [issue for at, issue in enumerate(issues) if at not in changed]
    return kept + [replace(issues[at], changed=True) for at in sorted(changed)]


def _mean_iou(mask: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> float:
    """Computes the mean IoU of the classes in truth or prediction; NaN where no pixel counts."""
    predicted, mask = predicted[mask != IGNORE_INDEX], mask[mask != IGNORE_INDEX]
    ids = range(classes)
    hit = [np.count_nonzero((mask == k) & (predicted == k)) for k in ids]
    parts = [hit, *([np.count_nonzero(one == k) for k in ids] for one in (mask, predicted))]
    return float(mean_over_classes(iou(np.array(parts))))


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _of_run(run: Path, rows: dict[str, int]) -> Iterator[Issue]:
    file = run / OUT_OF_FOLD
    if not file.is_file():
        return
    try:
        for number, row in enumerate(csv.DictReader(_lines(file))):
            if number > _MOST_ROWS:
                raise ValueError(f"it has more than {_MOST_ROWS:,} rows")
            name = row["name"]
            contradiction, mean_iou = float(row["contradiction"]), float(row["mean_iou"] or "nan")
            if not 0 <= contradiction <= 1 or math.isinf(mean_iou):
                raise ValueError(f"{name} has numbers out of range")
            if name in rows:  # so it holds no path
                mask = file.parent / "masks" / f"{name}.png"
                yield Issue(rows[name], contradiction, mean_iou, mask, run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(file, f"can't be read ({error})", "train that fold anew") from error


def _lines(file: Path) -> Iterator[str]:
    for cells in read_csv(file):
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        yield text.getvalue()


def tiles_of(
    issues: Sequence[Issue],
    found: Survey,
    datamodule: SegmentationDataModule,
    classes: Sequence[str],
) -> list[tuple[str, list[RGB]]]:
    """Draws image, mask and prediction of the first issues, each with a caption."""
    tiles = []
    for issue in issues[:SHOWN]:
        sample = found.samples[issue.row]
        try:
            decoded = read_sample(sample, datamodule.source, datamodule.reader)
            predicted = torch.from_numpy(read_indices(issue.mask).copy())
        except FileError:  # lost, or not a picture
            continue
        image, mask = visible(torch.from_numpy(decoded.image)), torch.from_numpy(decoded.mask)
        predicted = _fitted(predicted, mask)
        painted = [colourise(ids, classes) for ids in (mask, predicted)]
        row = [shrunk(part) for part in (image, *painted, mixed(image, painted[1]))]
        changed = ", changed since" if issue.changed else ""
        caption = f"{found.title(issue.row)}: contradicted by {issue.contradiction:.3f}{changed}"
        tiles.append((f"{caption}, mean IoU {issue.mean_iou:.3f}", row))
    return tiles


def _fitted(predicted: Tensor, like: Tensor) -> Tensor:
    if predicted.shape == like.shape:
        return predicted
    size = (like.shape[0], like.shape[1])
    return interpolate(predicted[None, None], size=size, mode="nearest-exact")[0, 0]


def save(
    issues: Sequence[Issue],
    tiles: Sequence[tuple[str, Sequence[RGB]]],
    found: Survey,
    folder: Path,
    classes: Sequence[str],
    *,
    before: str = "",
) -> None:
    """Writes all issues as CSV, the first as pictures, and a list for `data.exclude`.

    The list goes on after `before`, by which images were excluded already.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    numbers = ("contradiction", "mean_iou", "changed")
    table.writerow(["name", "stage", *numbers, "mask", "predicted", "run"])
    names: list[str] = []
    for issue in issues:
        sample = found.samples[issue.row]
        if not issue.changed:
            names.append(f"# {sample.name}  # contradicted by {issue.contradiction:.3f}")
        cells: list[Any] = [sample.name, " ".join(found.stages_of[issue.row])]
        mean_iou = "" if math.isnan(issue.mean_iou) else f"{issue.mean_iou:.6f}"
        cells += [f"{issue.contradiction:.6f}", mean_iou, "yes" if issue.changed else ""]
        cells += [str(sample.mask), str(issue.mask), shown(issue.run)]
        table.writerow(map(csv_cell, map(str, cells)))
    write_atomically(folder / ISSUES, text.getvalue())
    head = "# Masks that a model contradicts, the most first: remove the # of those that are wrong."
    write_atomically(folder / "label_issues.txt", before + "\n".join([head, *names[:SHOWN]]) + "\n")
    if tiles:
        drawn = sheet(
            in_columns([row for _, row in tiles]),
            heading="image | mask | prediction of another fold | prediction over image",
            captions=[caption for caption, _ in tiles],
            classes=classes,
        )
        Image.fromarray(drawn).save(folder / "label_issues.png")
