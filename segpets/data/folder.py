"""The reader's own images: folders of images and masks, or a table of pairs.

ROOT/images/a.jpg    ROOT/masks/a.png          by stem, or by a pattern such as {stem}_mask
pairs.csv            image,mask[,split]        paths from the table's folder or from ROOT
"""

import csv
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from segpets.data.decode import load, open_image
from segpets.data.source import Mask, Problem, Sample, Samples, Splits, holdout, sample_name
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX

log = logging.getLogger(__name__)

SUFFIXES: Final = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
STAGES: Final = ("train", "val", "test")
_MODES: Final = {"1", "L", "P", "LA", "PA", "RGB", "RGBA", "I", "I;16", "I;16B", "I;16L"}


class Folder:
    """Pairs images with masks by their names, and turns what masks hold into class ids.

    Args:
        root: The folder with `images/` and `masks/`, in which sub-folders may lie.
        classes: The classes' names, in the order of their ids.
        images: Another folder of images.
        masks: Another folder of masks.
        pairs: A CSV with the columns image and mask, and split if its words train, val and test
            are to be followed; instead of folders.
        mask_pattern: The stem of the mask that belongs to an image's stem.
        values: What the values of a mask mean: a class's name, or `ignore`. None: they are ids,
            and 255 is ignored.
        threshold: What is above is the second class, else the first; instead of `values`.
        ignore_value: One more value that is ignored.
        split: `holdout` makes 80/10/10 by the seed; `files` follows lists, or the CSV's column.
        files: The list of each stage, one name a line; None: train.txt, val.txt and test.txt in
            the root. Without a list for test, val serves as test.
        seed: Of the holdout.

    Raises:
        UserError: The arguments contradict each other or the classes.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        images: str | Path | None = None,
        masks: str | Path | None = None,
        pairs: str | Path | None = None,
        mask_pattern: str = "{stem}",
        values: Mapping[Any, str | None] | None = None,
        threshold: float | None = None,
        ignore_value: int | None = None,
        split: str = "holdout",
        files: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        if split not in ("holdout", "files"):
            raise UserError(f"data.split={split} is unknown: choose holdout or files")
        if "{stem}" not in mask_pattern:
            raise UserError(f"data.mask_pattern={mask_pattern} must hold {{stem}}, the image's")
        if values is not None and threshold is not None:
            raise UserError("data.values and data.threshold exclude each other: give one of them")
        if threshold is not None and len(classes) != 2:
            raise UserError(
                f"data.threshold={threshold} makes two classes, but data.classes names "
                f"{len(classes)}: give two names, or use data.values"
            )
        self.root = Path(root).expanduser()
        self.images = Path(images).expanduser() if images else self.root / "images"
        self.masks = Path(masks).expanduser() if masks else self.root / "masks"
        self.pairs = Path(pairs).expanduser() if pairs else None
        self.classes, self.mask_pattern = list(classes), mask_pattern
        self.values = None if values is None else self._meanings(values)
        self.threshold, self.ignore_value = threshold, ignore_value
        self.split, self.files, self.seed = split, files, seed
        self.rules = (
            f"{len(classes)} classes, values {self.values}, threshold {threshold}, "
            f"ignored {ignore_value}"
        )
        self._warned = False

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        problems: list[Problem] = []
        listed = Samples(self._from_table(problems) if self.pairs else self._from_folders(problems))
        if not listed:
            first = f" The first problem: {problems[0].error}" if problems else ""
            raise UserError(f"no image with a mask in {self.pairs or self.images}.{first}")
        if self.split == "files":
            return self._by_files(listed, problems)
        if len(listed) < 3:
            raise UserError(
                f"{len(listed)} images can't be split into train, val and test: at least 3 are "
                "needed"
            )
        rest, test = holdout(listed, fraction=0.1, by=None, seed=self.seed)
        train, val = holdout(rest, fraction=1 / 9, by=None, seed=self.seed)
        return Splits(train=train, val=val, test=test, problems=problems)

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        values = self._values(sample.mask)
        ignored = values == self.ignore_value if self.ignore_value is not None else None
        if self.threshold is not None:
            ids = (values > self.threshold).astype(np.uint8)
        else:
            known = self.values
            if known is None:
                known = {index: index for index in range(len(self.classes))}
                known[IGNORE_INDEX] = IGNORE_INDEX
            ids = self._mapped(values, known, ignored, sample.mask)
        if ignored is not None:
            ids[ignored] = IGNORE_INDEX
        return ids

    def _mapped(
        self,
        values: NDArray[Any],
        known: Mapping[int, int],
        ignored: NDArray[np.bool_] | None,
        file: Path,
    ) -> Mask:
        found, inverse = np.unique(values, return_inverse=True)
        strange = [int(v) for v in found if int(v) not in known and v != self.ignore_value]
        if strange:
            shown = ", ".join(map(str, strange[:8])) + (" ..." if strange[8:] else "")
            if self.values is None:
                remedy = (
                    f"name what they mean, as in 'data.values={{0: {self.classes[0]}, "
                    f"{strange[-1]}: {self.classes[-1]}}}', or take all above a threshold as the "
                    "second class by data.threshold=0, or set data.ignore_value"
                )
                said = f"the ids 0 to {len(self.classes) - 1} of data.classes and 255"
            else:
                remedy = "add them to data.values, with a class or with ignore"
                said = f"the values {', '.join(map(str, self.values))} of data.values"
            raise FileError(file, f"has the values {shown} beside {said}", remedy)
        table = np.array([known.get(int(v), IGNORE_INDEX) for v in found], dtype=np.uint8)
        ids: Mask = table[inverse].reshape(values.shape)
        return ids

    def _values(self, file: Path) -> NDArray[Any]:
        """What a mask holds, (H, W), as numbers of any width."""
        with open_image(file) as mask:
            if mask.format == "JPEG":
                self._lossy(file)
            mode = mask.mode
            if mode not in _MODES:
                raise FileError(
                    file, f"is a mask with pixels of type {mode}", "store it as a greyscale PNG"
                )
            values = np.asarray(load(mask, file))
        if mode == "1":
            white = 255 if self.values and 255 in self.values and 1 not in self.values else 1
            return values.astype(np.uint8) * white
        if values.ndim == 2:
            return values
        colours = values[..., :3] if mode in ("RGB", "RGBA") else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise FileError(
                file,
                "is a mask of colours, but data=folder reads one number a pixel",
                "store the class ids as a greyscale or palette PNG",
            )
        return colours[..., 0]

    def _lossy(self, file: Path) -> None:
        if self.threshold is None:
            raise FileError(
                file,
                "is a mask stored as lossy JPEG, which changes its values",
                "store it as PNG; or, for two classes, say data.threshold=127",
            )
        if not self._warned:
            self._warned = True
            log.warning(
                "Masks such as %s are lossy JPEGs: values near data.threshold=%g may have changed; "
                "127 is safer than 0",
                file,
                self.threshold,
            )

    def _meanings(self, values: Mapping[Any, str | None]) -> dict[int, int]:
        meanings: dict[int, int] = {}
        for value, name in values.items():
            try:
                number = int(value)
            except (TypeError, ValueError):
                raise UserError(f"data.values: {value} must be a whole number") from None
            if name is None or name == "ignore":
                meanings[number] = IGNORE_INDEX
            elif name in self.classes:
                meanings[number] = self.classes.index(name)
            else:
                raise UserError(
                    f"data.values gives {value} to {name}, which data.classes="
                    f"[{','.join(self.classes)}] doesn't name: correct one of them, or say ignore"
                )
        return meanings

    def _from_folders(self, problems: list[Problem]) -> Iterator[Sample]:
        for key, place in (("images", self.images), ("masks", self.masks)):
            if not place.is_dir():
                raise UserError(
                    f"data.{key}: {place} is not a folder. data.root={self.root} must hold "
                    "images/ and masks/, or give data.images and data.masks, or data.pairs"
                )
        masks: dict[str, list[str]] = {}
        for path in _files(self.masks):
            masks.setdefault(os.path.splitext(path)[0], []).append(path)
        stems: dict[str, list[str]] = {}
        for file in _files(self.images):
            stems.setdefault(os.path.splitext(file)[0], []).append(file)
        used: set[str] = set()
        for stem, images in stems.items():
            name = sample_name(stem.replace(os.sep, "__"))
            folder, _, last = stem.rpartition(os.sep)
            wanted = os.path.join(folder, self.mask_pattern.replace("{stem}", last))
            found = masks.get(wanted, [])
            used.add(wanted)
            if len(images) == len(found) == 1:
                yield Sample(name, self.images / images[0], self.masks / found[0])
            elif not found:
                wished = self.masks / f"{wanted}.*"
                error = FileError(
                    self.images / images[0],
                    f"has no mask {wished}",
                    "add it, set data.mask_pattern, or exclude the image",
                )
                problems.append(Problem(name, error))
            else:
                several, where = (images, self.images) if images[1:] else (found, self.masks)
                error = FileError(
                    where / several[0],
                    f"and {where / several[1]} are both partners of one stem",
                    "remove one, or say which by data.pairs",
                )
                problems.append(Problem(name, error))
        for stem in masks.keys() - used:
            error = FileError(
                self.masks / masks[stem][0],
                "is a mask without an image",
                "add the image, set data.mask_pattern, or exclude it",
            )
            problems.append(Problem(sample_name(stem.replace(os.sep, "__")), error))

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The lines of the table, with their numbers."""
        assert self.pairs is not None
        try:
            text = self.pairs.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"data.pairs={self.pairs} can't be read: {error}") from error
        lines = text.splitlines()
        header = lines[0] if lines else ""
        delimiter = max(",;\t", key=header.count)
        reader = csv.DictReader(lines, delimiter=delimiter)
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        if missing := [column for column in ("image", "mask") if column not in names]:
            raise UserError(
                f"{self.pairs} has the columns {', '.join(names) or 'none'}, but not "
                f"{' and '.join(missing)}: its first line must be image,mask or image,mask,split"
            )
        if self.split == "files" and self.files is None and "split" not in names:
            raise UserError(
                f"{self.pairs} has no column split, which data.split=files follows: add it, or use "
                "data.split=holdout"
            )
        for row in reader:
            yield reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}

    def _from_table(self, problems: list[Problem]) -> Iterator[Sample]:
        seen: set[str] = set()
        for number, row in self._rows():
            name = sample_name(os.path.splitext(row["image"])[0].replace("/", "__"))
            paths = [
                self._resolved(row[key], f"{self.pairs}:{number}") for key in ("image", "mask")
            ]
            if name in seen:
                raise UserError(f"{self.pairs}:{number} names {row['image']} a second time")
            seen.add(name)
            missing = [file for file in paths if not file.is_file()]
            for file in missing:
                error = FileError(
                    file,
                    f"is missing, though {self.pairs}:{number} names it",
                    "restore it, or remove the line",
                )
                problems.append(Problem(name, error))
            if not missing:
                image, mask = paths
                yield Sample(name, image, mask, {"split": row.get("split", "")})

    def _resolved(self, text: str, where: str) -> Path:
        """A path of the table: within its folder or the root, unless it is absolute."""
        assert self.pairs is not None
        if not text:
            raise UserError(f"{where}: a path is empty")
        if os.path.isabs(text):
            return Path(text)
        bases = (self.pairs.parent, self.root)
        inside = [
            base / text
            for base in bases
            if os.path.abspath(base / text).startswith(os.path.abspath(base) + os.sep)
        ]
        if not inside:
            raise UserError(f"{where}: {text} leaves its folder: give a path within it")
        return next((path for path in inside if path.is_file()), inside[0])

    def _by_files(self, listed: Samples, problems: list[Problem]) -> Splits:
        if self.pairs and self.files is None:
            words = list(listed.attribute("split"))
            if wrong := sorted(set(words) - {*STAGES, ""}):
                raise UserError(
                    f"{self.pairs}: the column split has {', '.join(wrong)}: use train, val, test"
                )
            rows = {s: [i for i, word in enumerate(words) if word == s] for s in STAGES}
        else:
            rows = self._by_lists(listed, problems)
        if left := len(listed) - len(set().union(*rows.values())):
            log.info("%d images are in no split and are left out", left)
        stages = {stage: listed.select(rows[stage]) for stage in STAGES}
        no_test = not rows["test"]
        test = stages["val"] if no_test else stages["test"]
        return Splits(
            train=stages["train"],
            val=stages["val"],
            test=test,
            val_is_test=no_test,
            problems=problems,
        )

    def _by_lists(self, listed: Samples, problems: list[Problem]) -> dict[str, list[int]]:
        given = dict(self.files or {stage: str(self.root / f"{stage}.txt") for stage in STAGES})
        by_name: dict[str, int] = {}
        for row, sample in enumerate(listed):
            for word in (sample.name, sample.image.stem, sample.image.name):
                by_name.setdefault(word, row)
        rows: dict[str, list[int]] = {stage: [] for stage in STAGES}
        taken: dict[int, str] = {}
        unusable = {problem.name for problem in problems}
        for stage, file in given.items():
            path = Path(file).expanduser()
            if stage not in STAGES:
                raise UserError(f"data.files names {stage}: use train, val and test")
            if not path.is_file():
                if stage == "test":
                    continue
                raise UserError(f"{path} is missing: data.split=files wants a list for {stage}")
            for number, line in enumerate(
                path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1
            ):
                word = line.strip()
                if not word or word.startswith("#"):
                    continue
                found = by_name.get(word, by_name.get(os.path.basename(word)))
                if found is None:
                    if sample_name(word) not in unusable:
                        error = FileError(
                            path, f"line {number} names {word}, which isn't there", "remove it"
                        )
                        problems.append(Problem(sample_name(word), error))
                    continue
                if found in taken:
                    raise UserError(
                        f"{path}:{number}: {word} stands in {taken[found]} already: an image "
                        "belongs to one split"
                    )
                taken[found] = path.name
                rows[stage].append(found)
        return rows


def _files(folder: Path) -> Iterator[str]:
    """The pictures in a folder and its sub-folders, in order, without hidden ones."""
    visited: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in visited:  # a link to a folder above
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.relpath(os.path.join(base, name), folder)
