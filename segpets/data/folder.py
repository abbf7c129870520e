"""The reader's own images: two folders, or a table of pairs.

ROOT/images/a.jpg    ROOT/masks/a.png    by stem, in the same sub-folder if there are any
pairs.csv            image,mask[,split]  paths within the table's folder or ROOT, or absolute
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from segpets.data.decode import load, lossy_compression, open_image
from segpets.data.filenames import Names, inventory, normal, pictures, stem_of
from segpets.data.listed import AMBIGUOUS, listed_names, located, rows_by_name, table_rows
from segpets.data.mask_names import (
    STEM,
    check_pattern,
    guessed_pattern,
    mask_stem,
    several,
    strays_of,
)
from segpets.data.mask_values import Meaning
from segpets.data.source import (
    STAGES,
    Mask,
    Problem,
    Sample,
    Splits,
    in_three,
    sample_name,
)
from segpets.errors import FileError, UserError
from segpets.settings import Natural, checked

log = logging.getLogger(__name__)


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
        threshold: Values above it are the second of two classes; see `Meaning`.
        ignore_value: A value that is ignored, or several.
        split: `holdout` makes 80/10/10 by the seed. `files` follows `files`, or the table's column
            split: what stands in none is left out, and without a test, val serves as test.
        files: The lists of train, val and test, an image a line; None: train.txt, val.txt and
            test.txt in the root.
        seed: Chooses the images that `holdout` holds out.

    Raises:
        UserError: The arguments contradict each other.
    """

    @checked("data")
    def __init__(
        self,
        *,
        classes: Any,
        root: str | Path | None = None,
        images: str | Path | None = None,
        masks: str | Path | None = None,
        pairs: str | Path | None = None,
        mask_pattern: str = STEM,
        values: Any = None,
        threshold: int | float | None = None,
        ignore_value: int | str | Sequence[int | str] | None = None,
        split: Literal["holdout", "files"] = "holdout",
        files: Any = None,
        seed: Natural = 0,
    ) -> None:
        if files is not None and split != "files":
            raise UserError("data.files lists the splits: say data.split=files, too")
        if files is not None and not (
            isinstance(files, Mapping) and {"train", "val"} <= set(files) <= set(STAGES)
        ):
            raise UserError(
                f"data.files={files} must name a list for train and for val, and may name one for "
                "test: 'data.files={train: FILE, val: FILE}'"
            )
        if pairs and (images or masks or mask_pattern != STEM):
            raise UserError(
                "data.pairs says which mask belongs to which image: leave out data.images, "
                "data.masks and data.mask_pattern"
            )
        check_pattern(mask_pattern)
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
        samples = list(listed(problems))
        place = self.pairs or self.images
        if not samples:
            first = f". The first problem: {problems[0].error}" if problems else ": add some"
            raise UserError(f"{place} has no image with a mask{first}")
        jpegs = sum(sample.mask.suffix.lower() in (".jpg", ".jpeg") for sample in samples)
        if jpegs and self.meaning.threshold is not None:
            self._warn_of_noise(f"{jpegs} of {len(samples)} masks are stored as lossy JPEG")
        if self.split == "files":
            return self._by_files(samples, problems)
        train, val, test = in_three(samples, seed=self.seed, place=place, problems=problems)
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
        strays = strays_of(images, masks, self.mask_pattern)
        rivals = defaultdict(list)
        for stem, candidates in strays.items():
            rivals[tuple(candidates)].append(stem)
        for stem in images:
            wanted = mask_stem(stem, self.mask_pattern)
            candidates = strays.get(stem, [wanted])
            mine = [self.masks / file for mask in candidates for file in masks.claim(mask)]
            claims = rivals.get(tuple(candidates), [stem])
            ours = [self.images / file for claim in claims for file in images[claim]]
            if not mine:
                missing = f"has no mask {self.masks / wanted}.*"
                error = FileError(ours[0], missing, "add it, or exclude the image by data.exclude")
            elif len(mine) > 1 or len(ours) > 1:
                error = several(*(mine if len(mine) > 1 else ours)[:2])
            else:
                yield Sample(sample_name(stem), ours[0], mine[0])
                continue
            problems.append(Problem(sample_name(stem), error))
        if not masks.claimed:
            self._refuse(images, masks)
        for stem in sorted(masks.keys() - masks.claimed):
            orphan = self.masks / masks[stem][0]
            error = FileError(
                orphan, "is a mask without an image", "add it, or exclude the mask by data.exclude"
            )
            problems.append(Problem(sample_name(stem), error))

    def _names(self) -> tuple[Names, Names]:
        if not self.images.samefile(self.masks):
            images = pictures(self.images, key="images", without=self.masks)
            return images, pictures(self.masks, key="masks", without=self.images)
        if self.mask_pattern == STEM:
            raise UserError(
                f"data.images and data.masks are the same folder, {self.images}: say which of its "
                "files are masks, as in 'data.mask_pattern=\"{stem}_mask\"'"
            )
        both = pictures(self.images, key="images")
        wanted = {mask_stem(stem, self.mask_pattern) for stem in both}
        masks = Names(file for file in both.files() if stem_of(file) in wanted)
        if not masks:
            raise UserError(
                f"no file in {self.images} is named {self.mask_pattern} after another, such as "
                f"{next(iter(both.values()))[0]}: correct data.mask_pattern"
            )
        return Names(file for file in both.files() if stem_of(file) not in wanted), masks

    def _refuse(self, images: Names, masks: Names) -> None:
        """Reports that no name fits, and which pattern would."""
        guess = guessed_pattern(images, masks)
        remedy = f"data.mask_pattern={guess}" if guess else "data.mask_pattern, or data.pairs"
        image, mask = (next(iter(names.values()))[0] for names in (images, masks))
        raise UserError(
            f"{self.images} holds {len(images)} images, such as {image}, and {self.masks} holds "
            f"{len(masks)} masks, such as {mask}, but no mask is named {self.mask_pattern} after "
            f"its image: say how they are named by {remedy}"
        )

    def _from_table(self, problems: list[Problem]) -> Iterator[Sample]:
        assert self.pairs is not None
        lines: dict[str, int] = {}
        names: set[str] = set()
        for line, row in table_rows(
            self.pairs, with_split=self.split == "files" and not self.files
        ):
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
        assert self.pairs is not None
        if not text or "\0" in text:
            raise FileError(
                self.pairs, f"has no {column} in line {line}", "write its path, or remove the line"
            )
        if (path := located(text, (self.pairs.parent, self.root))) is None:
            raise FileError(
                self.pairs,
                f"names {text} in line {line}, which lies outside of its folder and of data.root",
                "give its absolute path, or move it",
            )
        return path

    def _by_files(self, samples: Sequence[Sample], problems: list[Problem]) -> Splits:
        if self.pairs and self.files is None:
            rows: dict[str, list[int]] = {stage: [] for stage in STAGES}
            for row, word in enumerate(sample.attributes["split"] for sample in samples):
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
        stages = {stage: [samples[row] for row in rows[stage]] for stage in STAGES}
        return Splits(
            train=stages["train"],
            val=stages["val"],
            test=stages["test"] or stages["val"],
            val_is_test=not rows["test"],
            problems=problems,
            unused=unused,
        )

    def _by_lists(self, samples: Sequence[Sample], problems: list[Problem]) -> dict[str, list[int]]:
        lists = self.files or {stage: self.root / f"{stage}.txt" for stage in STAGES}
        bases = [self.root, self.pairs.parent if self.pairs else self.images]
        by_path, by_name = rows_by_name(samples, bases)
        known = {problem.name for problem in problems}
        rows: dict[str, list[int]] = {stage: [] for stage in STAGES}
        taken: dict[int, str] = {}
        twice: set[int] = set()
        for stage in filter(lists.__contains__, STAGES):
            path = self._place(lists[stage])
            if stage == "test" and self.files is None and not path.exists():
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
