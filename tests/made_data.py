"""Small data sets in every layout that segpets reads, made from the embedded images."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from segpets.paths import conf_dir

PETS_MINI = conf_dir().parent / "segpets" / "data" / "pets_mini"
COUNT = 20


def _pairs() -> list[tuple[Image.Image, np.ndarray]]:
    """Images of 128x128, and masks with 1 where the pet is and else 0."""
    files = sorted((PETS_MINI / "images").glob("*.jpg"))[: 10 * COUNT : 10]
    pairs = []
    for file in files:
        trimap = np.asarray(Image.open(PETS_MINI / "annotations/trimaps" / f"{file.stem}.png"))
        pairs.append((Image.open(file).convert("RGB"), (trimap == 1).astype(np.uint8)))
    return pairs


def _save(file: Path, pixels: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file)


def folder(root: Path) -> Path:
    for number, (image, mask) in enumerate(_pairs()):
        _save(root / "images" / f"{number:02}.jpg", image)
        _save(root / "masks" / f"{number:02}.png", mask)
    return root


def voc(root: Path) -> Path:
    home = root / "VOC2012"
    for number, (image, mask) in enumerate(_pairs()):
        _save(home / "JPEGImages" / f"{number:02}.jpg", image)
        _save(home / "SegmentationClass" / f"{number:02}.png", mask * 12)
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{n:02}\n" for n in range(15)))
    (lists / "val.txt").write_text("".join(f"{n:02}\n" for n in range(15, COUNT)))
    return root


def camvid(root: Path) -> Path:
    for number, (image, mask) in enumerate(_pairs()):
        part = ("train", "train", "val", "test")[number % 4]
        _save(root / part / f"0001TP_{number:06}.png", image)
        _save(root / f"{part}annot" / f"0001TP_{number:06}.png", mask * 8)
    return root


def cityscapes(root: Path) -> Path:
    for number, (image, mask) in enumerate(_pairs()):
        part, city = (
            ("val", "ulm") if number % 4 == 0 else ("train", ("aachen", "jena")[number % 2])
        )
        stem = f"{city}_{number:06}_000019"
        _save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", image)
        ids = np.where(mask == 1, 26, 7).astype(np.uint8)  # car on a road
        _save(root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png", ids)
    return root


def coco(root: Path) -> Path:
    for part, numbers in {"train2017": range(15), "val2017": range(15, COUNT)}.items():
        images, notes = [], []
        for number in numbers:
            _save(root / part / f"{number:012}.jpg", _pairs()[number][0])
            images.append(
                {"id": number, "file_name": f"{number:012}.jpg", "height": 128, "width": 128}
            )
            corners = [20, 20, 100, 20, 100, 100, 20, 100]
            notes.append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 17 + number % 2,
                    "segmentation": [corners],
                    "area": 6400,
                    "bbox": [20, 20, 80, 80],
                    "iscrowd": 0,
                }
            )
        categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        content = {"images": images, "annotations": notes, "categories": categories}
        file.write_text(json.dumps(content))
    return root


def archives(root: Path, pets: Path) -> Path:
    """The two archives of the Oxford-IIIT Pet data set, of the images that a folder lists."""
    root.mkdir(parents=True)
    listed = [
        line.split()[0]
        for part in ("trainval", "test")
        for line in (pets / "annotations" / f"{part}.txt").read_text().splitlines()
    ]
    with tarfile.open(root / "images.tar.gz", "w:gz") as tar:
        for name in listed:
            tar.add((pets / "images" / f"{name}.jpg").resolve(), f"images/{name}.jpg")
    with tarfile.open(root / "annotations.tar.gz", "w:gz") as tar:
        for part in ("trainval", "test"):
            tar.add(pets / "annotations" / f"{part}.txt", f"annotations/{part}.txt")
        for name in listed:
            file = (pets / "annotations" / "trimaps" / f"{name}.png").resolve()
            tar.add(file, f"annotations/trimaps/{name}.png")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "folder": folder,
    "voc": voc,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
}
