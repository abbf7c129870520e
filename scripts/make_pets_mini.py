"""Chooses the images of `data=pets_mini` from a copy of the data set at 128x128 pixels.

    python scripts/make_pets_mini.py FOLDER segpets/data/pets_mini

FOLDER has the official layout. Of each of the 37 breeds, 20 images of the official trainval part
and 8 of the official test part are drawn with a fixed seed; images whose trimap has no pet are
left out. Files are copied byte for byte.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SEED = 20120616
COUNTS = {"trainval": 20, "test": 8}
PET = 1


def has_pet(root: Path, name: str) -> bool:
    """Whether the trimap of an image has a pixel of the pet."""
    with Image.open(root / "annotations" / "trimaps" / f"{name}.png") as trimap:
        return PET in np.asarray(trimap)


def choose(root: Path, part: str) -> list[str]:
    """Draws the lines of a split file that are kept, in the file's order."""
    lines = (root / "annotations" / f"{part}.txt").read_text(encoding="utf-8").splitlines()
    breeds: dict[str, list[str]] = {}
    for line in lines:
        breeds.setdefault(line.split()[0].rpartition("_")[0], []).append(line)
    kept: set[str] = set()
    for index, breed in enumerate(sorted(breeds)):
        good = [line for line in sorted(breeds[breed]) if has_pet(root, line.split()[0])]
        if len(good) < COUNTS[part]:
            raise SystemExit(f"{breed} has {len(good)} images with a pet in {part}: too few")
        order = np.random.default_rng([SEED, COUNTS[part], index]).permutation(len(good))
        kept.update(good[i] for i in order[: COUNTS[part]])
    return [line for line in lines if line in kept]


def main() -> None:
    """Copies the chosen images, trimaps and split lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    for folder in ("images", "annotations/trimaps"):
        (args.target / folder).mkdir(parents=True, exist_ok=True)
    for part in COUNTS:
        lines = choose(args.source, part)
        (args.target / "annotations" / f"{part}.txt").write_text("\n".join(lines) + "\n")
        for name in (line.split()[0] for line in lines):
            for file in (f"images/{name}.jpg", f"annotations/trimaps/{name}.png"):
                shutil.copyfile(args.source / file, args.target / file)
        print(f"{part}: {len(lines)} images")


if __name__ == "__main__":
    main()
