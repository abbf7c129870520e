"""Outlines of COCO become masks."""

import contextlib
import io
import json
import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from made_coco import (
    HEIGHT,
    RING,
    SQUARE,
    WIDTH,
    Json,
    compressed,
    content,
    draw,
    everything,
    instance,
    mask,
    one_file,
    picture,
    refusal,
    save,
    source,
    uncompressed,
)
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from segpets.data.decoded import read_sample
from segpets.data.reader import Reader


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
