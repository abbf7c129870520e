from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from segpets.config import conf_dir
from segpets.data import Voc
from segpets.data.source import Sample, Splits
from segpets.errors import UserError

CLASSES = list(OmegaConf.load(conf_dir() / "data" / "voc.yaml").classes)
PERSON = CLASSES.index("person")
VOID = (224, 224, 192)


def voc_palette() -> list[int]:
    """The 256 colours as the development kit's VOClabelcolormap.m computes them."""
    palette = []
    for index in range(256):
        red = green = blue = 0
        bits = index
        for shift in range(7, -1, -1):
            red |= (bits & 1) << shift
            green |= (bits >> 1 & 1) << shift
            blue |= (bits >> 2 & 1) << shift
            bits >>= 3
        palette += [red, green, blue]
    return palette


def image(file: Path, *, height: int = 2, width: int = 4) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 90, 90)).save(file)
    return file


def mask(
    file: Path, values: object, *, palette: list[int] | None = None, mode: str | None = None
) -> Path:
    """Indices in a palette, which is VOC's if none is given; `mode` converts it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.fromarray(np.array(values, dtype=np.uint8))
    drawn.putpalette(palette or voc_palette())
    (drawn.convert(mode) if mode else drawn).save(file)
    return file


def pixels(file: Path, values: object) -> Path:
    """Grey values or colours, as they are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)
    return file


def devkit(
    home: Path, lists: dict[str, list[str]], *, masks: str = "SegmentationClass", lone: str = ""
) -> Path:
    """A folder such as VOC2012 with all that its lists name, and an image without a mask."""
    for name, lines in lists.items():
        listing = home / "ImageSets" / "Segmentation" / f"{name}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            image(home / "JPEGImages" / f"{line}.jpg")
            mask(home / masks / f"{line}.png", [[0, 0, PERSON, 255]] * 2)
    if lone:
        image(home / "JPEGImages" / f"{lone}.jpg")
    return home


def official(home: Path) -> Path:
    names = [f"2007_{n:06}" for n in range(14)]
    return devkit(home, {"train": names[:10], "val": names[10:]}, lone="2008_000001")


def voc(root: Path, **options: object) -> Voc:
    return Voc(**({"root": root, "classes": CLASSES} | options))  # type: ignore[arg-type]


def ids(file: Path, **options: object) -> list[list[int]]:
    image(file.parents[1] / "JPEGImages" / f"{file.stem}.jpg")
    found = voc(file.parents[1], **options).mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def names(splits: Splits) -> list[list[str]]:
    return [[s.name for s in part] for part in (splits.train, splits.val, splits.test)]


def refusal(source: Voc) -> str:
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def problems(source: Voc) -> list[str]:
    return [str(problem.error) for problem in source.splits().problems]
