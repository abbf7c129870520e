"""A finished run is measured from its directory alone."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import Command, Train
from PIL import Image

import segpets
from segpets.config import compose
from segpets.data.decoded import read_sample
from segpets.errors import UserError
from segpets.evaluate import Result as Evaluation
from segpets.evaluate import evaluate
from segpets.inference.logits import class_ids
from segpets.metric import confusion_matrices, summarise
from segpets.train import Result

Measure = Callable[..., Evaluation]
FILES = {
    *("evaluation.json", "evaluation.md", "images.csv", "slices.csv"),
    *("confusion.png", "reliability.png", "boundary.png"),
}


@pytest.fixture(scope="session")
def varied(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, its last bias moved so that each class is predicted somewhere."""
    copy = tmp_path_factory.mktemp("varied") / "run"
    shutil.copytree(finished.path, copy)
    batch = next(iter(finished.datamodule.plain_dataloader("test")))
    mean = segpets.load(copy).logits(batch["image"]).mean((0, 2, 3))
    for file in (copy / "checkpoints").glob("*.ckpt"):
        saved = torch.load(file, weights_only=True)
        key = [name for name in saved["state_dict"] if name.endswith("bias")][-1]
        assert saved["state_dict"][key].shape == mean.shape
        saved["state_dict"][key] -= mean
        torch.save(saved, file)
    return copy


@pytest.fixture
def measure(varied: Path, tmp_path: Path) -> Measure:
    """measure("stage=val", folder="a") evaluates a run in this process."""

    def run(*overrides: str, folder: str = "evaluation", of: Path = varied) -> Evaluation:
        words = [f"run={of}", f"hydra.run.dir={tmp_path / folder}"]
        return evaluate(compose([*words, "resamples=99", *overrides], task="evaluate"))

    return run


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_numbers_are_those_of_the_runs_own_test(finished: Result, measure: Measure) -> None:
    found = measure(of=finished.path).metrics
    summary = json.loads((finished.path / "summary.json").read_text())
    tested = {name: value for name, value in summary.items() if name.startswith("test/")}
    assert len(tested) > 20
    for name, value in tested.items():
        assert np.float32(found[name]) == np.float32(value), name  # a run keeps float32


def test_a_folder_holds_everything_with_its_protocol(varied: Path, measure: Measure) -> None:
    result = measure()
    assert {file.name for file in result.path.iterdir()} >= FILES
    for figure in sorted(FILES):
        if figure.endswith(".png"):
            with Image.open(result.path / figure) as picture:
                assert min(picture.size) > 300
    record = json.loads((result.path / "evaluation.json").read_text())
    assert record == json.loads(json.dumps(result.record))
    protocol = record["protocol"]
    assert protocol["run"] == str(varied)
    expected = {
        "stage": "test",
        "images": {"train": 15, "val": 3, "test": 7},
        "evaluated": 7,
        "resolution": [64, 64],
        "labels": "trimap",
        "border": "a class of its own",
        "classes": ["pet", "background", "border"],
        "precision": "32-true",
        "augmentation": "none",
        "split": "holdout",
        "tta": "none",
        "data_of_the_training": True,
    }
    assert {key: protocol[key] for key in expected} == expected
    for part in ("intervals", "boundary", "calibration", "slices"):
        assert record[part]["protocol"], part
    assert record["versions"]["segpets"] == segpets.__version__
    value = record["intervals"]["test/mean_iou"]
    assert value["low"] <= value["value"] <= value["high"]
    assert value["value"] == pytest.approx(result.metrics["test/mean_iou"])
    assert np.array(record["confusion"]["pixels"]).sum() == 7 * 64 * 64


def test_each_image_has_a_row_and_each_breed_a_slice(finished: Result, measure: Measure) -> None:
    result = measure()
    rows = table(result.path / "images.csv")
    samples = list(finished.datamodule.splits.test)
    assert [row["name"] for row in rows] == [sample.name for sample in samples]
    assert [row["breed"] for row in rows] == [sample.attributes["breed"] for sample in samples]
    for row in rows:
        ious = [float(row[f"iou/{name}"]) for name in ("pet", "background", "border")]
        assert float(row["mean_iou"]) == pytest.approx(np.mean(ious))
        areas = [float(row[f"area/{name}"]) for name in ("pet", "background", "border")]
        assert sum(areas) == pytest.approx(1)
    mean = np.mean([float(row["mean_iou"]) for row in rows])
    assert result.metrics["test/image_mean_iou"] == pytest.approx(mean, abs=1e-6)
    each = np.array(
        [[float(row[f"iou/{name}"]) for name in ("pet", "background", "border")] for row in rows]
    )
    kept = json.loads((result.path / "evaluation.json").read_text())["metrics"]
    assert kept["test/worst_class_iou"] == pytest.approx(each.min(1).mean(), abs=1e-6)
    assert kept["test/worst_images_iou"] == pytest.approx(each.mean(1).min(), abs=1e-6), "one of 7"
    assert kept["test/class_mean_iou"] == pytest.approx(each.mean(), abs=1e-6)
    assert kept["test/image_iou/border"] == pytest.approx(each[:, 2].mean(), abs=1e-6)
    text = (result.path / "evaluation.md").read_text()
    assert f"{each.min(1).mean():.4f}" in text and f"{each.mean(1).min():.4f}" in text
    parts = {(row["by"], row["value"]): row for row in table(result.path / "slices.csv")}
    assert parts["species", "cat"]["images"] == "5"
    assert parts["breed", "beagle"]["images"] == "2"
    assert sum(int(parts["object_size", s]["images"]) for s in ("small", "medium", "large")) == 7


def test_the_command_prints_a_table_and_says_where_everything_is(
    finished: Result, command: Command, tmp_path: Path
) -> None:
    done = command(f"run={finished.path}", "resamples=99", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    for words in ("test, 7 images at 64x64, labels trimap", "boundary", "ECE"):
        assert words in done.stdout
    assert "Over 7 images an interval is too narrow" in done.stdout
    pixels = np.concatenate(
        [finished.datamodule.pixels.of(s.name)[1].numpy() for s in finished.datamodule.splits.test]
    )
    border = (pixels == 2).mean()
    assert (
        f"border: {100 * border:.1f} % of the pixels. A model that never predicts it is right in "
        f"{100 - 100 * border:.1f} % of the pixels, with an IoU of 0; this one in "
    ) in " ".join(done.stdout.split())
    latest = tmp_path / "logs" / "evaluate" / "latest"
    assert {file.name for file in latest.iterdir()} >= FILES
    assert str(latest.resolve().relative_to(tmp_path)) in done.stdout


def test_the_border_merges_into_the_pet(measure: Measure) -> None:
    trimap, merged = measure(folder="a"), measure("labels=border_as_pet", folder="b")
    counts = np.array(trimap.record["confusion"]["pixels"])
    assert (counts.sum(0) > 0).all()
    pet, background = [0, 2], [1]
    assert merged.record["confusion"]["pixels"] == [
        [int(counts[np.ix_(truth, predicted)].sum()) for predicted in (pet, background)]
        for truth in (pet, background)
    ]
    assert merged.record["protocol"]["border"] == "counts as pet, in truth and prediction"
    assert "test/loss" not in merged.metrics


def test_the_borders_pixels_are_left_out(measure: Measure) -> None:
    trimap, without = measure(folder="a"), measure("labels=border_ignored", folder="b")
    truth = np.array(trimap.record["confusion"]["pixels"]).sum(1)
    counts = np.array(without.record["confusion"]["pixels"])
    assert counts.sum(1).tolist() == truth[:2].tolist()
    # No pixel that was right is now wrong, since one choice less was left.
    right = np.diag(np.array(trimap.record["confusion"]["pixels"]))
    assert (np.diag(counts) >= right[:2]).all()
    assert np.diag(counts).sum() > right[:2].sum()


def test_data_labels_says_the_same_as_labels(measure: Measure) -> None:
    one = measure("labels=border_as_pet", folder="a").metrics
    assert measure("data.labels=border_as_pet", folder="b").metrics == one


def test_classes_with_names_of_the_users_own_are_judged(
    train_tiny: Train, measure: Measure
) -> None:
    run = train_tiny("data.classes=[animal,rest,edge]", "trainer.max_epochs=1")
    found = measure(of=run.path).record["metrics"]
    assert found["test/iou/animal"] == pytest.approx(run.metrics["test/iou/animal"])


@pytest.mark.slow
def test_a_model_without_a_border_knows_the_protocols_without_one(
    train_tiny: Train, measure: Measure
) -> None:
    run = train_tiny("data.labels=border_as_pet", "trainer.max_epochs=1").path
    as_trained = measure(of=run, folder="a")
    assert as_trained.record["protocol"]["labels"] == "border_as_pet"
    ignored = measure("labels=border_ignored", of=run, folder="b")
    fewer = (np.array(r.record["confusion"]["pixels"]).sum() for r in (ignored, as_trained))
    assert next(fewer) < next(fewer)
    with pytest.raises(UserError, match="without a border, so it can't be judged under labels=tri"):
        measure("labels=trimap", of=run, folder="c")


def test_at_the_original_size_masks_are_taken_as_they_are(
    finished: Result, varied: Path, measure: Measure
) -> None:
    found = measure("resolution=original")
    trained, datamodule = segpets.load(varied), finished.datamodule
    total = torch.zeros(3, 3, dtype=torch.int64)
    for batch in datamodule.plain_dataloader("test"):
        for name, logits in zip(batch["name"], trained.logits(batch["image"]), strict=True):
            sample = next(s for s in datamodule.splits.test if s.name == name)
            decoded = read_sample(sample, datamodule.source, datamodule.reader)
            image, mask = decoded.image, decoded.whole_mask
            assert torch.equal(torch.from_numpy(image), batch["image"][batch["name"].index(name)])
            ids = class_ids(logits, (mask.shape[0], mask.shape[1]))
            total += confusion_matrices(ids[None], torch.from_numpy(mask)[None], 3)[0]
    assert found.record["confusion"]["pixels"] == total.tolist()
    expected = summarise(total, trained.classes)
    assert found.metrics["test/mean_iou"] == expected["mean_iou"]
    assert found.record["protocol"]["resolution"] == "each image's own size"
    assert total.sum() == sum(int(row["pixels"]) for row in table(found.path / "images.csv"))


@pytest.mark.slow
def test_several_views_stand_beside_the_plain_one(measure: Measure) -> None:
    plain = measure(folder="a")
    both = measure("tta=[flip,1.5]", folder="b")
    assert both.metrics == plain.metrics
    assert both.record["tta"]["metrics"].keys() == plain.metrics.keys() - {"test/loss"}
    assert len(both.record["tta"]["protocol"]["views"]) == 4
    assert both.record["tta"]["metrics"]["test/mean_iou"] != plain.metrics["test/mean_iou"]
    assert "tta_mean_iou" in table(both.path / "images.csv")[0]
    assert plain.record["tta"] is None


@pytest.mark.slow
def test_other_stages_are_seen_without_augmentation(finished: Result, measure: Measure) -> None:
    train = measure("stage=train")
    assert (
        train.record["protocol"]["evaluated"] == 15
    )  # the training itself drops what fills no batch
    assert measure("stage=train", folder="again").metrics == train.metrics


@pytest.mark.slow
def test_val_images_of_the_article_are_not_augmented_here(
    train_tiny: Train, measure: Measure
) -> None:
    run = train_tiny("data.split=article", "augment=article", "trainer.max_epochs=1").path
    val, test = (measure(f"stage={s}", of=run, folder=s) for s in ("val", "test"))
    names = {name.removeprefix("val/") for name in val.metrics}
    assert {n: val.metrics[f"val/{n}"] for n in names} == {
        n: test.metrics[f"test/{n}"] for n in names
    }
    for found in (val, test):  # val holds the test images: none is fitted and measured at once
        calibration = found.record["calibration"]
        assert "the other half" in calibration["protocol"]["temperature"]
        assert len(set(calibration["temperatures_used"])) == 2


def test_the_temperature_is_fitted_on_val(measure: Measure) -> None:
    test = measure(folder="a").record["calibration"]
    assert "3 val images" in test["protocol"]["temperature"]
    assert set(test["temperatures_used"]) == {test["temperature"]}
    val = measure("stage=val", folder="b").record["calibration"]
    assert val["temperature"] == pytest.approx(test["temperature"])  # of the same pixels
    assert len(set(val["temperatures_used"])) == 2


def other_data(root: Path, classes: str) -> list[str]:
    """Eight images of two classes in a folder of the user's own."""
    generator = np.random.default_rng(0)
    for kind, shape in (("images", (40, 50, 3)), ("masks", (40, 50))):
        (root / kind).mkdir(parents=True)
        for index in range(10):
            pixels = generator.integers(0, 256 if kind == "images" else 2, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{index}.png")
    return ["data=folder", f"data.root={root}", f"data.classes={classes}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stage=all"], "stage=all is unknown: choose train, val or test"),
        (["resolution=128"], "resolution=128 is unknown: choose model or original"),
        (["labels=species"], "labels=species is unknown: choose trimap, border_as_pet"),
        (["data.labels=species"], "doesn't know cat, dog"),
        (["tta=flip"], r"tta=flip must be a list, such as tta=\[flip"),
        (["tta=[flop]"], "tta=flop is unknown"),
        (["tta=[0.4]"], "choose a scale"),
        (["resamples=0"], "resamples=0 must be a whole number of at least 99"),
        (["boundary=0"], "boundary=0 must be a number above 0 and at most 0.5"),
        (["boundary=wide"], "boundary=wide must be a number above 0 and at most 0.5"),
        (["boundaries=0.02"], "boundaries=0.02 must be a list"),
        (["data.size=31"], "data.size=31 must be a whole number of at least 32"),
        (["checkpoint=worst"], "checkpoint=worst is unknown"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    words: list[str], message: str, measure: Measure
) -> None:
    with pytest.raises(UserError, match=message):
        measure(*words)


def test_data_of_other_classes_are_refused(measure: Measure, tmp_path: Path) -> None:
    words = other_data(tmp_path / "data", "[background,leaf]")
    with pytest.raises(UserError, match=r"doesn't know leaf, and the data don't have pet, border"):
        measure(*words)
    with pytest.raises(UserError, match="is for data with a border between pet and background"):
        measure(*words, "labels=trimap")


def test_a_split_without_images_is_said(measure: Measure, tiny_pets: Path, tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    (root / "images").symlink_to(tiny_pets / "images")
    shutil.copytree(tiny_pets / "annotations", root / "annotations", symlinks=True)
    (root / "annotations" / "test.txt").write_text("# none\n")
    with pytest.raises(UserError, match=r"test\.txt lists no images"):
        measure(f"data.root={root}")


def test_an_evaluation_is_never_overwritten(measure: Measure) -> None:
    measure()
    with pytest.raises(UserError, match=r"already holds an evaluation\.json"):
        measure()


@pytest.mark.slow
def test_masks_without_a_class_count_nowhere(
    train_tiny: Train, measure: Measure, tmp_path: Path
) -> None:
    words = [*other_data(tmp_path / "data", "[background,leaf]"), "data.ignore_value=255"]
    run = train_tiny(*words, "trainer.max_epochs=1")
    assert len(run.datamodule.splits.test) == 1
    name = run.datamodule.splits.test[0].name
    empty = Image.fromarray(np.full((40, 50), 255, dtype=np.uint8))
    empty.save(tmp_path / "data" / "masks" / f"{name}.png")
    with pytest.raises(UserError, match=r"no pixel of test counts"):
        measure("stage=test", of=run.path)
    overlapping = run.datamodule.splits.train[0].name
    empty.save(tmp_path / "data" / "masks" / f"{overlapping}.png")
    train = measure("stage=train", of=run.path, folder="train")
    protocol = train.record["protocol"]
    assert protocol["images_without_a_pixel_that_counts"] == 1
    assert (protocol["labels"], protocol["border"]) == (None, None)
    assert not protocol["data_of_the_training"]
    row = next(r for r in table(train.path / "images.csv") if r["name"] == overlapping)
    assert (row["mean_iou"], row["pixels"], row["object_size"]) == ("", "0", "")


def test_the_data_can_be_seen_at_another_size(measure: Measure) -> None:
    found = measure("data.size=96")
    assert found.record["protocol"]["resolution"] == [96, 96]
    assert np.array(found.record["confusion"]["pixels"]).sum() == 7 * 96 * 96
