"""The images on which runs disagree, taken from the runs' files and from their data."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import segpets.data
from segpets.data import Source
from segpets.data.decode import load, open_image
from segpets.data.decoded import read_sample
from segpets.data.reader import Reader
from segpets.errors import UserError
from segpets.records.counts import truth_keys
from segpets.records.group import Configuration, Group, lower_is_better
from segpets.records.record import Record
from segpets.report.figure import visible
from segpets.run.files import CONFIG, RunFiles
from segpets.run.schema import read_plain
from segpets.run.stored import StoredRun, upgraded
from segpets.run.trust import Trust

Pixel8 = NDArray[np.uint8]

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_LARGEST: Final = 4096


@dataclass(frozen=True)
class Disputed:
    """An image on which runs disagree.

    Attributes:
        name: Its name.
        image: Its pixels, (H, W, 3); None without its data.
        truth: Its mask, (H, W); None without its data.
        masks: What each configuration predicted, (H, W); None if it is lost.
        iou: The mean IoU of each of these.
    """

    name: str
    image: Pixel8 | None
    truth: Pixel8 | None
    masks: list[Pixel8 | None]
    iou: list[float]


def disputed(
    group: Group, *, count: int, among: int, metric: str
) -> tuple[list[Configuration], list[Disputed], list[str]]:
    """Finds the images with the largest range of mean IoU among the best configurations.

    Args:
        group: The configurations.
        count: The number of images.
        among: The number of configurations; each is represented by its best run with predictions.
        metric: The metric that ranks them.

    Returns:
        The configurations, the images, and notes that the reader needs.
    """
    able = [c for c in group.configurations if any(run.counts for run in c.runs)][:among]
    sign = -1 if lower_is_better(metric) else 1
    runs = [
        max((run for run in c.runs if run.counts), key=lambda run: sign * run.values[metric])
        for c in able
    ]
    if len(runs) < 2 or count == 0:
        return [], [], []
    names = runs[0].counts.names if runs[0].counts else np.array([])
    for run in runs[1:]:
        names = np.intersect1d(names, run.counts.names if run.counts else [])
    iou = np.stack([_of(run, names) for run in runs])  # (runs, images)
    if not len(names):
        return able, [], ["They have no image in common"]
    spread = np.nan_to_num(iou.max(0) - iou.min(0))
    order = [int(i) for i in np.argsort(-spread, kind="stable") if spread[i] > 0]
    chosen = [i for i in order if _SAFE_NAME.fullmatch(str(names[i]))][:count]
    if not chosen:
        return able, [], ["Their predictions are equally good on each image"]
    wanted = [str(names[i]) for i in chosen]
    originals, notes = _originals(runs[0], wanted, group)
    images = []
    for name, place in zip(wanted, chosen, strict=True):
        image, truth = originals.get(name, (None, None))
        size = _size(group) if truth is None else truth.shape
        masks = [_mask(RunFiles(run.path).masks / f"{name}.png", group, size) for run in runs]
        images.append(Disputed(name, image, truth, masks, iou[:, place].tolist()))
    for column, configuration in enumerate(able):
        if lost := sum(shown.masks[column] is None for shown in images):
            notes.append(
                f"#{configuration.rank}: of {len(images)} predicted masks {lost} are missing, "
                "can't be read, or are of other classes or sizes"
            )
    return able, images, notes


def _of(run: Record, names: NDArray[np.str_]) -> NDArray[np.float64]:
    assert run.counts is not None
    return run.counts.iou[np.searchsorted(run.counts.names, names)]


def _mask(file: Path, group: Group, size: tuple[int, ...] | None) -> Pixel8 | None:
    if not file.is_file():
        return None
    try:
        with open_image(file) as image:
            own = (image.height, image.width)
            if image.mode != "L" or max(own) > _LARGEST or (size is not None and own != size):
                return None
            mask: Pixel8 = np.asarray(load(image, file)).copy()
    except UserError:
        return None
    return mask if mask.max() < len(group.classes) else None


def _originals(
    run: Record, names: Sequence[str], group: Group
) -> tuple[dict[str, tuple[Pixel8, Pixel8]], list[str]]:
    originals: dict[str, tuple[Pixel8, Pixel8]] = {}
    changed = 0
    try:
        source, data = _source(run.path)
        splits, reader = source.splits(), Reader.of(data)
        wanted = set(names)
        for samples in reversed(splits.stages().values()):
            for sample in samples:
                if sample.name not in wanted:
                    continue
                wanted.remove(sample.name)
                decoded = read_sample(sample, source, reader)
                ids = decoded.mask
                if _is_as_tested(run, sample.name, ids, len(group.classes)):
                    originals[sample.name] = visible(torch.from_numpy(decoded.image)), ids
                else:
                    changed += 1
    except Exception as error:  # a config from anywhere can go wrong in any way
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        return {}, [f"Only the predicted masks are shown, not the images: {reason}"]
    if changed:
        return originals, [f"The data has changed since: {changed} images have another truth now"]
    return originals, [f"{len(wanted)} images are no longer in the data"] if wanted else []


def _is_as_tested(run: Record, name: str, ids: Pixel8, classes: int) -> bool:
    assert run.counts is not None
    pixels = np.bincount(ids.ravel(), minlength=256)[:classes]
    key = run.counts.truth[np.searchsorted(run.counts.names, name)]
    return bool(truth_keys(pixels.astype(np.int64)) == key)


def _size(group: Group) -> tuple[int, ...] | None:
    """Returns height and width that all predicted masks have; None if each has its image's own."""
    size = group.protocol.get("resolution")
    if isinstance(size, list) and all(isinstance(side, int) for side in size):
        return tuple(size)
    return None


def _source(path: Path) -> tuple[Source, dict[str, Any]]:
    """Makes the data source of a run's config, which anyone may have written: one of ours, or none.

    Nothing in the config is instantiated: the class is called with plain values.
    """
    config = upgraded(read_plain(RunFiles(path).config))
    data = config.get("data")
    if not isinstance(data, dict) or "_target_" not in data:
        raise UserError(f"{CONFIG} names no data source")
    data = StoredRun(path, config, {}, Trust()).data({})
    package, _, name = str(data["_target_"]).rpartition(".")
    ours = package == "segpets.data" and name in segpets.data.__all__ and name != "Source"
    part: Any = getattr(segpets.data, name) if ours else None
    if not (hasattr(part, "splits") and hasattr(part, "mask")):
        raise UserError(
            f"the data source {data['_target_']} is none of segpets' own, and isn't started"
        )
    keys = [key for key in inspect.signature(part).parameters if key in data]
    source: Source = part(**{key: data[key] for key in keys})
    return source, data
