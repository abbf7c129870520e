"""Data sets in COCO's format, small ones."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as runs

from segpets.data import Coco, Splits
from segpets.data.coco.files import class_names
from segpets.data.source import Sample
from segpets.errors import UserError

Json = dict[str, Any]

HEIGHT, WIDTH = 6, 8
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "hair drier"}]
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]  # the pixels 1 to 3 across, and 1 and 2 down


def picture(id_: int, name: str | None = None, **other: object) -> Json:
    file = name or f"{id_:012}.jpg"
    return {"id": id_, "file_name": file, "height": HEIGHT, "width": WIDTH} | other


def instance(
    id_: int, image: int, category: int = 18, outline: object = None, **other: object
) -> Json:
    found = {"segmentation": [SQUARE] if outline is None else outline, "iscrowd": 0, "area": 6.0}
    return {"id": id_, "image_id": image, "category_id": category} | found | other


def content(images: Sequence[Json], annotations: Sequence[Json], **other: object) -> Json:
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": list(images),
        "annotations": list(annotations),
        "categories": CATEGORIES,
    } | other


def save(file: Path, what: object, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(what, **options), encoding="utf-8")
    return file


def draw(folder: Path, images: Sequence[Json]) -> None:
    for image in images:
        file = folder / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (image["width"], image["height"])).save(file)


def one_file(root: Path, *annotations: Json, count: int = 3, **other: object) -> Path:
    """A JSON beside images/, three of them; the annotations are usually of the first."""
    images = [picture(number) for number in range(1, count + 1)]
    draw(root / "images", images)
    return save(root / "my.json", content(images, annotations, **other))


def source(root: Path | None = None, **options: Any) -> Coco:
    words = [options.get(key) for key in ("annotations", "files", "categories")]
    given = {"root": root, "classes": class_names(root, *words)} | options
    return Coco(**given)


def everything(splits: Splits) -> dict[str, Sample]:
    return {s.name: s for s in (*splits.train, *splits.val, *splits.test)}


def mask(dataset: Coco, name: str = "000000000001") -> list[list[int]]:
    found = dataset.mask(everything(dataset.splits())[name])
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    rows: list[list[int]] = found.tolist()
    return rows


def names(samples: Sequence[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    return str(caught.value)


def problems(dataset: Coco) -> dict[str, str]:
    return {problem.name: str(problem.error) for problem in dataset.splits().problems}


def compressed(pixels: NDArray[np.uint8]) -> Json:
    encoded = runs.encode(np.asfortranarray(pixels))
    return {"size": list(pixels.shape), "counts": encoded["counts"].decode()}


def uncompressed(pixels: NDArray[np.uint8]) -> Json:
    flat = pixels.ravel(order="F").tolist()
    counts, last = [0], 0
    for value in flat:
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return {"size": list(pixels.shape), "counts": counts}


RING = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0, 0, 1],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0],
    ],
    dtype=np.uint8,
)


def official(root: Path, year: str = "2017", pictures: str = "{}{}", count: int = 10) -> Path:
    for stage, first in (("train", 1), ("val", 101)):
        images = [picture(n) for n in range(first, first + count)]
        draw(root / pictures.format(stage, year), images)
        annotations = [instance(n, n) for n in range(first, first + count)]
        save(root / f"annotations/instances_{stage}{year}.json", content(images, annotations))
    return root
