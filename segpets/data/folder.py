"""The reader's own images: two folders, or a table of pairs.

ROOT/images/a.jpg         ROOT/masks/a.png        by stem, in the same sub-folder if there are any
ROOT/images/train/a.jpg   ROOT/masks/train/a.png  train/, val/ and test/ are the splits
ROOT/train/images/a.jpg   ROOT/train/masks/a.png  the same
pairs.csv                 image,mask[,split]      paths within its folder or ROOT, or absolute
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segpets.data.decode import load, lossy_compression, open_image
from segpets.data.deep import mask_of_array
from segpets.data.filenames import normal
from segpets.data.folder_lists import by_column, by_lists, has_stages, of_rows
from segpets.data.folder_pairs import Join, Paired, class_of, locate, paired
from segpets.data.holdout import in_three
from segpets.data.listed import located, table_rows
from segpets.data.mask_names import STEM, check_pattern
from segpets.data.mask_pixels import marked
from segpets.data.mask_values import Meaning
from segpets.data.pages import each_page, open_page, pages_of
from segpets.data.picture import Exif, Pages
from segpets.data.reader import as_stored, orientation
from segpets.data.source import STAGES, Mask, Problem, Sample, Splits, sample_name
from segpets.data.stages import by_folders, named_stages, path_within, warned, with_groups
from segpets.errors import FileError, UserError
from segpets.labels import IGNORE_INDEX, is_background
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
            the same sub-folder; failing that, in those that hold no masks of images of their own,
            where it must be the only one.
        values: What the values of masks mean; see `Meaning`.
        threshold: Values above it are the second of two classes; see `Meaning`.
        ignore_value: A value that is ignored, or several.
        bands: Where each band of an image has a file of its own: the folder of each band within
            `images`, or a pattern such as `{stem}_B02`, in the order of the channels.
        masks_per_image: What becomes of several masks of one image, as of `a_mask` and `a_mask_1`:
            their `union`, later ones above; or `by_name`, where what isn't 0 is of the class that
            the mask's name ends in, later classes above. None refuses them.
        pages: `each` takes each page of a file for an image; see `Reader`.
        exif: `ignore` leaves masks as they are stored, as their images are.
        group: A regular expression that names what no split may part, as patients or scenes: it is
            searched in an image's path within the folder, without suffix.
        split: `holdout` makes 80/10/10 by the seed. `folders` follows folders named train, val or
            test. `files` follows `files`, or the table's column split: what stands in none is left
            out, and without a test, val serves as test. None takes what there is: a column that
            names train and val, or such folders; else `holdout`.
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
        bands: Sequence[str] | None = None,
        masks_per_image: Join | None = None,
        pages: Pages | None = None,
        exif: Exif = "auto",
        group: str | None = None,
        values: Any = None,
        threshold: int | float | None = None,
        ignore_value: int | str | Sequence[int | str] | None = None,
        split: Literal["holdout", "folders", "files"] | None = None,
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
        if pairs:
            _check_table(images or masks or mask_pattern != STEM, bands or masks_per_image)
        check_pattern(mask_pattern)
        mask_pattern = normal(mask_pattern)
        home = Path(pairs or images or "").expanduser().parent if pairs or images else Path()
        self.root = Path(root).expanduser() if root else home
        self.images = self._place(images) if images else self.root / "images"
        self.masks = self._place(masks) if masks else self.root / "masks"
        self.pairs = self._place(pairs) if pairs else None
        self.mask_pattern, self.bands, self.join = mask_pattern, bands, masks_per_image
        self.named = bool(images or masks)
        self.pages, self.group = pages, group
        self.split, self.files, self.seed = split, files, seed
        self.meaning = Meaning(
            classes=classes, values=values, threshold=threshold, ignore_value=ignore_value
        )
        names = [is_background(name) for name in self.meaning.classes]
        if masks_per_image and names.count(True) != 1:
            raise UserError(
                f"data.masks_per_image={masks_per_image} needs one of data.classes to be called "
                "background, which is where no mask marks anything"
            )
        self._background = names.index(True) if masks_per_image else 0
        self.exif = exif
        named = ", ".join(self.meaning.classes)  # whose order decides what lies above
        joined = f", several masks by {masks_per_image} of {named}" if masks_per_image else ""
        self.rules = self.meaning.rules + joined
        self._said: dict[str, object] = {}

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        found = self._listed()
        samples, problems = found.samples, found.problems
        place = self.pairs or self.images
        if not samples:
            first = f". The first problem: {problems[0].error}" if problems else ": add some"
            raise UserError(f"{place} has no image with a mask{first}")
        jpegs = sum(sample.mask.suffix.lower() in (".jpg", ".jpeg") for sample in samples)
        if jpegs and self.meaning.threshold is not None:
            self._warn_of_noise(f"{jpegs} of {len(samples)} masks are stored as lossy JPEG")
        samples = with_groups(samples, found.paths, self.group)
        each = self.pages == "each"
        if each and self.split != "files":
            samples = each_page(samples, found.paths, problems)
        if self.split is None and self.pairs:
            self.split = "files" if has_stages(samples, self.pairs) else "holdout"
        if self.split is None:
            self.split = "folders" if named_stages(list(found.paths.values())) else "holdout"
        self.splits_by_names = self.split != "files"
        if self.split == "files":
            chosen = self._by_files(samples, problems)
            return warned(pages_of(chosen, found.paths, problems) if each else chosen)
        if self.split == "folders":
            if not named_stages(list(found.paths.values())):
                raise UserError(
                    f"data.split=folders, but {place} has no folders train/ and val/ or test/: use "
                    "data.split=holdout, or data.split=files"
                )
            return warned(
                by_folders(samples, found.paths, place=place, seed=self.seed, problems=problems)
            )
        train, val, test = in_three(samples, seed=self.seed, place=place, problems=problems)
        return Splits(train=train, val=val, test=test, problems=problems)

    def mask(self, sample: Sample) -> Mask:
        """Reads a mask as class ids; see `Source.mask`."""
        if self.join == "by_name":
            return self._by_name(sample)
        ids = self._ids(sample.mask, sample.page)
        for file in sample.masks:
            more = self._ids(file, sample.page)
            self._check_size(file, more, sample.mask, ids)
            # What is background, or ignored, hides nothing.
            ids = np.where((more == self._background) | (more == IGNORE_INDEX), ids, more)
        return ids

    def _by_name(self, sample: Sample) -> Mask:
        known = {name.casefold(): index for index, name in enumerate(self.meaning.classes)}
        layers: list[tuple[int, Path]] = []
        for file in (sample.mask, *sample.masks):
            name = class_of(file, set(known))
            assert name is not None  # or it had been refused
            layers.append((known[name], file))
        ids: Mask | None = None
        for index, file in sorted(layers):
            held = marked(self._decoded(file, sample.page), above=self.meaning.threshold or 0)
            ids = np.full(held.shape, self._background, dtype=np.uint8) if ids is None else ids
            self._check_size(file, held, sample.mask, ids)
            ids[held] = index
        assert ids is not None
        return ids

    def _check_size(self, file: Path, ids: NDArray[Any], first: Path, others: Mask) -> None:
        if ids.shape != others.shape:
            raise FileError(
                file,
                f"has {ids.shape[1]}x{ids.shape[0]} pixels, but {first}, of the same image, has "
                f"{others.shape[1]}x{others.shape[0]}",
                "give it the size of its image",
            )

    def _ids(self, file: Path, page: int | None) -> Mask:
        image = self._decoded(file, page)
        if (kind := image.info.get("segpets lossy")) is not None:
            image = image.convert("L")
            self._warn_of_noise(f"Masks such as {file} are stored as lossy {kind}")
        return self.meaning.ids(image, file)

    def _decoded(self, file: Path, page: int | None) -> Image.Image:
        if file.suffix.lower() == ".npy":
            return mask_of_array(file)
        with open_image(file) as opened:
            open_page(opened, file, page)
            turn = orientation(opened) if opened.format == "TIFF" else 1
            kind, image = lossy_compression(opened, file), load(opened, file)
            if self.exif == "ignore":
                image = as_stored(image, turn)
            if kind is None:
                return image
            if self.meaning.threshold is None:
                photo = "" if image.mode == "L" else "; if it is a photograph, correct data.masks"
                raise FileError(
                    file,
                    f"is a mask stored as lossy {kind}, which invents values",
                    "store it as PNG; where it has two classes, dark and bright, data.threshold="
                    f"127 reads it as it is{photo}",
                )
            image.info["segpets lossy"] = kind
            return image

    def _listed(self) -> Paired:
        if self.pairs:
            found = Paired()
            found.samples = list(self._from_table(found.problems))
            found.paths = {s.name: path_within(s, self.root) for s in found.samples}
            return found
        folders = locate(self.root, self.images, self.masks, named=self.named)
        self.images, self.masks = folders.images, folders.masks
        return paired(
            folders,
            self.mask_pattern,
            join=self.join,
            bands=self.bands,
            classes=self.meaning.classes,
        )

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
            absent = [file for file in (image, mask) if not os.path.isfile(file)]
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
        bases = [self.root, self.pairs.parent if self.pairs else self.images]
        if self.pairs and self.files is None:
            rows = by_column(samples, self.pairs)
        else:
            lists = self.files or {stage: self.root / f"{stage}.txt" for stage in STAGES}
            rows = by_lists(
                {stage: self._place(file) for stage, file in lists.items()},
                samples,
                bases,
                problems,
                optional_test=self.files is None,
            )
        return of_rows(rows, samples, place=self.pairs or self.images, problems=problems)


def _check_table(named: object, joined: object) -> None:
    """Refuses what names files in another way beside a table.

    Raises:
        UserError: There is such.
    """
    if named:
        raise UserError(
            "data.pairs says which mask belongs to which image: leave out data.images, "
            "data.masks and data.mask_pattern"
        )
    if joined:
        raise UserError(
            "data.pairs names one image and one mask a line, so it can't be with data.bands or "
            "data.masks_per_image: give data.images and data.masks instead"
        )
