"""Cityscapes in its official layout.

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016. 2,975
images to train and 500 to validate, 2048x1024, of 21 cities; the masks of the test images are
secret, and those in their place hold void only. What the ids mean is `labels.py` of
https://github.com/mcordts/cityscapesScripts.

    leftImg8bit/{train,val}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from segpets.data.decode import read_indices
from segpets.data.holdout import parted
from segpets.data.source import Mask, Problem, Sample, Splits, sample_name
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX
from segpets.settings import Natural, checked

log = logging.getLogger(__name__)

# The ids of the 19 classes of the benchmark, in the order of their train ids.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_LAST_LABEL_ID = 33
_UNKNOWN: Final = 254
_IMAGE = re.compile(r"(.+)_leftImg8bit\.(?:png|jpe?g)", re.IGNORECASE)
_LABEL_IDS_FILE, _TRAIN_IDS_FILE = "labelIds.png", "labelTrainIds.png"
_MASK = re.compile(r"(.+)_gtFine_(\w+\.\w+)")


def _table(ids: Sequence[int], voids: Sequence[int]) -> Mask:
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[list(voids)] = IGNORE_INDEX
    table[list(ids)] = np.arange(len(_LABEL_IDS))
    return table


# The licence plate's id, -1, is drawn nowhere; what stores it in 8 bits stores 255.
_TABLES: Final = {
    _LABEL_IDS_FILE: _table(_LABEL_IDS, [*range(_LAST_LABEL_ID + 1), 255]),
    _TRAIN_IDS_FILE: _table(range(len(_LABEL_IDS)), [255]),
}


class Cityscapes:
    """Reads images and fine masks; turns their ids into the 19 classes of the benchmark.

    Args:
        root: The folder with `leftImg8bit/` and `gtFine/`, or with the unpacked archives
            `leftImg8bit_trainvaltest/` and `gtFine_trainvaltest/`. Where no image has label ids,
            the train ids that cityscapesScripts makes of them are read.
        classes: The names of the 19 classes, in the order of their train ids.
        split: `holdout` takes about a tenth of the official train images as val, and tests on the
            official val images. It holds out whole cities, as the official split does; whole
            sequences where one city would be more than a fifth; and images where those are, too.
            Where only train or only val is there, it holds out a tenth of that as test, too.
            `files` takes train and val as they are, so that val serves as test, too.
        seed: Chooses what `holdout` holds out.

    Raises:
        UserError: An argument is out of range.
    """

    splits_by_names = True

    @checked("data")
    def __init__(
        self,
        *,
        root: str | Path,
        classes: Any,
        split: Literal["holdout", "files"] = "holdout",
        seed: Natural = 0,
    ) -> None:
        if isinstance(classes, str) or len(classes) != len(_LABEL_IDS):
            raise UserError(
                f"data.classes={classes} must name the {len(_LABEL_IDS)} classes of Cityscapes in "
                "the order of their train ids, as conf/data/cityscapes.yaml does"
            )
        self.root = Path(os.path.expanduser(root))
        self.split, self.seed = split, seed
        self.rules = "Cityscapes, 19 train ids"

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        images, masks = self._place("leftImg8bit"), self._place("gtFine")
        kind = _kind(masks)
        problems: list[Problem] = []
        parts: dict[str, list[Sample]] = {}
        for part in ("train", "val"):
            samples = list(_listed(images / part, masks / part, kind, problems))
            if samples:
                parts[part] = samples
        more = f". {len(problems)} can't be used: {problems[0].error}" if problems else ""
        if not parts or (self.split == "files" and len(parts) < 2):
            missing = "val" if "train" in parts else "train"
            raise UserError(
                f"{images / missing} has no images with masks in {masks / missing}: add them, as "
                f"the archives have them{more}"
            )
        if len(parts) == 2:
            train, test = parts["train"], parts["val"]
            if twice := {s.name for s in train} & {s.name for s in test}:
                raise UserError(
                    f"{images}: {min(twice)} lies in train and in val: remove it from one of them"
                )
            if self.split == "files":
                return Splits(train=train, val=test, test=test, val_is_test=True, problems=problems)
        else:
            ((part, train),) = parts.items()
            log.warning("%s has only %s: a tenth of it is test", images, part)
            train, test = _held_out(train, 1 / 10, self.seed)
        if len(train) < 2:
            raise UserError(
                f"{images} has too few images with masks to hold some out: add some, or use "
                f"data.split=files{more}"
            )
        train, val = _held_out(train, 1 / 10 if len(parts) == 2 else 1 / 9, self.seed)
        return Splits(train=train, val=val, test=test, problems=problems)

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        kind = sample.mask.name.rpartition("_")[2]
        stored = read_indices(sample.mask)
        ids: Mask = _TABLES[kind][stored]
        if (ids == _UNKNOWN).any():
            wrong = np.unique(stored[ids == _UNKNOWN]).tolist()
            known = f"0 to {_LAST_LABEL_ID if kind == _LABEL_IDS_FILE else len(_LABEL_IDS) - 1}"
            raise FileError(
                sample.mask,
                f"has the values {wrong}, but {kind.removesuffix('.png')} are {known}, and 255",
                "restore it from the archive, or exclude the image by data.exclude",
            )
        return ids

    def _place(self, name: str) -> Path:
        places = [self.root / name, self.root / f"{name}_trainvaltest" / name]
        for place in places:
            if place.is_dir():
                return place
        raise UserError(
            f"{places[0]} is not a folder: data.root={self.root} must hold leftImg8bit/ and "
            "gtFine/, as leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
            "https://www.cityscapes-dataset.com have them"
        )


def _names(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for base, folders, files in os.walk(folder, followlinks=True):
        # A city's folder holds none; so links can't lead in circles.
        folders[:] = [] if base != str(folder) else sorted(f for f in folders if f[0] != ".")
        yield os.path.relpath(base, folder), sorted(file for file in files if file[0] != ".")


def _kind(masks: Path) -> str:
    counts: Counter[str] = Counter()
    for part in ("train", "val"):
        for _, files in _names(masks / part):
            counts.update(match[2] for file in files if (match := _MASK.fullmatch(file)))
    if counts[_LABEL_IDS_FILE]:
        return _LABEL_IDS_FILE
    if counts[_TRAIN_IDS_FILE]:
        log.info("%s has no labelIds: its labelTrainIds are read", masks)
        return _TRAIN_IDS_FILE
    kinds = [f"{count} {kind}" for kind, count in sorted(counts.items()) if count]
    raise UserError(
        f"{masks} has no masks of label ids, *_gtFine_{_LABEL_IDS_FILE}, in train/ and val/, but "
        f"{', '.join(kinds) or 'nothing'}: unpack gtFine_trainvaltest.zip anew. Of polygons, "
        "csCreateTrainIdLabelImgs of cityscapesScripts makes labelTrainIds, which are read, too"
    )


def _listed(images: Path, masks: Path, kind: str, problems: list[Problem]) -> Iterator[Sample]:
    there: dict[str, dict[str, str]] = {}
    for sub, files in _names(masks):
        named = ((_MASK.fullmatch(file), file) for file in files)
        there[sub] = {m[1]: file for m, file in named if m is not None and m[2] == kind}
    for sub, files in _names(images):
        rest = there.pop(sub, {})
        for file in files:
            if (match := _IMAGE.fullmatch(file)) is None:
                continue
            stem, name = match[1], sample_name(match[1])
            if (mask := rest.pop(stem, None)) is None:
                error = FileError(
                    images / sub / file,
                    f"has no mask {masks / sub / f'{stem}_gtFine_{kind}'}",
                    "restore it, or exclude the image by data.exclude",
                )
                problems.append(Problem(name, error))
                continue
            city, sequence = stem.partition("_")[0], stem.rpartition("_")[0]
            image, attributes = images / sub / file, {"city": city}
            yield Sample(name, image, masks / sub / mask, attributes, group=sequence)
        there[sub] = rest
    for sub, rest in there.items():
        for stem, mask in rest.items():
            error = FileError(
                masks / sub / mask,
                "is a mask without an image",
                "restore it, or exclude the mask by data.exclude",
            )
            problems.append(Problem(sample_name(stem), error))


def _held_out(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Splits off roughly a fraction: whole cities, whole sequences or images.

    Neighbouring frames of a sequence are alike, so a split between them would flatter the model.
    """
    names = [sample.name for sample in samples]
    units: tuple[Callable[[str], str], ...] = (
        lambda name: name.partition("_")[0],
        lambda name: name.rpartition("_")[0],
        lambda name: name,
    )
    wanted = max(fraction * len(names), 1)
    chosen: set[str] = set()
    for unit in units:
        counts = Counter(map(unit, names))
        chosen, total = set(), 0
        keys = sorted(counts)
        for index in np.random.default_rng(seed).permutation(len(keys)):
            if abs(total + counts[keys[index]] - wanted) < abs(total - wanted):
                chosen.add(keys[index])
                total += counts[keys[index]]
        if 0 < total <= 2 * wanted and len(chosen) < len(keys):
            chosen = {name for name in names if unit(name) in chosen}
            break
    return parted(samples, chosen)
