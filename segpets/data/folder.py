"""The reader's own images: two folders, or a table of pairs.

ROOT/images/a.jpg    ROOT/masks/a.png    by stem, in the same sub-folder if there are any
pairs.csv            image,mask[,split]  paths within the table's folder or ROOT, or absolute
"""

import csv
import io
import itertools
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segpets.data.decode import load, open_image
from segpets.data.listing import (
    SUFFIXES,
    Names,
    inventory,
    normal,
    pictures,
    read_text,
    stem_of,
)
from segpets.data.meaning import Meaning, lossy_compression
from segpets.data.source import (
    STAGES,
    Mask,
    Problem,
    Sample,
    Samples,
    Splits,
    check_seed,
    holdout,
    sample_name,
)
from segpets.errors import FileError, UserError

log = logging.getLogger(__name__)

_STEM = "{stem}"
_AMBIGUOUS = -1


class Folder:
    """Pairs images with masks by their names, and turns what masks hold into class ids.

    Hidden files are left alone; links to folders are followed, but not in circles.

    Args:
        classes: The classes' names, in the order of their ids.
        root: The folder with `images/` and `masks/`; None: that of `pairs` or of `images`, or
            the current one.
        images: Another folder of images: from here, or from the root.
        masks: Another folder of masks.
        pairs: A CSV with the columns image and mask, and perhaps split, in place of folders.
        mask_pattern: The stem of a mask, made of the `{stem}` of its image. It is looked for in
            the same sub-folder; failing that, in all of them, where it must be the only one.
        values: What the values of masks mean; see `Meaning`.
        threshold: What is above it is the second of two classes; see `Meaning`.
        ignore_value: A value that is ignored, or several.
        split: `holdout` makes 80/10/10 by the seed. `files` follows `files`, or the table's column
            split: what stands in none is left out, and without a test, val serves as test.
        files: The lists of train, val and test, an image a line; None: train.txt, val.txt and
            test.txt in the root.
        seed: Chooses the images that `holdout` holds out.

    Raises:
        UserError: The arguments contradict each other.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        root: str | Path | None = None,
        images: str | Path | None = None,
        masks: str | Path | None = None,
        pairs: str | Path | None = None,
        mask_pattern: str = _STEM,
        values: Mapping[Any, str | None] | None = None,
        threshold: float | None = None,
        ignore_value: int | str | Sequence[int | str] | None = None,
        split: str = "holdout",
        files: Mapping[str, str | Path] | None = None,
        seed: int = 0,
    ) -> None:
        if split not in ("holdout", "files"):
            raise UserError(f"data.split={split} is unknown: choose holdout or files")
        check_seed(seed)
        if files is not None and split != "files":
            raise UserError("data.files lists the splits: say data.split=files, too")
        if files is not None and not (
            isinstance(files, Mapping) and {"train", "val"} <= set(files) <= set(STAGES)
        ):
            raise UserError(
                f"data.files={files} must name a list for train and for val, and may name one for "
                "test: 'data.files={train: FILE, val: FILE}'"
            )
        if pairs and (images or masks or mask_pattern != _STEM):
            raise UserError(
                "data.pairs says which mask belongs to which image: leave out data.images, "
                "data.masks and data.mask_pattern"
            )
        _check_pattern(mask_pattern)
        mask_pattern = normal(mask_pattern)
        home = Path(pairs or images or "").expanduser().parent if pairs or images else Path()
        self.root = Path(root).expanduser() if root else home
        self.images = self._place(images) if images else self.root / "images"
        self.masks = self._place(masks) if masks else self.root / "masks"
        self.pairs = self._place(pairs) if pairs else None
        self.mask_pattern = mask_pattern
        self.split, self.files, self.seed = split, files, seed
        self.meaning = Meaning(
            classes=classes, values=values, threshold=threshold, ignore_value=ignore_value
        )
        self.rules = self.meaning.rules
        self._said: dict[str, object] = {}

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        problems: list[Problem] = []
        listed = self._from_table if self.pairs else self._from_folders
        samples = Samples(listed(problems))
        place = self.pairs or self.images
        if not samples:
            first = f". The first problem: {problems[0].error}" if problems else ": add some"
            raise UserError(f"{place} has no image with a mask{first}")
        jpegs = sum(sample.mask.suffix.lower() in (".jpg", ".jpeg") for sample in samples)
        if jpegs and self.meaning.threshold is not None:
            self._warn_of_noise(f"{jpegs} of {len(samples)} masks are stored as lossy JPEG")
        if self.split == "files":
            return self._by_files(samples, problems)
        if len(samples) < len(STAGES):
            more = f". {len(problems)} can't be used: {problems[0].error}" if problems else ""
            raise UserError(
                f"{place} has {len(samples)} images with masks, but train, val and test need at "
                f"least one each: add images{more}"
            )
        rest, test = holdout(samples, fraction=1 / 10, by=None, seed=self.seed)
        train, val = holdout(rest, fraction=1 / 9, by=None, seed=self.seed)
        return Splits(train=train, val=val, test=test, problems=problems)

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        file = sample.mask
        with open_image(file) as opened:
            kind, image = lossy_compression(opened, file), load(opened, file)
            if kind is None:
                return self.meaning.ids(image, file)
            if self.meaning.threshold is None:
                photo = "" if image.mode == "L" else "; if it is a photograph, correct data.masks"
                raise FileError(
                    file,
                    f"is a mask stored as lossy {kind}, which invents values",
                    "store it as PNG; where it has two classes, dark and bright, data.threshold="
                    f"127 reads it as it is{photo}",
                )
            self._warn_of_noise(f"Masks such as {file} are stored as lossy {kind}")
            return self.meaning.ids(image.convert("L"), file)

    def _place(self, path: str | Path) -> Path:
        """A path as the user gave it: from here, or from the root."""
        here = Path(path).expanduser()
        return here if here.exists() or not (self.root / here).exists() else self.root / here

    def _warn_of_noise(self, what: str) -> None:
        mine = object()
        if self._said.setdefault("noise", mine) is not mine:  # masks are read by several threads
            return
        threshold = self.meaning.threshold
        advice = ""
        if threshold is not None and not 32 <= threshold <= 223:
            advice = ", which takes noise for a class: for masks of 0 and 255 say 127"
        log.warning("%s, and read by data.threshold=%s%s", what, threshold, advice)

    def _from_folders(self, problems: list[Problem]) -> Iterator[Sample]:
        for key, place in (("images", self.images), ("masks", self.masks)):
            if not place.is_dir():
                raise UserError(
                    f"data.{key}: {place} is not a folder. data.root={self.root} "
                    f"{inventory(self.root)}, but must hold images/ and masks/. Or give "
                    "data.images=DIR data.masks=DIR, or data.pairs=FILE.csv"
                )
        images, masks = self._names()
        strays = _strays(images, masks, self.mask_pattern)
        rivals = defaultdict(list)
        for stem, found in strays.items():
            rivals[tuple(found)].append(stem)
        for stem in images:
            wanted = _mask_stem(stem, self.mask_pattern)
            found = strays.get(stem, [wanted])
            mine = [self.masks / file for mask in found for file in masks.claim(mask)]
            claims = rivals.get(tuple(found), [stem])
            ours = [self.images / file for claim in claims for file in images[claim].split("\0")]
            if not mine:
                missing = f"has no mask {self.masks / wanted}.*"
                error = FileError(ours[0], missing, "add it, or exclude the image by data.exclude")
            elif len(mine) > 1 or len(ours) > 1:
                error = _several(*(mine if len(mine) > 1 else ours)[:2])
            else:
                yield Sample(sample_name(stem), ours[0], mine[0])
                continue
            problems.append(Problem(sample_name(stem), error))
        if not masks.claimed.any():
            self._refuse(images, masks)
        for stem in masks.unclaimed():
            orphan = self.masks / masks[stem].split("\0")[0]
            error = FileError(
                orphan, "is a mask without an image", "add it, or exclude the mask by data.exclude"
            )
            problems.append(Problem(sample_name(stem), error))

    def _names(self) -> tuple[Names, Names]:
        """Images and masks, which may lie in one folder if a pattern tells them apart."""
        if not self.images.samefile(self.masks):
            images = pictures(self.images, key="images", without=self.masks)
            return images, pictures(self.masks, key="masks", without=self.images)
        if self.mask_pattern == _STEM:
            raise UserError(
                f"data.images and data.masks are the same folder, {self.images}: say which of its "
                "files are masks, as in 'data.mask_pattern=\"{stem}_mask\"'"
            )
        both = pictures(self.images, key="images")
        wanted = {_mask_stem(stem, self.mask_pattern) for stem in both}
        masks = Names(file for file in both.files() if stem_of(file) in wanted)
        if not masks:
            raise UserError(
                f"no file in {self.images} is named {self.mask_pattern} after another, such as "
                f"{next(iter(both.values()))}: correct data.mask_pattern"
            )
        return Names(file for file in both.files() if stem_of(file) not in wanted), masks

    def _refuse(self, images: Names, masks: Names) -> None:
        """Says that no name fits, and which pattern would."""
        guess = _guessed_pattern(images, masks)
        remedy = f"data.mask_pattern={guess}" if guess else "data.mask_pattern, or data.pairs"
        raise UserError(
            f"{self.images} holds {len(images)} images, such as {next(iter(images.values()))}, and "
            f"{self.masks} holds {len(masks)} masks, such as {next(iter(masks.values()))}, but no "
            f"mask is named {self.mask_pattern} after its image: say how they are named by {remedy}"
        )

    def _from_table(self, problems: list[Problem]) -> Iterator[Sample]:
        assert self.pairs is not None
        lines: dict[str, int] = {}
        names: set[str] = set()
        for line, row in _rows(self.pairs, with_split=self.split == "files" and not self.files):
            name = sample_name(os.path.splitext(row["image"])[0])
            if name in names:
                name = sample_name(row["image"])
            try:
                image, mask = (self._resolved(row[key], key, line) for key in ("image", "mask"))
                if (first := lines.setdefault(str(image), line)) != line:
                    raise FileError(
                        self.pairs,
                        f"names {row['image']} in the lines {first} and {line}",
                        "remove one of them",
                    )
            except FileError as refused:
                problems.append(Problem(name, refused))
                continue
            names.add(name)
            absent = [file for file in (image, mask) if not file.is_file()]
            for file in absent:
                error = FileError(
                    file,
                    f"is missing, though line {line} of {self.pairs} names it",
                    "restore it, or remove the line",
                )
                problems.append(Problem(name, error))
            if not absent:
                yield Sample(name, image, mask, {"split": row.get("split", "").lower()})

    def _resolved(self, text: str, column: str, line: int) -> Path:
        """A path of the table: absolute, or within the table's folder or the root."""
        assert self.pairs is not None
        if not text or "\0" in text:
            raise FileError(
                self.pairs, f"has no {column} in line {line}", "write its path, or remove the line"
            )
        if os.path.isabs(text):
            return Path(text)
        inside = []
        for spelled in dict.fromkeys((text, text.replace("\\", "/"))):  # as Windows writes it
            for base in map(os.path.abspath, (self.pairs.parent, self.root)):
                path = os.path.abspath(os.path.join(base, spelled))
                if os.path.commonpath([path, base]) == base:
                    inside.append(Path(path))
        if not inside:
            raise FileError(
                self.pairs,
                f"names {text} in line {line}, which lies outside of its folder and of data.root",
                "give its absolute path, or move it",
            )
        return next((path for path in inside if path.is_file()), inside[0])

    def _by_files(self, samples: Samples, problems: list[Problem]) -> Splits:
        if self.pairs and self.files is None:
            rows: dict[str, list[int]] = {stage: [] for stage in STAGES}
            for row, word in enumerate(samples.attribute("split")):
                if word and word not in rows:
                    raise UserError(
                        f"{self.pairs} has the split {word}: its column split may hold train, val "
                        "and test, or nothing"
                    )
                rows.get(word, []).append(row)
        else:
            rows = self._by_lists(samples, problems)
        for stage in ("train", "val"):
            if not rows[stage] and not problems:
                raise UserError(
                    f"data.split=files, but no image of {self.pairs or self.images} is listed for "
                    f"{stage}: list some, or use data.split=holdout"
                )
        named = {row for listed in rows.values() for row in listed}
        unused = [samples[row].image for row in range(len(samples)) if row not in named]
        if unused:
            log.info("%d images are in no split and are left out", len(unused))
        if not rows["test"]:
            log.warning("No image is listed for test: those of val serve as test, too")
        val = samples.select(rows["val"])
        return Splits(
            train=samples.select(rows["train"]),
            val=val,
            test=samples.select(rows["test"]) if rows["test"] else val,
            val_is_test=not rows["test"],
            problems=problems,
            unused=unused,
        )

    def _by_lists(self, samples: Samples, problems: list[Problem]) -> dict[str, list[int]]:
        lists = self.files or {stage: self.root / f"{stage}.txt" for stage in STAGES}
        bases = [self.root, self.pairs.parent if self.pairs else self.images]
        by_path, by_name = _calls(samples, bases)
        known = {problem.name for problem in problems}
        rows: dict[str, list[int]] = {stage: [] for stage in STAGES}
        taken: dict[int, str] = {}
        twice: set[int] = set()
        for stage in filter(lists.__contains__, STAGES):
            path = self._place(lists[stage])
            if stage == "test" and self.files is None and not path.exists():
                continue
            for number, word in _words(path, stage, bases):
                name = sample_name(os.path.splitext(word)[0])
                row = by_path.get(word, by_name.get(word))
                if row is not None and row != _AMBIGUOUS:
                    if row in taken:
                        error = FileError(
                            path,
                            f"names {word} in line {number}, as {taken[row]} does",
                            "remove one of the lines, as an image belongs to one split, once",
                        )
                        problems.append(Problem(samples.name(row), error))
                        twice.add(row)
                        continue
                    taken[row] = f"{path.name}:{number}"
                    rows[stage].append(row)
                elif row == _AMBIGUOUS or not {name, sample_name(word)} & known:
                    what = "isn't there" if row is None else "fits several images"
                    error = FileError(
                        path,
                        f"names {word} in line {number}, which {what}",
                        "correct the name (sub-folder/name.suffix is exact), or remove the line",
                    )
                    problems.append(Problem(name, error))
        return {stage: [row for row in rows[stage] if row not in twice] for stage in STAGES}


def _calls(samples: Samples, bases: Sequence[Path]) -> tuple[dict[str, int], dict[str, int]]:
    """The rows of samples by their paths, and by their bare names, with and without suffix."""
    by_path: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for row, sample in enumerate(samples):
        paths = set(_within(bases, os.path.abspath(sample.image)))
        for calls, names in ((by_path, paths), (by_name, {sample.image.name, sample.name})):
            for name in map(normal, names):
                for call in {name, os.path.splitext(name)[0]}:
                    calls[call] = row if calls.get(call, row) == row else _AMBIGUOUS
    return by_path, by_name


def _within(bases: Sequence[Path], path: str) -> Iterator[str]:
    """An absolute path as seen from each of the folders that it lies in."""
    for base in bases:
        top = os.path.join(os.path.abspath(base), "")
        if path.startswith(top):
            yield path[len(top) :]


def _check_pattern(pattern: object) -> None:
    text = str(pattern)
    if not isinstance(pattern, str) or _STEM not in pattern:
        raise UserError(
            f"data.mask_pattern={text} must hold {_STEM}, which stands for the image's name "
            "without its suffix: 'data.mask_pattern=\"{stem}_mask\"'"
        )
    stem, suffix = os.path.splitext(text)
    if suffix.lower() in SUFFIXES:
        raise UserError(
            f"data.mask_pattern={text} names no suffix, since any will do: "
            f"'data.mask_pattern=\"{stem}\"'"
        )


def _mask_stem(stem: str, pattern: str) -> str:
    folder, _, last = stem.rpartition("/")
    mask = pattern.replace(_STEM, last)
    return f"{folder}/{mask}" if folder else mask


def _strays(images: Names, masks: Names, pattern: str) -> dict[str, list[str]]:
    """The masks of images that have none in their own sub-folder, by name alone."""
    lone = [stem for stem in images if _mask_stem(stem, pattern) not in masks]
    if not lone:
        return {}
    taken = {_mask_stem(stem, pattern) for stem in images}
    free: dict[str, list[str]] = {}
    for stem in masks.keys() - taken:
        free.setdefault(stem.rpartition("/")[2], []).append(stem)
    wanted = {stem: _mask_stem(stem.rpartition("/")[2], pattern) for stem in lone}
    return {stem: sorted(free[mask]) for stem, mask in wanted.items() if mask in free}


def _several(first: Path, second: Path) -> FileError:
    return FileError(
        first,
        f"and {second} are partners of the same file",
        "remove or rename one, or name the pairs by data.pairs",
    )


def _guessed_pattern(images: Names, masks: Names) -> str | None:
    """The pattern that gives most of the first images a mask, as Hydra wants it quoted."""
    lasts = [stem.rpartition("/")[2] for stem in itertools.islice(images, 50)]
    there = {stem.rpartition("/")[2] for stem in masks}
    guesses = Counter(
        mask.replace(stem, _STEM, 1)
        for stem in lasts[:3]
        for mask in itertools.islice((m for m in there if stem in m), 50)
    )
    fits = {g: sum(g.replace(_STEM, stem) in there for stem in lasts) for g in guesses}
    best = max(sorted(fits), key=lambda guess: fits[guess], default=None)
    return f"'\"{best}\"'" if best and fits[best] > len(lasts) / 2 else None


def _rows(table: Path, *, with_split: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV by column, with their numbers; delimited by comma, semicolon or tab."""
    text = read_text(table, "data.pairs")
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        wanted = ["image", "mask", *(["split"] if with_split else [])]
        if missing := [name for name in wanted if name not in columns]:
            raise UserError(
                f"{table} has the columns {', '.join(columns) or '(none)'}, but not "
                f"{' and '.join(missing)}: its first line must be {','.join(wanted)}"
            )
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) > len(columns):
                raise UserError(
                    f"{table}:{reader.line_num} has {len(fields)} fields, but the first line names "
                    f"{len(columns)}: put quotes around a name that holds a {delimiter!r}"
                )
            padded = itertools.zip_longest(columns, map(str.strip, fields), fillvalue="")
            yield reader.line_num, dict(padded)
    except csv.Error as error:
        raise UserError(
            f"{table}:{reader.line_num} is no CSV ({error}): save it as CSV anew"
        ) from error


def _words(path: Path, stage: str, bases: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """The names in a list, with their lines; `#` begins a comment."""
    for number, line in enumerate(read_text(path, f"data.files.{stage}").split("\n"), start=1):
        if (word := line.strip()) and not word.startswith("#"):
            word = os.path.normpath(word.replace("\\", "/"))
            yield number, normal(next(_within(bases, word), word))
