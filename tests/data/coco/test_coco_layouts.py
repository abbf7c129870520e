"""Which files of COCO are found, and which stages and classes they make."""

import json
import logging
from pathlib import Path

import pytest
from made_coco import (
    Json,
    content,
    draw,
    everything,
    instance,
    names,
    official,
    one_file,
    picture,
    problems,
    refusal,
    save,
    source,
)

from segpets.data.coco.files import categories, class_names, find_files


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
