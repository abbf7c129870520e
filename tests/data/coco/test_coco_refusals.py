"""Files of COCO that can't be used."""

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_coco import (
    RING,
    SQUARE,
    compressed,
    content,
    draw,
    everything,
    instance,
    one_file,
    picture,
    problems,
    refusal,
    save,
    source,
    uncompressed,
)

from segpets.errors import FileError, UserError


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
