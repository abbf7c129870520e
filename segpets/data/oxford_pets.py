"""The Oxford-IIIT Pet Dataset in its official layout.

O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and Dogs", CVPR 2012. 37 breeds, about
200 images each, with a trimap: 1 = pet, 2 = background, 3 = border. Licence CC BY-SA 4.0.

    images/<Breed>_<n>.jpg
    annotations/trimaps/<Breed>_<n>.png
    annotations/{trainval,test}.txt      name, class id 1..37, species 1 cat / 2 dog, breed id
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from segpets.data.source import Mask, Sample, Splits, holdout
from segpets.errors import UserError
from segpets.labels import IGNORE_INDEX

SPECIES: Final = {"1": "cat", "2": "dog"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class OxfordPets:
    """Reads names, breeds and splits; trimap values 1, 2, 3 become class ids 0, 1, 2.

    Args:
        root: The folder with `images/` and `annotations/`.
        split: `holdout` splits the official trainval images 90/10 by breed into train and val,
            and tests on the official test images. `article` trains on all of trainval and
            validates on the test images with the training augmentation, as the article series
            does; so nothing may be chosen by its val metrics.
        seed: Chooses the images that `holdout` holds out.
    """

    def __init__(self, *, root: str | Path, split: str = "holdout", seed: int = 0) -> None:
        if split not in ("holdout", "article"):
            raise UserError(f"data.split={split} is unknown: choose holdout or article")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise UserError(f"data.seed={seed} must be a whole number of at least 0")
        self.root = Path(os.path.expanduser(root))
        self.split = split
        self.seed = seed

    def splits(self) -> Splits:
        """Lists the samples of each stage; see `Source.splits`."""
        if not self.root.is_dir():
            raise UserError(
                f"data.root={self.root} is not a folder: give the folder that holds images/ and "
                "annotations/ of the Oxford-IIIT Pet data set, or use data=pets_mini, which needs "
                "no files"
            )
        trainval, test = self._listed("trainval"), self._listed("test")
        if twice := {s.name for s in trainval} & {s.name for s in test}:
            raise UserError(
                f"{self.root / 'annotations'}: {len(twice)} images stand in trainval.txt and in "
                f"test.txt, for example {min(twice)}: remove them from one"
            )
        if self.split == "article":
            return Splits(train=trainval, val=test, test=test, augment_val=True, val_is_test=True)
        train, val = holdout(trainval, fraction=0.1, by="breed", seed=self.seed)
        return Splits(train=train, val=val, test=test)

    @property
    def mask_ids(self) -> Callable[[Mask, Path], Mask]:
        """Maps trimap values to class ids; see `Source.mask_ids`."""
        return trimap_ids

    def _listed(self, part: str) -> list[Sample]:
        listing = self.root / "annotations" / f"{part}.txt"
        if not listing.is_file():
            raise UserError(
                f"{listing} is missing: data.root={self.root} must hold images/ and annotations/ "
                "of the Oxford-IIIT Pet data set"
            )
        # Editors on Windows put a mark before UTF-8; what is no UTF-8 fails as a name, by its line.
        text = listing.read_text(encoding="utf-8-sig", errors="replace")
        samples = [
            self._sample(line.split(), where=f"{listing}:{number}")
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not samples:
            raise UserError(f"{listing} lists no images: the split would be empty")
        names = [sample.name for sample in samples]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{listing} lists {twice} more than once: remove the repeated lines")
        self._require("images", [sample.image for sample in samples], listing)
        self._require("trimaps", [sample.mask for sample in samples], listing)
        return samples

    def _sample(self, words: list[str], *, where: str) -> Sample:
        if len(words) != 4 or words[2] not in SPECIES or not _NAME.fullmatch(words[0]):
            raise UserError(
                f"{where}: expected a name, a class id, a species (1 cat, 2 dog) and a breed id, "
                f"found {' '.join(words)!r}"
            )
        name = words[0]
        return Sample(
            name=name,
            image=self.root / "images" / f"{name}.jpg",
            mask=self.root / "annotations" / "trimaps" / f"{name}.png",
            attributes={"breed": name.rpartition("_")[0] or name, "species": SPECIES[words[2]]},
        )

    def _require(self, kind: str, paths: list[Path], listing: Path) -> None:
        folder = paths[0].parent
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        missing = [path for path in paths if path.name not in there]
        if missing:
            near = {name.lower(): name for name in there}.get(missing[0].name.lower())
            hint = f" (but there is {near}: rename it)" if near else ""
            raise UserError(
                f"{len(missing)} of the {len(paths)} {kind} that {listing} lists are missing, for "
                f"example {missing[0]}{hint}: restore them, or remove their lines"
            )


_TRIMAP_IDS = np.full(256, 254, dtype=np.uint8)
_TRIMAP_IDS[1:4] = (0, 1, 2)
assert IGNORE_INDEX not in _TRIMAP_IDS


def trimap_ids(trimap: Mask, path: Path) -> Mask:
    """Turns trimap values (1 pet, 2 background, 3 border) into class ids 0, 1, 2.

    Raises:
        UserError: Another value occurs.
    """
    ids: Mask = _TRIMAP_IDS[trimap]
    if ids.max() > 2:
        wrong = sorted(set(np.unique(trimap).tolist()) - {1, 2, 3})
        raise UserError(
            f"{path} has the values {wrong}, but a trimap has 1 (pet), 2 (background) and "
            "3 (border) only: replace the file, or remove its line from the split"
        )
    return ids
