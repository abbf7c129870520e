"""Small data sets in the official layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SPECIES = {"Abyssinian": "1", "Maine_Coon": "1", "beagle": "2"}


class PetFolder:
    """A folder of three breeds, whose images are gradients in noise with a pet in the middle.

    Args:
        root: Where to make it.
        trainval: Images a breed in trainval.txt.
        test: Images a breed in test.txt.
        width: Of images, in pixels.
        height: Of images, in pixels.
    """

    def __init__(
        self, root: Path, *, trainval: int = 10, test: int = 2, width: int = 48, height: int = 40
    ) -> None:
        self.root = root
        self.width, self.height = width, height
        for folder in ("images", "annotations/trimaps"):
            (root / folder).mkdir(parents=True)
        names = {
            "trainval": [f"{breed}_{n}" for breed in SPECIES for n in range(1, trainval + 1)],
            "test": [f"{breed}_{200 + n}" for breed in SPECIES for n in range(1, test + 1)],
        }
        for part, listed in names.items():
            self.list(part, [self.line(name) for name in listed])
            for name in listed:
                self.draw(name)

    def image(self, name: str) -> Path:
        return self.root / "images" / f"{name}.jpg"

    def trimap(self, name: str) -> Path:
        return self.root / "annotations" / "trimaps" / f"{name}.png"

    def listing(self, part: str) -> Path:
        return self.root / "annotations" / f"{part}.txt"

    def names(self, part: str) -> list[str]:
        return [line.split()[0] for line in self.listing(part).read_text().splitlines()]

    def line(self, name: str) -> str:
        breed = name.rpartition("_")[0]
        number = list(SPECIES).index(breed) + 1
        return f"{name} {number} {SPECIES[breed]} {number}"

    def list(self, part: str, lines: Sequence[str]) -> None:
        self.listing(part).write_text("".join(f"{line}\n" for line in lines))

    def draw(self, name: str) -> None:
        noise = np.random.default_rng(list(name.encode()))
        ramp = np.add.outer(np.arange(self.height) * 3, np.arange(self.width))
        rgb = ramp[..., None] + noise.integers(0, 60, (self.height, self.width, 3))
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(self.image(name), quality=90)
        trimap = np.full((self.height, self.width), 2, dtype=np.uint8)
        left, top = noise.integers(4, 12, 2)
        trimap[top - 2 : top + 22, left - 2 : left + 22] = 3
        trimap[top : top + 20, left : left + 20] = 1
        Image.fromarray(trimap).save(self.trimap(name))
