"""The command predict, as one types it, and the three lines of Python."""

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from fixture_types import Command
from omegaconf import DictConfig
from PIL import Image

import segpets
from segpets.config import compose
from segpets.errors import UserError
from segpets.inference.logits import class_ids
from segpets.inference.single import as_picture
from segpets.inference.trained import Trained
from segpets.predict import predict, recipe
from segpets.predict.batch import Outcome, predict_all
from segpets.predict.recipe import PredictSettings, _foreground
from segpets.train import Result, train

PETS_MINI = Path(segpets.__file__).parent / "data" / "pets_mini" / "images"


@pytest.fixture(scope="module")
def trained(finished: Result) -> Trained:
    return segpets.load(finished.path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A photo of a pet, one on its side in a folder of its own, and one that is no picture."""
    root = tmp_path / "my photos (1)"
    (root / "sub").mkdir(parents=True)
    first, second = sorted(PETS_MINI.glob("*.jpg"))[:2]
    with Image.open(first) as image:
        image.resize((150, 100)).save(root / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(second) as image:
        image.resize((120, 80)).save(root / "sub" / "a.jpg", exif=exif)
    return root


Config = Callable[..., DictConfig]


@pytest.fixture
def config(finished: Result, photos: Path, tmp_path: Path) -> Config:
    """config("tile=64") predicts the photos to tmp_path/out, unless it is told otherwise."""

    def make(*words: str) -> DictConfig:
        defaults = {"source": f"'{photos}'", "output": str(tmp_path / "out")}
        keys = {word.partition("=")[0] for word in words}
        given = [f"{key}={value}" for key, value in defaults.items() if key not in keys]
        words = (f"hydra.run.dir={tmp_path / 'log'}", *words)
        return compose([f"run={finished.path}", *given, *words], task="predict")

    return make


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


TOLD = ("predictions.csv", "prediction.json")  # written at each start


def files(folder: Path) -> dict[str, int]:
    """All files, and when they were written."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in found}


def test_a_test_image_gives_the_logits_of_the_test(finished: Result, trained: Trained) -> None:
    batch = next(iter(finished.datamodule.test_dataloader()))
    logits = trained.logits(batch["image"])
    for name, one in zip(batch["name"], logits, strict=True):
        expected = class_ids(one, (128, 128)).numpy()
        assert (trained.predict(PETS_MINI / f"{name}.jpg") == expected).mean() > 0.999


def test_pictures_of_all_kinds_are_predicted_from_python(
    trained: Trained, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    with Image.open(photos / "sub" / "a.jpg") as image:
        turned = image.transpose(Image.Transpose.ROTATE_270)
        turned.save(file)
        expected = trained.predict(file)
        assert np.array_equal(trained.predict(image), expected)  # its EXIF is heeded
    assert expected.shape == (120, 80)
    assert expected.dtype == np.uint8
    assert expected.max() < 3
    array = np.asarray(turned)
    assert np.array_equal(trained.predict(array), expected)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert np.array_equal(trained.predict(tensor), expected)
    assert trained.predict(array[:, :, 0]).shape == (120, 80)
    assert trained.predict(array, tile=64).shape == (120, 80)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((9, 9, 3)), r"holds float64.*astype\(np.uint8\)"),
        (torch.zeros(3, 9, 9), r"holds torch.float32.*mul\(255\).byte"),
        (np.zeros((9, 9, 4), np.uint8), r"shape \(9, 9, 4\)"),
        (np.zeros((1, 9, 9, 3), np.uint8), r"shape \(1, 9, 9, 3\)"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), r"shape \(9, 9, 3\)"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels"),
        ([[0]], "type list"),
        ("nowhere.jpg", "can't be opened"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(
    trained: Trained, image: object, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        trained.predict(image)


@pytest.mark.slow
def test_the_command_writes_what_one_sees(command: Command, finished: Result, photos: Path) -> None:
    (photos / "bad.jpg").write_text("no picture")
    words = [f"run={finished.path}", f"source='{photos}'", "output=out", "background=blur"]
    done = command(*words, module="segpets.predict")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert f"{photos}/bad.jpg is not an image that can be read: replace it" in done.stdout
    assert "1 of 3 pictures failed" in done.stdout
    out = photos.parent / "out"
    assert set(files(out)) == {
        *TOLD,
        *(f"masks/{name}.png" for name in ("a", "sub/a")),
        *(f"overlays/{name}.jpg" for name in ("a", "sub/a")),
        *(f"cutouts/{name}.png" for name in ("a", "sub/a")),
        *(f"composites/{name}.jpg" for name in ("a", "sub/a")),
    }
    for name, size in {"a": (150, 100), "sub/a": (80, 120)}.items():
        with Image.open(out / "masks" / f"{name}.png") as mask:
            assert (mask.mode, mask.size) == ("L", size)
            ids = np.asarray(mask)
        assert np.array_equal(ids, segpets.load(finished.path).predict(photos / f"{name}.jpg"))
        with Image.open(out / "cutouts" / f"{name}.png") as cutout:
            assert (cutout.mode, cutout.size) == ("RGBA", size)
            assert np.array_equal(np.asarray(cutout)[..., 3] > 127, ids != 1)
        row = rows(out)[name]
        assert (int(row["width"]), int(row["height"])) == size
        assert float(row["share_background"]) == pytest.approx((ids == 1).mean(), abs=1e-6)
        assert 1 / 3 < float(row["confidence"]) <= 1
        assert row["masks"] == f"masks/{name}.png"
    assert "is not an image" in rows(out)["bad"]["error"]

    (photos / "bad.jpg").unlink()
    before = files(out)
    again = command(*words, module="segpets.predict")
    assert again.returncode == 0, again.stdout
    assert "2 were there already; overwrite=true makes them anew" in again.stdout
    assert {k: v for k, v in files(out).items() if k not in TOLD} == {
        k: v for k, v in before.items() if k not in TOLD
    }


def test_a_prediction_that_was_killed_goes_on(config: Config, tmp_path: Path) -> None:
    predict(config())
    out = tmp_path / "out"
    (out / "cutouts" / "a.png").unlink()
    before = files(out)
    result = predict(config())
    assert (len(result.outcomes), result.skipped) == (1, 1)
    after = files(out)
    assert set(after) == set(before) | {"cutouts/a.png"}
    assert all(after[name] == before[name] for name in before if name not in TOLD)
    assert len(predict(config("overwrite=true")).outcomes) == 2
    assert all(files(out)[name] > time for name, time in after.items())


def test_a_folder_holds_the_predictions_of_one_model(
    config: Config, finished: Result, photos: Path, tmp_path: Path
) -> None:
    predict(config())
    before = files(tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(finished.path, other)
    assert predict(config(f"run={other}")).skipped == 2  # the same weights, moved
    weights = torch.load(other / "checkpoints" / "best.ckpt", weights_only=True)
    for name in weights["state_dict"]:
        weights["state_dict"][name] = weights["state_dict"][name] * 0.5
    torch.save(weights, other / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"by another model \(.*, epoch \d+\), and a folder holds"):
        predict(config(f"run={other}"))
    with pytest.raises(UserError, match="give all pictures that it holds with overwrite=true"):
        predict(config(f"run={other}", f"source='{photos / 'a.jpg'}'", "overwrite=true"))
    assert {k: v for k, v in files(tmp_path / "out").items() if k.startswith("masks")} == {
        k: v for k, v in before.items() if k.startswith("masks")
    }
    assert len(predict(config(f"run={other}", "overwrite=true")).outcomes) == 2
    assert predict(config(f"run={other}")).skipped == 2


def test_what_an_interrupted_overwrite_leaves_is_predicted_by_the_new_model(
    config: Config, finished: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(config())
    other = tmp_path / "other"
    shutil.copytree(finished.path, other)
    weights = torch.load(other / "checkpoints" / "best.ckpt", weights_only=True)
    for name in weights["state_dict"]:
        weights["state_dict"][name] = weights["state_dict"][name] * 0.5
    torch.save(weights, other / "checkpoints" / "best.ckpt")

    def one_and_no_more(*args: Any) -> Iterator[Outcome]:
        yield next(iter(predict_all(*args)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recipe, "predict_all", one_and_no_more)
        predict(config(f"run={other}", "overwrite=true"))
    result = predict(config(f"run={other}"))
    assert (len(result.outcomes), result.skipped) == (1, 1)
    found = {name: row["confidence"] for name, row in rows(tmp_path / "out").items()}
    predict(config(f"run={other}", f"output={tmp_path / 'fresh'}"))
    assert found == {n: row["confidence"] for n, row in rows(tmp_path / "fresh").items()}


def test_a_name_that_is_no_utf8_is_known_again(config: Config, photos: Path) -> None:
    os.rename(photos / "a.jpg", os.fsencode(photos) + b"/blat\xe9.jpg")
    assert len(predict(config()).outcomes) == 2
    assert predict(config()).skipped == 2


def test_a_folder_holds_predictions_of_one_setting(config: Config, tmp_path: Path) -> None:
    predict(config("outputs=[masks]"))
    with pytest.raises(UserError, match="holds predictions with tile=null"):
        predict(config("outputs=[masks]", "tile=64"))
    with pytest.raises(UserError, match=r"with foreground=\['pet', 'border'\]"):
        predict(config("foreground=[pet]"))
    predict(config("background=green"))  # composites, which weren't there
    predict(config("outputs=[masks]"))
    with pytest.raises(UserError, match="holds predictions with background=green"):
        predict(config("background=blur"))
    assert json.loads((tmp_path / "out" / "prediction.json").read_text())["background"] == "green"
    predict(config("background=blur", "overwrite=true"))


def test_another_source_of_the_same_name_overwrites_nothing(
    config: Config,
    photos: Path,
    tmp_path: Path,
) -> None:
    predict(config("outputs=[masks]"))
    before = (tmp_path / "out" / "masks" / "a.png").read_bytes()
    (tmp_path / "other").mkdir()
    Image.new("RGB", (70, 50)).save(tmp_path / "other" / "a.jpg")
    predict(config("outputs=[masks]", f"source={tmp_path / 'other'}"))
    assert (tmp_path / "out" / "masks" / "a.png").read_bytes() == before
    with Image.open(tmp_path / "out" / "masks" / "a.jpg.png") as mask:
        assert mask.size == (70, 50)
    assert {row["source"] for row in rows(tmp_path / "out").values()} == {
        str(photos / "a.jpg"),
        str(photos / "sub" / "a.jpg"),
        str(tmp_path / "other" / "a.jpg"),
    }


def test_the_output_may_lie_among_the_sources(config: Config, photos: Path) -> None:
    for _ in range(2):
        result = predict(config(f"output='{photos}'", "overwrite=true"))
        assert {o.source.name for o in result.outcomes} == {"a", "sub/a"}


def test_tiles_and_a_foreground_of_ones_own(config: Config, tmp_path: Path) -> None:
    predict(config("tile=64", "foreground=[border]", "outputs=[masks,cutouts]", "zoom=1.2"))
    out = tmp_path / "out"
    with Image.open(out / "masks/sub/a.png") as mask, Image.open(out / "cutouts/sub/a.png") as cut:
        assert mask.size == cut.size == (80, 120)
        assert np.array_equal(np.asarray(cut)[..., 3] > 127, np.asarray(mask) == 2)
    assert (out / "composites" / "a.jpg").is_file()


def test_views_are_averaged_before_the_classes_are_weighed(
    config: Config, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    predict(config("outputs=[masks]", f"output={tmp_path / 'plain'}"))
    weights = [1.0, 1.0, 2.5]
    predict(config("outputs=[masks]", "tta=[flip]", f"decide={weights}"))
    with Image.open(photos / "a.jpg") as image:
        fitted = as_picture(image, trained.reader).fitted()[None]
    probs = trained.logits(fitted).softmax(1) + trained.logits(fitted.flip(-1)).softmax(1).flip(-1)
    expected = class_ids((probs * torch.tensor(weights).view(-1, 1, 1)).log()[0], (100, 150))
    with Image.open(tmp_path / "out/masks/a.png") as mask:
        assert (np.asarray(mask) == expected.numpy()).mean() > 0.999
    with Image.open(tmp_path / "plain/masks/a.png") as mask:
        assert (np.asarray(mask) != expected.numpy()).mean() > 0.001
    with pytest.raises(UserError, match=r"holds predictions with decide=\[1.0, 1.0, 2.5\], tta="):
        predict(config("outputs=[masks]"))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["tta=[flop]"], "tta=flop is unknown: choose flip"),
        (["tta=[flip]", "decide=[1,2]"], "decide has 2 weights, but the model has 3 classes"),
        (["tta=[0.25]", "tile=64"], "makes images of 64 pixels too small"),
        (
            ["outputs=[mask]"],
            "outputs=mask is unknown. Did you mean outputs=masks",
        ),
        (["outputs=[composites]"], "background=blur or zoom=1.3 asks for composites"),
        (["outputs=[]"], "nothing to do"),
        (["zoom=0.5"], "zoom=0.5 must be a number from 1 to 100"),
        (["zoom=big"], "zoom=big must be a number"),
        (["tile=8"], "tile=8 must be a whole number of at least 32"),
        (["batch_size=0"], "batch_size=0 must be a whole number of at least 1"),
        (["overwrite=maybe"], "overwrite=maybe must be true or false"),
        (["background=gren"], "background=gren is neither blur"),
        (["foreground=[dog]"], "foreground=dog: the run has no such class. It has pet, back"),
        (["source=nowhere"], "there is no file or folder"),
        (["source=[]"], "source has no value"),
    ],
)
def test_what_means_nothing_is_refused(config: Config, words: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        predict(config(*words))


def test_an_output_that_cannot_be_written_is_told_before_a_model_is_loaded(
    config: Config,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/predicted")):
        with pytest.raises(UserError, match=r"can't be written .* choose another folder"):
            predict(config(f"output={output}"))


def test_a_table_of_another_kind_is_left_alone(config: Config, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "predictions.csv"
    table.write_text("mine,yours\n1,2\n")
    with pytest.raises(UserError, match=r"is no table of segpets\.predict, .* mine, yours: choose"):
        predict(config())
    assert table.read_text() == "mine,yours\n1,2\n"
    table.write_text("")  # what a killed prediction may leave
    assert len(predict(config()).outcomes) == 2


@pytest.mark.slow
def test_a_folder_of_other_classes_is_left_alone(
    command: Command, config: Config, finished: Result, photos: Path, tmp_path: Path
) -> None:
    predict(config("outputs=[masks]"))
    table = tmp_path / "out" / "predictions.csv"
    header, *lines = table.read_text().splitlines()
    header = header.replace("share_pet,share_background,share_border", "share_soil,share_leaf")
    text = "\n".join([header, *(line.replace("share", "") for line in lines)])
    table.write_text(text)
    words = [f"run={finished.path}", f"source='{photos}'", "output=out"]
    done = command(*words, module="segpets.predict")
    assert done.returncode == 1
    assert (
        "error: out holds predictions of other classes, soil, leaf, while this run has pet, "
        "background, border: choose another output=" in " ".join(done.stdout.split())
    )
    assert table.read_text() == text


def test_a_name_in_the_table_leads_nowhere_else(
    config: Config,
    photos: Path,
    tmp_path: Path,
) -> None:
    predict(config("outputs=[masks]"))
    table = tmp_path / "out" / "predictions.csv"
    table.write_text(table.read_text().replace("a.jpg,a,", "a.jpg,../../stolen,"))
    with pytest.raises(UserError, match=r"masks/a\.png is there, and no prediction wrote it"):
        predict(config("outputs=[masks]"))
    assert not list(tmp_path.rglob("stolen*"))


def test_a_run_without_a_background_says_so(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    settings = PredictSettings.of(config("outputs=[cutouts]"))
    with caplog.at_level(logging.WARNING):
        assert _foreground(settings, ["sky", "road"]) == [True, True]
    assert "No class is called background" in caplog.text
    assert _foreground(settings, ["Background", "leaf"]) == [False, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # of the mask
def test_a_picture_of_108_million_pixels_is_predicted_within_2_gb(
    finished: Result, tmp_path: Path
) -> None:
    with Image.open(min(PETS_MINI.glob("*.jpg"))) as image:
        image.resize((12_000, 9_000)).save(tmp_path / "large.jpg")
    words = [f"run={finished.path}", "source=large.jpg", "output=out"]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-m", "segpets.predict", *words]
    root = str(Path(segpets.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) * 1024 < 2 * 1024**3
    with Image.open(tmp_path / "out" / "masks" / "large.png") as mask:
        assert mask.size == (12_000, 9_000)


@pytest.mark.slow
def test_stacks_and_bands_are_predicted_as_they_are_trained_on(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for place in ("images", "masks"):
        (tmp_path / "data" / place).mkdir(parents=True)
    for index in range(12):
        for place in ("images", "masks"):
            file = tmp_path / "data" / place / f"v{index}.tif"
            with tifffile.TiffWriter(file) as writer:
                for _ in range(2):
                    pixels = random.integers(0, 255 if place == "images" else 2, (40, 48))
                    writer.write(pixels.astype(np.uint8), photometric="minisblack")
    words = [
        *("data=folder", f"data.root={tmp_path}/data", "data.classes=[background,cell]"),
        *("data.pages=each", "data.channels=1", "data.size=32", "model.widths=[4,8]", "logger=[]"),
        *("trainer.max_epochs=1", "trainer=cpu", "data.cache=none", "data.batch_size=4"),
    ]
    train(compose([*words, f"hydra.run.dir={tmp_path}/run"]))
    given = [f"run={tmp_path}/run", f"source={tmp_path}/data/images", f"output={tmp_path}/p"]
    cfg = compose([*given, "outputs=[masks]"], task="predict")
    result = predict(cfg)
    assert len(result.outcomes) == 24 and not result.failed
    masks = sorted(file.name for file in (tmp_path / "p" / "masks").iterdir())
    assert masks[:2] == ["v0-page1.png", "v0-page2.png"]
    assert predict(cfg).skipped == 24
    assert len((tmp_path / "p" / "predictions.csv").read_text().splitlines()) == 25


def test_a_picture_of_more_bits_than_the_models_is_to_be_converted(
    config: Config, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its remedy is no key of a training, which a prediction hasn't."""
    deep = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(deep).save(photos / "deep.png")
    result = predict(config("outputs=[masks]"))
    (failed,) = [outcome for outcome in result.outcomes if outcome.error]
    assert "the model was trained on 8 bits: convert it" in str(failed.error)
    assert "data.range" not in caplog.text
