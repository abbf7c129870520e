"""COCO's format, on small files of its true kinds; pycocotools' own reader is the oracle."""

import contextlib
import io
import json
import logging
import pickle
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture_types import Command
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as runs
from pycocotools.coco import COCO

from segpets.config import compose
from segpets.data import Coco, SegmentationDataModule, Splits
from segpets.data.coco.files import categories, class_names, find_files
from segpets.data.decoded import read_sample
from segpets.data.pixels import Pixels
from segpets.data.reader import Reader
from segpets.data.source import Sample
from segpets.errors import FileError, UserError
from segpets.train import train

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

# masks


def test_a_polygon_covers_its_pixels(tmp_path: Path) -> None:
    one_file(tmp_path, instance(1, 1))
    dataset = source(tmp_path)
    assert dataset.classes == ["background", "cat", "dog", "hair drier"]
    assert mask(dataset) == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert mask(dataset, "000000000002") == [[0] * WIDTH] * HEIGHT


def test_several_polygons_are_one_object_without_holes(tmp_path: Path) -> None:
    inner = [2, 1, 3, 1, 3, 2, 2, 2]
    apart = [6, 4, 8, 4, 8, 6, 6, 6]
    one_file(tmp_path, instance(1, 1, 3, [SQUARE, inner, apart]))
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    expected[1:3, 1:4] = expected[4:, 6:] = 1
    assert mask(source(tmp_path)) == expected.tolist()


@pytest.mark.parametrize("outline", [compressed(RING), uncompressed(RING)])
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_run_lengths_keep_their_holes(tmp_path: Path, outline: Json, iscrowd: int) -> None:
    one_file(tmp_path, instance(1, 1, 90, outline, iscrowd=iscrowd, bbox=[0, 1, 8, 5]))
    assert mask(source(tmp_path)) == (RING * 3).tolist()
    ignored = (RING * (255 if iscrowd else 3)).tolist()
    assert mask(source(tmp_path, crowd="ignore")) == ignored


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_masks_agree_with_pycocotools_and_with_the_rule_of_pixel_centres(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    height, width, images, annotations = 50, 70, [], []
    for number in range(1, 13):
        images.append(picture(number, height=height, width=width))
        angles = np.sort(noise.uniform(0, 2 * np.pi, 9))
        reach = noise.uniform(5, 30, 9)
        x = 35 + reach * np.cos(angles)
        y = 25 + reach * np.sin(angles)  # some reach beyond the image, as in COCO
        polygon = np.stack([x, y], 1).round(2).ravel().tolist()
        blob = (noise.random((height, width)) < 0.3).astype(np.uint8)
        kinds: list[object] = [[polygon], compressed(blob), uncompressed(blob)]
        annotations.append(instance(number, number, 18, kinds[0 if number < 9 else number % 3]))
    draw(tmp_path / "images", images)
    file = save(tmp_path / "my.json", content(images, annotations))
    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO(str(file))
    dataset = source(tmp_path, categories=["dog"])
    samples = everything(dataset.splits())
    for annotation in annotations:
        found = dataset.mask(samples[f"{annotation['image_id']:012}"])
        assert np.array_equal(found, oracle.annToMask(annotation))
        assert 0 < found.sum() < found.size
        if isinstance(annotation["segmentation"], list):
            by_rule = even_odd(annotation["segmentation"][0], height, width)
            edge = by_rule ^ np.roll(by_rule, 1, 0) | by_rule ^ np.roll(by_rule, 1, 1)
            edge |= np.roll(edge, -1, 0) | np.roll(edge, -1, 1)
            assert not (found.astype(bool) ^ by_rule)[1:-1, 1:-1][~edge[1:-1, 1:-1]].any()


def even_odd(polygon: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """Whether a ray from each pixel's centre crosses the outline an odd number of times."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    inside = np.zeros((height, width), dtype=bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
                    inside[row, column] ^= True
    return inside


def test_the_smaller_object_lies_above_the_larger_and_the_later_above_its_equal(
    tmp_path: Path,
) -> None:
    small, large = [[2, 2, 3, 2, 3, 3, 2, 3]], [[0, 0, 8, 0, 8, 5, 0, 5]]
    one_file(
        tmp_path,
        *(instance(1, 1, 3, small), instance(2, 1, 18, large)),
        *(instance(3, 2, 3, small), instance(4, 2, 90, small)),
    )
    dataset = source(tmp_path)
    first = np.array(mask(dataset))
    assert first[2, 2] == 1 and (first[:5] == 2).sum() == 39 and not first[5].any()
    assert np.array(mask(dataset, "000000000002"))[2, 2] == 3


def test_chosen_categories_become_classes_in_their_order_and_others_background(
    tmp_path: Path,
) -> None:
    one_file(tmp_path, instance(1, 1, 18), instance(2, 2, 3), instance(3, 3, 90))
    dataset = source(tmp_path, categories=["hair drier", "cat"])
    assert dataset.classes == ["background", "hair drier", "cat"]
    highest = [max(map(max, mask(dataset, f"{n:012}"))) for n in (1, 2, 3)]
    assert highest == [0, 2, 1]


def test_images_of_nothing_but_background_are_kept_or_dropped(tmp_path: Path) -> None:
    one_file(tmp_path, *(instance(n, n, 3) for n in (2, 3, 4)), instance(9, 1, 18), count=5)
    for empty, expected in (("keep", [1, 2, 3, 4, 5]), ("drop", [2, 3, 4])):
        dataset = source(tmp_path, categories=["cat"], empty=empty)
        assert sorted(map(int, everything(dataset.splits()))) == expected


def test_what_extra_fields_and_other_spellings_hold_is_read(tmp_path: Path) -> None:
    """A flat polygon, no iscrowd, no box, floats as sizes, text ids, a mark before UTF-8."""
    images = [picture(n, f"Straße {n}\u4e2d.png", height=6.0) | {"id": f"ü{n}"} for n in (1, 2, 3)]
    annotations: list[Json] = [
        {"id": 1, "image_id": "ü1", "category_id": 3, "segmentation": SQUARE, "note": "\u00e9"},
        {"id": 2, "image_id": "ü1", "category_id": 18, "segmentation": [SQUARE], "bbox": []},
        {"id": 3, "image_id": "ü2", "category_id": 18, "segmentation": [SQUARE], "bbox": None},
    ]
    draw(tmp_path / "images", [image | {"height": 6} for image in images])
    for ascii_only in (True, False):
        text = json.dumps(content(images, annotations), ensure_ascii=ascii_only, indent=1)
        mark = "" if ascii_only else "\N{ZERO WIDTH NO-BREAK SPACE}"
        (tmp_path / "my.json").write_text(mark + text, encoding="utf-8")
        dataset = source(tmp_path)
        samples = everything(dataset.splits())
        assert sorted(s.image.name for s in samples.values()) == [i["file_name"] for i in images]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in samples)
        by_file = {s.image.name: dataset.mask(s) for s in samples.values()}
        assert by_file["Straße 1\u4e2d.png"][1].tolist() == [0, 2, 2, 2, 0, 0, 0, 0]


def test_annotations_may_come_before_the_images_and_categories_first(tmp_path: Path) -> None:
    one_file(tmp_path, instance(1, 1))
    expected = mask(source(tmp_path))
    known = json.loads((tmp_path / "my.json").read_text())
    for order in (("categories", "annotations", "images"), ("annotations", "images", "categories")):
        save(tmp_path / "my.json", {key: known[key] for key in order})
        assert mask(source(tmp_path)) == expected


def test_a_source_can_be_sent_to_another_process(tmp_path: Path) -> None:
    one_file(tmp_path, instance(1, 1))
    dataset = source(tmp_path)
    samples = everything(dataset.splits())
    there = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(there.mask(samples["000000000001"]), np.array(mask(dataset)))


def test_the_content_of_a_mask_has_a_name(tmp_path: Path) -> None:
    def hashes(**options: object) -> dict[str, str]:
        samples = everything(source(tmp_path, **options).splits())
        return {name: sample.mask_hash for name, sample in samples.items()}

    one_file(tmp_path, instance(1, 1), instance(2, 2, 3), instance(3, 3, 3, iscrowd=1))
    before = hashes()
    assert hashes() == before
    moved = instance(2, 2, 3, [[2, *SQUARE[1:]]])
    one_file(tmp_path, instance(1, 1), moved, instance(3, 3, 3, iscrowd=1))
    changed = {name for name, found in hashes().items() if before[name] != found}
    assert changed == {"000000000002"}
    one_file(tmp_path, instance(1, 1), instance(2, 2, 3), instance(3, 3, 3, iscrowd=1))
    ignoring = hashes(crowd="ignore")
    assert {name for name in before if before[name] != ignoring[name]} == {"000000000003"}


def test_a_file_that_changes_after_the_listing_changes_no_mask(tmp_path: Path) -> None:
    file = one_file(tmp_path, instance(1, 1))
    dataset = source(tmp_path)
    sample = everything(dataset.splits())["000000000001"]
    before = dataset.mask(sample)
    file.write_text(file.read_text().replace("[[1, 1, 4, 1,", "[[1, 1, 5, 1,"))
    assert np.array_equal(dataset.mask(sample), before)
    again = everything(source(tmp_path).splits())["000000000001"]
    assert again.mask_hash != sample.mask_hash  # so the next training builds its cache anew


# layouts and splits


def official(root: Path, year: str = "2017", pictures: str = "{}{}", count: int = 10) -> Path:
    for stage, first in (("train", 1), ("val", 101)):
        images = [picture(n) for n in range(first, first + count)]
        draw(root / pictures.format(stage, year), images)
        annotations = [instance(n, n) for n in range(first, first + count)]
        save(root / f"annotations/instances_{stage}{year}.json", content(images, annotations))
    return root


@pytest.mark.parametrize(
    ("year", "pictures"), [("2017", "{}{}"), ("2014", "images/{}{}"), ("", "{}")]
)
def test_the_official_layout_of_any_year(tmp_path: Path, year: str, pictures: str) -> None:
    official(tmp_path, year, pictures)
    save(tmp_path / f"annotations/captions_val{year}.json", {"annotations": []})
    save(tmp_path / f"annotations/person_keypoints_val{year}.json", {"annotations": []})
    splits = source(tmp_path).splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [9, 1, 10]
    assert names(splits.test) == [f"{n:012}" for n in range(101, 111)]
    assert splits.train[0].image.parent == tmp_path / pictures.format("train", year)
    assert splits.train[0].mask == tmp_path / f"annotations/instances_train{year}.json"
    assert not splits.problems and not splits.val_is_test
    assert names(source(tmp_path, seed=1).splits().val) != names(splits.val)

    splits = source(tmp_path, split="files").splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [10, 10, 10]
    assert splits.val_is_test and names(splits.test) == names(splits.val)


def test_a_roboflow_export(tmp_path: Path) -> None:
    """Its first category is the project, which is no class, but may have the name of one."""
    for folder, count in (("train", 5), ("valid", 2), ("test", 3)):
        images = [picture(n, f"a{n}_jpg.rf.{folder}.jpg") for n in range(count)]
        draw(tmp_path / folder, images)
        found = [{"id": 0, "name": "dog", "supercategory": "none"}]
        found += [
            {"id": n, "name": name, "supercategory": "dog"} for n, name in ((1, "cat"), (2, "dog"))
        ]
        annotations = [instance(n, n, 2, bbox=[1, 1, 3, 2]) for n in range(count)]
        save(
            tmp_path / folder / "_annotations.coco.json",
            content(images, annotations, categories=found),
        )
    dataset = source(tmp_path)
    assert dataset.classes == ["background", "cat", "dog"]
    splits = dataset.splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [5, 2, 3]
    assert dataset.mask(splits.test[0])[1, 1] == 2
    (tmp_path / "test" / "_annotations.coco.json").unlink()
    splits = source(tmp_path, split="files").splits()
    assert splits.val_is_test and len(splits.test) == 2


def test_one_json_is_split_80_10_10_by_the_seed(tmp_path: Path) -> None:
    file = one_file(tmp_path / "a", count=20)
    splits = source(annotations=file).splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [16, 2, 2]
    assert len(everything(splits)) == 20
    other = source(annotations=file, images=tmp_path / "a/images", seed=1).splits()
    assert everything(other) == everything(splits)
    assert names(other.test) != names(splits.test)
    assert source(annotations=file).root == tmp_path / "a"
    told = refusal(source(annotations=file, split="files").splits)
    assert f"data.split=files needs files for train and val, but there is only {file}" in told
    assert "data.split=holdout" in told


def test_val_alone_is_split_too(tmp_path: Path) -> None:
    official(tmp_path)
    (tmp_path / "annotations/instances_train2017.json").unlink()
    splits = source(tmp_path).splits()
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [8, 1, 1]


def test_stages_that_are_missing(tmp_path: Path) -> None:
    for stage, count in (("train", 1), ("valid", 3), ("test", 3)):
        images = [picture(n) for n in range(count)]
        draw(tmp_path / stage, images)
        save(tmp_path / stage / "_annotations.coco.json", content(images, []))
    (tmp_path / "valid" / "_annotations.coco.json").unlink()
    assert "train, which has too few images in" in refusal(source(tmp_path).splits)
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(content(images, [])))
    (tmp_path / "train" / "_annotations.coco.json").unlink()
    told = refusal(source(tmp_path).splits)
    assert "data.split=holdout needs files for train, but there is only" in told


def test_files_by_stage_whose_images_share_names_and_whose_ids_differ(tmp_path: Path) -> None:
    files = {}
    for stage, dog in (("train", 18), ("val", 7), ("test", 1)):
        images = [picture(n) for n in range(4)]
        draw(tmp_path / stage, images)
        annotations = [instance(n, n, dog) for n in range(4)]
        found = [{"id": dog, "name": "dog"}, {"id": 55, "name": "cat"}]
        files[stage] = save(
            tmp_path / stage / "x.json", content(images, annotations, categories=found)
        )
    dataset = source(files=files, split="files")
    splits = dataset.splits()
    assert dataset.classes == ["background", "dog", "cat"]
    assert len(everything(splits)) == 12
    assert {sample.image.parent.name for sample in splits.val} == {"val"}
    for part in (splits.train, splits.val, splits.test):
        assert [int(dataset.mask(sample)[1, 1]) for sample in part] == [1, 1, 1, 1]


def test_names_with_folders_in_them(tmp_path: Path) -> None:
    images = [picture(1, "train2017/a.jpg"), picture(2, "sub\\b.jpg"), picture(3, "./sub/a.jpg")]
    draw(
        tmp_path, [image | {"file_name": image["file_name"].replace("\\", "/")} for image in images]
    )
    file = save(tmp_path / "annotations/instances_default.json", content(images, [instance(1, 2)]))
    assert find_files(tmp_path, None, None)[0].path == file
    samples = everything(source(tmp_path).splits())
    assert {s.image.relative_to(tmp_path).as_posix() for s in samples.values()} == {
        "train2017/a.jpg",
        "sub/b.jpg",
        "sub/a.jpg",
    }


def test_layouts_that_arent_clear(tmp_path: Path) -> None:
    assert "data=coco needs to know where the data lies" in refusal(lambda: source(None))
    told = refusal(lambda: source(tmp_path / "x"))
    assert f"data.root={tmp_path}/x is not a folder" in told
    assert "holds nothing, but no instances" in refusal(lambda: source(tmp_path))
    official(tmp_path)
    official(tmp_path, "2014")
    told = refusal(lambda: source(tmp_path))
    assert "instances_train2014.json and" in told and "'data.files={train: FILE" in told
    file = tmp_path / "annotations/instances_val2014.json"
    told = refusal(lambda: source(annotations=file, files={"train": file}))
    assert "exclude each other" in told
    assert "must name a JSON for train" in refusal(lambda: source(files={"val": file}))
    assert "data.annotations=x.json isn't there" in refusal(lambda: source(annotations="x.json"))
    told = refusal(lambda: source(annotations=file, images=tmp_path / "no"))
    assert f"data.images={tmp_path}/no isn't there" in told


# classes


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["b", "a"], ["background", "b", "a"]),
        (["a", "b", "a"], ["background", "a", "b"]),
        (["Background", "a"], ["background", "a"]),
        (["a", "background"], ["background", "a"]),
        ([" traffic  light\n", "door/window", 'it\'s "x"', "[b] ä"], None),
        (["costs $5", "${x}"], ["background", "costs 5", "{x}"]),
    ],
)
def test_categories_become_classes(
    tmp_path: Path, found: list[str], expected: list[str] | None
) -> None:
    ids = [{"id": n + 1, "name": name} for n, name in enumerate(found)]
    file = save(tmp_path / "a.json", content([], [], categories=ids[::-1]))
    expected = expected or ["background", "traffic light", *found[1:]]
    assert class_names(None, file, None, None) == expected


def test_only_the_categories_of_the_file_itself_count(tmp_path: Path) -> None:
    for other in (
        {"info": {"categories": [{"id": 1, "name": "wrong"}]}},
        {"images": [{"categories": [{"id": 1, "name": "wrong"}]}]},
        {"info": 'a "categories": [{"id": 1, "name": "wrong"}]'},
        {"info": '\\\\"categories": [' * 3},
    ):
        for indent in (None, 2):
            file = save(tmp_path / "a.json", content([], []) | other, indent=indent)
            assert [name for _, name in categories(file)] == ["cat", "dog", "hair drier"]
    many = [{"id": n, "name": f"ä{n}" * 300} for n in range(200)]
    file = save(tmp_path / "a.json", content([], [], categories=many), ensure_ascii=False)
    assert [name for _, name in categories(file)] == [each["name"] for each in many]


def test_a_group_of_all_categories_is_no_class_but_others_are(tmp_path: Path) -> None:
    def names_of(*found: tuple[str, str | None]) -> list[str]:
        ids = [{"id": n, "name": a, "supercategory": b} for n, (a, b) in enumerate(found)]
        file = save(tmp_path / "a.json", content([], [], categories=ids))
        return [name for _, name in categories(file)]

    assert names_of(("pets", "none"), ("cat", "pets"), ("dog", "pets")) == ["cat", "dog"]
    assert names_of(("cat", "none"), ("dog", "none")) == ["cat", "dog"]
    assert names_of(("pets", "none"), ("cat", "pets"), ("dog", "wolves")) == ["pets", "cat", "dog"]
    assert names_of(("pets", None), ("cat", "pets")) == ["pets", "cat"]
    assert names_of(("none", "none")) == ["none"]


def test_a_corrected_file_is_read_anew(tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", content([], []))
    assert len(categories(file)) == 3
    save(tmp_path / "a.json", content([], [], categories=[{"id": 1, "name": "owl"}]))
    assert categories(file) == [(1, "owl")]


def test_categories_that_dont_fit(tmp_path: Path) -> None:
    one_file(tmp_path)
    told = refusal(source(tmp_path, categories=["cats"]).splits)
    assert f"data.categories names cats, but {tmp_path}/my.json has no such category" in told
    assert "Did you mean cat? cat, dog, hair drier" in told
    assert "must be a list" in refusal(lambda: source(tmp_path, categories="cat"))
    assert "name twice" in refusal(lambda: source(tmp_path, categories=["cat", "cat"]))
    told = refusal(lambda: source(tmp_path, classes=["background", "dog", "cat"]))
    assert "doesn't fit the categories" in told
    many = [{"id": n, "name": f"c{n}"} for n in range(300)]
    one_file(tmp_path, categories=many)
    assert "301 classes are more than the 254" in refusal(lambda: source(tmp_path))
    files = {
        stage: one_file(tmp_path / stage, categories=[{"id": 1, "name": name}])
        for stage, name in (("train", "cat"), ("val", "cow"))
    }
    told = refusal(source(files=files).splits)
    assert "val/my.json has the category cow, which" in told and "train/my.json hasn't" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "random"}, "data.split=random is unknown: choose holdout or files"),
        ({"crowd": "drop"}, "data.crowd=drop is unknown: choose class or ignore"),
        ({"empty": "no"}, "data.empty=no is unknown: choose keep or drop"),
        ({"seed": -1}, "data.seed=-1 must be a whole number"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: Json, words: str) -> None:
    one_file(tmp_path)
    assert words in refusal(lambda: source(tmp_path, **options))


# bad input


def text(what: str | bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(what if isinstance(what, bytes) else what.encode())


def replaced(**keys: object) -> Callable[[Path], object]:
    return lambda file: save(file, json.loads(file.read_text()) | keys)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (text(""), "is no JSON"),
    "a_page": (text("<html>"), "is no JSON"),
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-300]), "is no JSON"),
    "in_its_middle": (
        lambda file: file.write_text(file.read_text().replace('"height": 6', '"height": 6 6', 1)),
        "is no JSON of instances",
    ),
    "more": (lambda file: file.write_text(file.read_text() + "{}"), "Extra data"),
    "a_list": (text('[{"categories": [{"id": 1, "name": "a"}]}]'), "holds no table"),
    "latin1": (
        lambda file: file.write_bytes(file.read_bytes().replace(b"000001.jpg", b"00000\xfc.jpg")),
        "export it anew, as UTF-8",
    ),
    "deep": (text('{"categories": ' + "[" * 100_000), "is no JSON"),
    "deep_images": (
        lambda file: file.write_text(
            file.read_text().replace('"licenses": []', '"licenses": ' + "[" * 100_000)
        ),
        "is no JSON of instances",
    ),
    "captions": (
        text('{"images": [], "annotations": [{"image_id": 1, "id": 2, "caption": "A cat"}]}'),
        "names no categories, so that it isn't a file of instances (captions have none)",
    ),
    "panoptic": (
        replaced(annotations=[{"image_id": 1, "file_name": "1.png", "segments_info": []}]),
        "is a panoptic file",
    ),
    "image_info": (
        lambda file: file.write_text(file.read_text().replace('"annotations"', '"info2"')),
        "has no lists named annotations, so that it isn't a file of instances",
    ),
    "images_of_a_wrong_type": (replaced(images={}), "has no lists named images"),
    "annotations_null": (replaced(annotations=None), "has no lists named annotations"),
    "categories_null": (replaced(categories=None), "names no categories"),
    "category_text": (replaced(categories=["cat"]), 'has the category "cat"'),
    "category_without_name": (replaced(categories=[{"id": 1}]), 'the category {"id": 1}'),
    "category_empty": (replaced(categories=[{"id": 1, "name": " "}]), "a text as name"),
    "category_missing_mark": (replaced(categories=[{"id": 1, "name": "???"}]), "a text as name"),
    "category_id": (replaced(categories=[{"id": "1", "name": "a"}]), "a whole number as id"),
    "category_twice": (
        replaced(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
        "gives the id 1 to two categories, a and b",
    ),
    "no_images": (replaced(images=[], annotations=[]), "has no image that can be used"),
    "two_images": (
        lambda file: save(file, content([picture(1), picture(2)], [])),
        "has 2 images with masks, but train, val and test need at least one each",
    ),
    "images_elsewhere": (
        replaced(images=[picture(n, f"x{n}.jpg") for n in range(5)], annotations=[]),
        "lists 5 images, such as x0.jpg, but none of them lies in",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cant_be_used_is_one_clear_error(tmp_path: Path, case: str) -> None:
    damage, words = FILES[case]
    file = one_file(tmp_path, instance(1, 1))
    damage(file)
    told = refusal(lambda: source(annotations=file).splits())
    assert told.startswith(str(file)) and words in told


NAMES = (
    "../../etc/passwd",
    "/etc/passwd",
    "a/../../b.jpg",
    "..\\b.jpg",
    "C:\\b.jpg",
    "a\0b",
    "",
    ".",
)

IMAGES: dict[str, tuple[object, str]] = {
    **{
        f"name {name!r}": (picture(4, "x") | {"file_name": name}, "lies outside of its folder")
        for name in NAMES
    },
    "surrogate": (picture(4, "\ud800.jpg"), "lies outside of its folder"),
    "gone": (picture(4), "images/000000000004.jpg is missing, though"),
    "no_height": (picture(4, height=None), "the height and width [None, 8]"),
    "text_as_width": (picture(4, width="8"), "the height and width [6, '8']"),
    "no_pixels": (picture(4, width=0), "the height and width [6, 0]"),
    "part_of_a_pixel": (picture(4, width=0.5), "the height and width [6, 0.5]"),
    "infinite": (picture(4, width=float("inf")), "the height and width [6, inf]"),
    "bomb": (picture(4, height=60_000, width=60_000), "has 60000x60000 pixels: correct it"),
    "twice": (picture(4, "000000000001.jpg"), "lists '000000000001.jpg' twice"),
    "number_as_name": (picture(4) | {"file_name": 4}, "without id or file_name"),
    "no_id": ({"file_name": "a.jpg"}, "without id or file_name"),
    "list_as_id": (picture(4) | {"id": [4]}, "without id or file_name"),
    "text": ("a.jpg", "without id or file_name"),
    "null": (None, "without id or file_name"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_that_cant_be_used_is_a_problem(tmp_path: Path, case: str) -> None:
    image, words = IMAGES[case]
    images: list[Any] = [picture(n) for n in (1, 2, 3)]
    draw(tmp_path / "images", images)
    save(tmp_path / "my.json", content([*images, image], []))
    dataset = source(tmp_path)
    (told,) = problems(dataset).values()
    assert words in told
    assert len(everything(dataset.splits())) == 3


def test_an_id_of_two_images_spoils_both(tmp_path: Path) -> None:
    images = [picture(n) for n in (1, 2, 3, 4, 5)]
    draw(tmp_path / "images", images)
    images[4]["id"] = 2
    save(tmp_path / "my.json", content(images, [instance(1, 2)]))
    told = problems(source(tmp_path))
    assert sorted(told) == ["000000000002", "000000000005"]
    assert "gives the id 2 to two images, 000000000002.jpg and" in told["000000000002"]


def test_problems_are_told_where_too_few_images_are_left(tmp_path: Path) -> None:
    one_file(tmp_path, instance(7, 1, 4))
    told = refusal(source(tmp_path).splits)
    assert "has 2 images with masks" in told
    assert "1 can't be used:" in told and "whose category 4 isn't" in told


def test_an_image_in_two_files_is_a_problem(tmp_path: Path) -> None:
    files = {}
    for stage, ids in (("train", (1, 2, 3)), ("val", (3, 4))):
        images = [picture(n) for n in ids]
        draw(tmp_path / "images", images)
        files[stage] = save(tmp_path / f"{stage}.json", content(images, []))
    (told,) = problems(source(files=files, images=tmp_path / "images")).values()
    assert f"is listed in {files['train']} and in {files['val']}" in told


LINKS: dict[str, tuple[object, str]] = {
    "unknown_image": (instance(7, 99), "the annotation 7 of the image 99, which it doesn't list"),
    "text_as_image": (instance(7, 1) | {"image_id": "1"}, "of the image '1', which it doesn't"),
    "list_as_image": (instance(7, 1) | {"image_id": [1]}, "of the image [1], which it doesn't"),
    "no_image": ({"id": 7, "category_id": 3}, "the annotation 7 of the image None"),
    "text": ("x", "of the image None"),
    "unknown_category": (instance(7, 1, 4), "whose category 4 isn't among its categories"),
    "text_as_category": (instance(7, 1) | {"category_id": "3"}, "whose category '3' isn't"),
    "list_as_category": (instance(7, 1) | {"category_id": [3]}, "whose category [3] isn't"),
    "true_as_category": (instance(7, 1) | {"category_id": True}, "whose category True isn't"),
    "crowd": (instance(7, 1, iscrowd="yes"), "the annotation 7 with iscrowd='yes'"),
}


@pytest.mark.parametrize("case", LINKS)
def test_an_annotation_that_belongs_nowhere_is_a_problem(tmp_path: Path, case: str) -> None:
    annotation, words = LINKS[case]
    one_file(tmp_path, annotation, count=4)  # type: ignore[arg-type]
    (told,) = problems(source(tmp_path)).values()
    assert told.startswith(f"{tmp_path}/my.json has ") and words in told


def test_many_annotations_of_unknown_images_are_counted(tmp_path: Path) -> None:
    one_file(tmp_path, *(instance(n, 90 + n) for n in range(5)))
    told = problems(source(tmp_path))
    assert list(told) == ["my-annotations"]
    assert "the annotation 0 of the image 90" in told["my-annotations"]
    assert "and 4 more such annotations" in told["my-annotations"]


GOOD = uncompressed(RING)
OUTLINES: dict[str, tuple[object, str]] = {
    "none": ([], "has no segmentation"),
    "null": (None, "has no segmentation"),
    "text": ("1 1 4 1 4 3", "has no segmentation"),
    "two_points": ([[1, 1, 4, 3]], "a polygon of 2 points, but 3 are the least"),
    "empty_polygon": ([[]], "a polygon of 0 points"),
    "odd": ([[1, 1, 4, 1, 4, 3, 1]], "a polygon of 7 numbers, which are no pairs"),
    "nan": ([[1, 1, 4, 1, 4, float("nan")]], "a polygon that is no list of numbers"),
    "infinite": ([[1, 1, 4, 1, 4, float("inf")]], "a polygon that is no list of numbers"),
    "huge": ([[1, 1, 4, 1, 4, 10**400]], "a polygon that is no list of numbers"),
    "texts": ([["1", "1", "4", "1", "4", "3"]], "a polygon that is no list of numbers"),
    "truth": ([[True, 1, 4, 1, 4, 3]], "a polygon that is no list of numbers"),
    "points": ([[[1, 1], [4, 1], [4, 3]]], "a polygon that is no list of numbers"),
    "mixed": ([SQUARE, {"x": 1}], "a polygon that is no list of numbers"),
    "outside": ([[1, 1, 400, 1, 4, 3]], "the point (400, 1), far outside of the image's 8x6"),
    "above": ([[1, -50, 4, 1, 4, 3]], "the point (1, -50), far outside"),
    "long": ([[-9, -9, 17, 15] * 99], "a polygon that is 5148 pixels long"),
    "other_size": (GOOD | {"size": [8, 6]}, "run lengths for the size [8, 6], but the image's"),
    "no_size": ({"counts": GOOD["counts"]}, "run lengths for the size None"),
    "huge_size": (GOOD | {"size": [60_000, 60_000]}, "run lengths for the size [60000, 60000]"),
    "no_counts": ({"size": [6, 8]}, "neither a list of whole numbers nor a text"),
    "short": (GOOD | {"counts": [7, 3]}, "sum to 10, or with a negative one, but the image has"),
    "too_long": (GOOD | {"counts": [7, 10**12]}, "sum to 1000000000007"),
    "negative": (GOOD | {"counts": [-7, 55]}, "sum to 48, or with a negative one"),
    "fractions": (GOOD | {"counts": [7.5, 40.5]}, "neither a list of whole numbers nor a text"),
    "short_text": (GOOD | {"counts": "73"}, "sum to 10"),
    "wrong_letter": (GOOD | {"counts": "7~"}, "compressed run lengths with a wrong '~'"),
    "not_ascii": (GOOD | {"counts": "7é"}, "compressed run lengths with a wrong 'é'"),
    "cut_text": (GOOD | {"counts": "7P"}, "end in the midst of a number"),
    "endless_text": (GOOD | {"counts": "o" * 99}, "compressed run lengths with a wrong 'o'"),
    "negative_text": (GOOD | {"counts": "NQ2"}, "or with a negative one"),
}


@pytest.mark.parametrize("case", OUTLINES)
def test_an_outline_that_cant_be_drawn_is_an_error_of_its_image(tmp_path: Path, case: str) -> None:
    outline, words = OUTLINES[case]
    one_file(tmp_path, instance(7, 1) | {"segmentation": outline})
    dataset = source(tmp_path)
    sample = everything(dataset.splits())["000000000001"]
    with pytest.raises(FileError) as caught:
        dataset.mask(sample)
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/my.json has the annotation 7 of 000000000001.jpg, which ")
    assert words in told and told.endswith("or exclude the image by data.exclude")


ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "\ud800", "\0", "../x", [], {}, [[]], [None] * 6, [1e300] * 6, {"size": None}),
]


def places(node: object, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values within a JSON value."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        inner = list(node.items())
    elif isinstance(node, list):
        inner = list(enumerate(node))
    return [p for k, v in inner for p in [(*before, k), *places(v, (*before, k))]]


def test_whatever_a_file_holds_the_answer_is_a_mask_or_words(tmp_path: Path) -> None:
    outlines = [[SQUARE], compressed(RING), uncompressed(RING)]
    file = one_file(tmp_path, *(instance(n, n, 3, o) for n, o in enumerate(outlines, 1)), count=4)
    sound = file.read_text()
    noise = random.Random(0)
    every = places(json.loads(sound))
    masks = refusals = 0
    for _ in range(300):
        data = json.loads(sound)
        *way, last = noise.choice(every)
        node = data
        for key in way:
            node = node[key]
        node[last] = noise.choice(ODD)
        content_ = bytearray(json.dumps(data).encode())
        if noise.random() < 0.2:
            content_[noise.randrange(len(content_))] = noise.randrange(256)
        file.write_bytes(content_)
        try:
            dataset = source(tmp_path)
            for sample in everything(dataset.splits()).values():
                with contextlib.suppress(FileError):
                    dataset.mask(sample)
                    masks += 1
        except UserError:
            refusals += 1
    assert masks > 100 and refusals > 50


LARGE = [5, 10, 95, 10, 95, 80, 5, 80]


@pytest.mark.parametrize(
    ("box", "fits"),
    [
        ([5, 10, 90, 70], True),
        ([5.4, 9.8, 90.3, 69], True),
        ([0, 0, 0, 0], True),
        ([], True),
        (None, True),
        ([9, 14, 82, 62], True),  # four pixels
        ([5, 10, 95, 80], False),  # left, top, right, bottom
        ([10, 5, 70, 90], False),  # height and width exchanged
        ([20, 10, 90, 70], False),
        ([0.05, 0.1, 0.9, 0.7], False),  # parts of one
        ([5, 10, 90], False),
        ([5, 10, 90, "70"], False),
        ([5, 10, 90, float("nan")], False),
        ("5 10 90 70", False),
        ({"x": 5}, False),
    ],
)
def test_a_box_must_be_about_its_outline(tmp_path: Path, box: object, fits: bool) -> None:
    solid = np.zeros((100, 100), dtype=np.uint8)
    solid[10:80, 5:95] = 1
    images = [picture(n, height=100, width=100) for n in (1, 2, 3)]
    draw(tmp_path / "images", images)
    for outline in ([LARGE], compressed(solid)):
        save(tmp_path / "my.json", content(images, [instance(7, 1, 18, outline, bbox=box)]))
        dataset = source(tmp_path)
        if fits:
            assert np.array_equal(np.array(mask(dataset)), solid * 2)
        else:
            told = refusal(lambda dataset=dataset: mask(dataset))  # type: ignore[misc]
            assert "has the annotation 7 of 000000000001.jpg, which has the box" in told


def test_a_polygon_slightly_outside_is_cut_off_with_or_without_its_box(tmp_path: Path) -> None:
    polygon = [-3.5, -2, 3, -2, 3, 9.5, -3.5, 9.5]
    expected = [[2, 2, 2, 0, 0, 0, 0, 0]] * HEIGHT
    for box in ([-3.5, -2, 6.5, 11.5], [0, 0, 3, 6]):
        one_file(tmp_path, instance(1, 1, 18, [polygon], bbox=box))
        assert mask(source(tmp_path)) == expected


# all of it


TINY = (
    *("data.size=32", "data.batch_size=2", "model.widths=[4,8]", "trainer=cpu"),
    *("trainer.precision=32", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
)


def test_a_training_by_the_command_line(command: Command, tmp_path: Path) -> None:
    official(tmp_path / "my")
    chosen = command("data=coco", "data.root=my", "data.categories=[cat,hair drier]", *TINY)
    assert chosen.returncode == 0, chosen.stdout
    assert "9 train, 1 val, 10 test images" in chosen.stdout
    assert "hair drier" in chosen.stdout
    assert "dog" not in chosen.stdout


def test_all_categories_odd_names_among_them_reach_every_part_of_a_training(
    tmp_path: Path,
) -> None:
    odd = ["traffic light", "door/window", 'it\'s "x", [b] {ä} $a\\b$']
    found = [{"id": n, "name": name} for n, name in enumerate(odd)]
    file = one_file(tmp_path / "my", *(instance(n, n, n % 3) for n in range(1, 7)), count=6)
    save(file, json.loads(file.read_text()) | {"categories": found})
    words = ["data=coco", f"data.root={tmp_path}/my", f"hydra.run.dir={tmp_path}/run", *TINY]
    result = train(compose(words))
    text_ = (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(text_)["protocol"]["classes"] == [
        "background",
        *odd[:2],
        'it\'s "x", [b] {ä} a\\b',
    ]
    assert "test/pixel_accuracy" in result.metrics


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.root=no"], "error: data.root=no is not a folder: give data.root=FOLDER with"),
        (["data.root=my", "data.categories=[cta]"], "Did you mean cat?"),
        (["--cfg", "job", "--resolve"], "error: data=coco needs to know where the data lies: give"),
    ],
)
def test_the_command_line_says_in_words_what_is_wrong(
    command: Command, tmp_path: Path, words: list[str], told: str
) -> None:
    one_file(tmp_path / "my")
    done = command("data=coco", *TINY, *words)
    assert done.returncode == 1
    assert told in done.stdout
    assert "Traceback" not in done.stdout and "resolving" not in done.stdout


def test_the_cache_of_pixels_notices_a_corrected_annotation(tmp_path: Path) -> None:
    def pixels() -> Pixels:
        dataset = source(tmp_path)
        samples = everything(dataset.splits())
        ordered = [samples[name] for name in sorted(samples)]
        return Pixels(ordered, source=dataset, reader=Reader((32, 32)), cache="disk")

    file = one_file(tmp_path, instance(1, 1))
    before = pixels()
    assert before.of("000000000001")[1].sum() > 0
    assert pixels().fingerprint == before.fingerprint
    file.write_text(file.read_text().replace('"image_id": 1', '"image_id": 2'))
    after = pixels()
    assert after.of("000000000001")[1].sum() == 0 and after.of("000000000002")[1].sum() > 0
    assert after.fingerprint != before.fingerprint


def test_sizes_that_contradict_the_file_stop_a_training_with_both(tmp_path: Path) -> None:
    one_file(tmp_path / "my", instance(1, 1))
    Image.new("RGB", (9, 6)).save(tmp_path / "my" / "images" / "000000000001.jpg")
    cfg = compose(["data=coco", f"data.root={tmp_path}/my", "data.batch_size=1"])
    dataset = source(tmp_path / "my")
    module = SegmentationDataModule(
        source=dataset,
        augment=lambda image, mask, *, seed: (image, mask),
        **{key: cfg.data[key] for key in ("size", "batch_size", "num_workers")},
        run_seed=0,
    )
    told = refusal(module.setup)
    assert "000000000001.jpg has 9x6 pixels, but its mask" in told and "has 8x6" in told


def test_pictures_that_no_file_lists_are_unused(tmp_path: Path) -> None:
    one_file(tmp_path, instance(1, 1))
    draw(tmp_path / "images", [picture(77)])
    (tmp_path / "images" / "notes.txt").touch()
    options = {"annotations": tmp_path / "my.json", "images": tmp_path / "images"}
    assert source(**options).splits().unused == [tmp_path / "images" / "000000000077.jpg"]


# names of other machines


FOREIGN = {
    "windows": "..\\..\\upload\\{}",
    "absolute": "/home/me/photos/{}",
    "drive": "C:\\photos\\{}",
    "address": "https://example.org/a%20b/{}?size=full",
    "other folder": "elsewhere/{}",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_names_of_another_machine_are_matched_by_their_last_part(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    images = [picture(n) for n in range(1, 6)]
    draw(tmp_path / "images", images)
    renamed = [image | {"file_name": FOREIGN[kind].format(image["file_name"])} for image in images]
    save(tmp_path / "my.json", content(renamed, [instance(1, 1)]))
    dataset = source(tmp_path)
    samples = everything(dataset.splits())
    assert sorted(s.image.name for s in samples.values()) == [f"{n:012d}.jpg" for n in range(1, 6)]
    assert dataset.mask(samples["000000000001"]).any()
    assert "5 of 5 images of" in caplog.text and "the last part of their names" in caplog.text


def test_a_last_part_that_fits_twice_is_told(tmp_path: Path) -> None:
    images = [picture(n) for n in range(1, 6)]
    draw(tmp_path / "images", images)
    for folder in ("a", "b"):
        draw(tmp_path / "images" / folder, [picture(7)])
    images.append(picture(7) | {"file_name": "/home/me/000000000007.jpg"})
    save(tmp_path / "my.json", content(images, []))
    (told,) = problems(source(tmp_path)).values()
    assert "names '/home/me/000000000007.jpg', but 2 files are called 000000000007.jpg" in told


# pictures that a phone turned


@pytest.mark.parametrize("upright", [True, False])
def test_polygons_lie_as_their_file_gives_the_size(tmp_path: Path, upright: bool) -> None:
    images = [picture(n) for n in range(1, 6)]
    draw(tmp_path / "images", images)
    file = tmp_path / "images" / "000000000001.jpg"
    stored = np.zeros((6, 8, 3), dtype=np.uint8)
    stored[:, :4] = 255  # bright on the left; upright, it is at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(file, exif=exif, quality=100, subsampling=0)
    if upright:
        images[0] |= {"height": 8, "width": 6}
    save(tmp_path / "my.json", content(images, [instance(1, 1)]))
    dataset = source(tmp_path)
    sample = everything(dataset.splits())["000000000001"]
    decoded = read_sample(sample, dataset, Reader((32, 32), fit="none"))
    seen = decoded.geometry.inside(torch.from_numpy(decoded.image)).numpy()[0] > 128
    expected = np.zeros((8, 6) if upright else (6, 8), dtype=bool)
    expected[(slice(4), slice(None)) if upright else (slice(None), slice(4))] = True
    assert np.array_equal(seen, expected)
