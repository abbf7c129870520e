"""Near duplicates, and what two annotations of one photograph say of the labels."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from segpets.browse.ceiling import label_ceiling
from segpets.browse.duplicates import Pair, near_duplicates, thumbnail
from segpets.config import conf_dir
from segpets.data import OxfordPets
from segpets.data.reader import Reader

MINI = conf_dir().parent / "segpets" / "data" / "pets_mini"
WHOLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "oxford-iiit-pet-128"


def photographs(count: int) -> list[Image.Image]:
    files = sorted((MINI / "images").glob("*.jpg"))[:: 1036 // count][:count]
    return [Image.open(file).convert("RGB") for file in files]


def pairs_of(images: list[Image.Image]) -> list[Pair]:
    seen = [thumbnail(np.array(image.convert("RGB")).transpose(2, 0, 1)) for image in images]
    return near_duplicates(np.stack(seen))


def encoded(image: Image.Image, quality: int = 60) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content)


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    wide, high = image.size
    box = (left * wide, top * high, right * wide, bottom * high)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


COPIES = {
    "encoded anew": lambda image: encoded(image, 40),
    "smaller": lambda image: encoded(image.resize((90, 90))),
    "brighter": lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.2)),
    "grey": lambda image: encoded(image.convert("L").convert("RGB")),
    "mirrored": lambda image: encoded(ImageOps.mirror(image)),
    "cropped": lambda image: encoded(cut(image, 0.08, 0.02, 1.0, 0.93)),
    "cropped and mirrored": lambda image: encoded(ImageOps.mirror(cut(image, 0, 0.05, 0.9, 1))),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_others_and_nothing_else_is(how: str) -> None:
    images = photographs(40)
    (pair,) = pairs_of([*images, COPIES[how](images[7])])
    assert (pair.first, pair.second) == (7, 40)
    assert pair.mirrored == ("mirrored" in how)
    assert (pair.moved > 0.02) == ("cropped" in how)
    assert pair.same_view == (how in ("encoded anew", "smaller", "grey"))


def test_scenes_that_only_look_alike_are_no_copies() -> None:
    """As X-rays: the same large shapes, and other details."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    body = 150 * np.exp(-(columns**2 + (rows / 1.5) ** 2) * 2)
    details = generator.normal(0, 12, (9, 32, 32)).repeat(4, 1).repeat(4, 2)
    scenes = [Image.fromarray((body + d + 40).clip(0, 255).astype(np.uint8)) for d in details]
    assert pairs_of(scenes) == []
    (pair,) = pairs_of([*scenes, encoded(scenes[3])])
    assert (pair.first, pair.second) == (3, 9)


@pytest.mark.parametrize("frame", ["circle", "bars and a caption"])
def test_a_frame_that_all_share_makes_no_copies(frame: str) -> None:
    """As in endoscopy, or in stills of a film; a copy in such a frame is one."""
    rows, columns = np.mgrid[-1:1:128j, -1:1:128j]
    inside = rows**2 + columns**2 < 0.9 if frame == "circle" else abs(rows) < 0.7
    framed = []
    for image in photographs(20):
        pixels = np.asarray(image.resize((128, 128)), dtype=np.float32)
        pixels = np.where(inside[..., None], 128 + 0.3 * (pixels - 128), 0)
        if frame != "circle":
            pixels[112:120, 5:60:4], pixels[8:14, 70:110:3] = 255, 255
        framed.append(Image.fromarray(pixels.astype(np.uint8)))
    assert pairs_of(framed) == []
    (pair,) = pairs_of([*framed, encoded(framed[3])])
    assert (pair.first, pair.second) == (3, 20)


def test_plain_images_and_those_that_cannot_be_read_are_like_nothing() -> None:
    plain = [Image.new("RGB", (64, 64), (level,) * 3) for level in (0, 0, 128, 255)]
    assert pairs_of(plain) == []
    assert near_duplicates(np.zeros((0, 48, 48), dtype=np.float16)) == []
    assert pairs_of(plain[:1]) == []


def test_images_that_are_alike_only_when_they_are_small() -> None:
    generator = np.random.default_rng(0)
    large = generator.normal(0, 30, (8, 8)).repeat(6, 0).repeat(6, 1)
    fine = generator.choice([-60.0, 60.0], (2, 16, 16)).repeat(3, 1).repeat(3, 2)
    fine -= fine.reshape(2, 8, 6, 8, 6).mean((2, 4)).repeat(6, 1).repeat(6, 2)
    pair = (120 + large + fine).clip(0, 255).astype(np.float16)
    assert near_duplicates(pair) == []


def twice(root: Path, count: int) -> tuple[OxfordPets, list[Pair]]:
    """A folder in which the test images are those of training, annotated by somebody else."""
    for folder in ("images", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    for part, quality in (("trainval", 95), ("test", 70)):
        lines = []
        for index, image in enumerate(photographs(count)):
            name = f"beagle_{index + (100 if part == 'test' else 0)}"
            image.save(root / "images" / f"{name}.jpg", quality=quality)
            annotated(index, other=part == "test").save(root / f"annotations/trimaps/{name}.png")
            lines.append(f"{name} 1 2 1\n")
        (root / "annotations" / f"{part}.txt").write_text("".join(lines))
    source = OxfordPets(root=root, split="article")
    samples = [*source.splits().train, *source.splits().test]
    rows = {sample.name: row for row, sample in enumerate(samples)}
    pairs = [
        Pair(rows[f"beagle_{i}"], rows[f"beagle_{i + 100}"], 1.0, False, 0.0, 0.5)
        for i in range(count)
    ]
    return source, pairs


def annotated(index: int, *, other: bool) -> Image.Image:
    """Pet left of column 64, background right of it; the other hand draws it 4 + index further."""
    mask: NDArray[np.uint8] = np.full((128, 128), 2, dtype=np.uint8)
    mask[:, : 64 + (4 + index) * other] = 1
    return Image.fromarray(mask)


def test_the_ceiling_is_the_agreement_of_two_hands(tmp_path: Path) -> None:
    source, pairs = twice(tmp_path / "pets", 6)
    samples = [*source.splits().train, *source.splits().test]
    classes = ["pet", "background", "border"]
    ceiling = label_ceiling(pairs, samples, source, Reader((128, 128)), classes)
    assert ceiling is not None
    more = [4 + index for index in range(6)]  # columns that the other hand calls pet, of 128
    pet = 64 * 6 / sum(64 + m for m in more)
    background = sum(64 - m for m in more) / (64 * 6)
    assert ceiling.pairs == 6
    assert ceiling.iou.keys() == {"pet", "background"}, "no hand drew a border"
    assert ceiling.iou["pet"].mean == pytest.approx(pet)
    assert ceiling.iou["background"].mean == pytest.approx(background)
    assert ceiling.mean_iou.mean == pytest.approx((pet + background) / 2)
    assert ceiling.pixel_accuracy.mean == pytest.approx(1 - sum(more) / (128 * 6))
    one_by_one = [(64 / (64 + m) + (64 - m) / 64) / 2 for m in more]
    low, high = ceiling.mean_iou.low, ceiling.mean_iou.high
    assert low is not None and high is not None
    assert min(one_by_one) < low < ceiling.mean_iou.mean < high < max(one_by_one)


def test_three_annotations_of_a_photograph_are_one_photograph(tmp_path: Path) -> None:
    source, pairs = twice(tmp_path / "pets", 6)
    samples = [*source.splits().train, *source.splits().test]
    classes = ["pet", "background", "border"]
    more = [*pairs, Pair(pairs[0].second, pairs[1].second, 1.0, False, 0.0, 0.5)]
    ceiling = label_ceiling(more, samples, source, Reader((128, 128)), classes)
    assert ceiling is not None
    assert (ceiling.pairs, ceiling.photographs, ceiling.mean_iou.count) == (7, 5, 5)
    fewer = [more[0], *more[1:5], more[6]]  # 6 pairs of 4 photographs
    assert label_ceiling(fewer, samples, source, Reader((128, 128)), classes) is None


def test_few_pairs_and_copied_masks_say_nothing(tmp_path: Path) -> None:
    source, pairs = twice(tmp_path / "pets", 5)
    samples = [*source.splits().train, *source.splits().test]
    reader, classes = Reader((128, 128)), ["pet", "background", "border"]
    assert label_ceiling(pairs, samples, source, reader, classes) is not None
    assert label_ceiling(pairs[:4], samples, source, reader, classes) is None
    one = pairs[0]
    (samples[one.second].mask).write_bytes(samples[one.first].mask.read_bytes())
    assert label_ceiling(pairs, samples, source, reader, classes) is None
    annotated(0, other=True).save(samples[one.second].mask)
    mirrored = [Pair(one.first, one.second, 1.0, True, 0.0, 0.5), *pairs[1:]]
    assert label_ceiling(mirrored, samples, source, reader, classes) is None


def test_the_doctor_shows_pairs_and_lists_those_that_straddle(
    command: Command, tmp_path: Path
) -> None:
    twice(tmp_path / "pets", 6)
    overrides = ["data=oxford_pets", f"data.root={tmp_path / 'pets'}", "data.split=article"]
    done = command(*overrides, "doctor=true", "hydra.run.dir=out", module="segpets.browse")
    assert done.returncode == 0, done.stdout
    out = tmp_path / "out"
    said = re.sub(r"\s+", " ", done.stdout)
    assert "6 pairs of images of one photograph, 6 of them in two splits" in said
    assert "6 photographs have two masks or more, which agree to a mean IoU of 0.903, 95 %" in said
    with (out / "duplicates.csv").open() as table:
        rows = list(csv.DictReader(table))
    stages = [{row["first"]: row["first_in"], row["second"]: row["second_in"]} for row in rows]
    expected = [{f"beagle_{i}": "train", f"beagle_{i + 100}": "test"} for i in range(6)]
    assert sorted(map(sorted, stages)) == sorted(map(sorted, expected))
    assert all(pair in expected for pair in stages)
    lines = (out / "duplicates.txt").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert sorted(listed) == [
        f"beagle_{i}  # images/beagle_{i}.jpg, as images/beagle_{i + 100}.jpg of test"
        for i in range(6)
    ]
    ceiling = json.loads((out / "ceiling.json").read_text())
    assert ceiling["pairs"] == 6
    assert ceiling["protocol"]["resolution"] == [128, 128]
    with Image.open(out / "duplicates.png") as sheet:  # a row of four pictures, in two columns
        assert sheet.size == (2 * (4 * 128 + 4), 2 * 16 + 3 * (128 + 16))
    page = (out / "browse.html").read_text()
    assert "6 photographs have two masks or more" in page and page.count("beagle_3 (train)") >= 1
    # The list is one for data.exclude, after which a training has no copies of the test images.
    exclude = f"data.exclude={out / 'duplicates.txt'}"
    again = command(
        *overrides, exclude, "doctor=true", "hydra.run.dir=again", module="segpets.browse"
    )
    assert "train 0 images" in re.sub(r"[\s│]+", " ", again.stdout)


def test_folds_part_two_images_of_one_photograph(command: Command, tmp_path: Path) -> None:
    twice(tmp_path / "pets", 6)
    lists = [tmp_path / "pets" / "annotations" / f"{name}.txt" for name in ("trainval", "test")]
    first, second = (file.read_text() for file in lists)
    *pairs, left = second.splitlines(keepends=True)
    for file, text in zip(lists, (first + "".join(pairs), left), strict=True):
        file.write_text(text)
    words = ["data=oxford_pets", f"data.root={tmp_path / 'pets'}", "doctor=true"]
    counts = {}
    for folds in ((), ("data.folds=2", "data.fold=0")):
        out = tmp_path / f"out{len(folds)}"
        done = command(*words, *folds, f"hydra.run.dir={out}", module="segpets.browse")
        assert done.returncode == 0, done.stdout
        lines = (out / "duplicates.txt").read_text().splitlines()
        listed = [line.partition(" ")[0] for line in lines if line[0] != "#"]
        counts[len(folds)] = sorted(int(name.rpartition("_")[2]) % 100 for name in listed)
    assert counts[2] == [*range(6)], "one of each pair, whatever the fold"
    assert set(counts[0]) < set(counts[2]), "those of one stage may count twice in it"
    assert "6 of them in two splits or folds" in " ".join(done.stdout.split())


@pytest.mark.parametrize("size", ["32", "64", "48 data.fit=letterbox"])
def test_the_size_of_the_training_hides_no_copy(
    command: Command, tmp_path: Path, size: str
) -> None:
    """A folder of its own: a name that is no safe one is shown by its file, too."""
    for stage in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / "set" / stage / kind).mkdir(parents=True)
    images = photographs(12)
    stages = ["train", "val", "test"]
    for i, image in enumerate([*images, cut(images[0], 0.06, 0, 1, 0.94), encoded(images[3])]):
        folder = tmp_path / "set" / stages[i % 3]
        image.save(folder / "images" / f"a photo {i}.png")
        annotated(i % 3, other=True).point(lambda v: v - 1).resize(image.size, 0).save(
            folder / "masks" / f"a photo {i}.png"
        )
    words = ["data=folder", f"data.root={tmp_path / 'set'}", "data.classes=[pet,rest]"]
    words += [f"data.size={size.split()[0]}", *size.split()[1:], "doctor=true"]
    done = command(*words, "hydra.run.dir=out", module="segpets.browse")
    assert done.returncode == 0, done.stdout
    with (tmp_path / "out" / "duplicates.csv").open() as table:
        rows = list(csv.DictReader(table))
    files = {frozenset((row["first_file"], row["second_file"])) for row in rows}
    assert files == {
        frozenset(("train/images/a photo 0.png", "train/images/a photo 12.png")),
        frozenset(("train/images/a photo 3.png", "val/images/a photo 13.png")),
    }
    listed = (tmp_path / "out" / "duplicates.txt").read_text()
    assert "# train/images/a photo 3.png, as val/images/a photo 13.png of val" in listed


@pytest.mark.slow
@pytest.mark.skipif(not WHOLE.is_dir(), reason="needs the whole data set at 128x128")
def test_all_copies_of_the_whole_set_are_found() -> None:
    """The oracle compares thumbnails of 24x24 of all images, which finds 42 pairs."""
    files = sorted((WHOLE / "images").glob("*.jpg"))
    listed = {
        line.split()[0]
        for part in ("trainval", "test")
        for line in (WHOLE / "annotations" / f"{part}.txt").read_text().splitlines()
    }
    images = [Image.open(file).convert("RGB") for file in files if file.stem in listed]
    small = np.stack([np.asarray(image.resize((24, 24), Image.Resampling.BOX)) for image in images])
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = np.triu(flat @ flat.T, 1) > 0.985
    oracle = set(zip(*(rows.tolist() for rows in np.nonzero(alike)), strict=True))
    assert len(oracle) == 42
    found = pairs_of(images)
    assert oracle <= {(pair.first, pair.second) for pair in found}
    assert len(found) == 49, "seven more were looked at: cropped, mirrored, grey, cut out"
    names = [file.stem for file in files if file.stem in listed]
    test = {
        line.split()[0] for line in (WHOLE / "annotations" / "test.txt").read_text().splitlines()
    }
    pairs = [{names[pair.first], names[pair.second]} for pair in found]
    straddling = [pair for pair in pairs if len(pair & test) == 1]
    shipped = (MINI.parent / "oxford_pets_duplicates.txt").read_text().splitlines()
    left_out = [line.split()[0] for line in shipped if not line.startswith("#")]
    assert sorted(left_out) == sorted((pair - test).pop() for pair in straddling)
