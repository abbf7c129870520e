"""A run goes on, teaches and is judged with the images that it was trained on, or that is said."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpets.config import compose
from segpets.errors import UserError
from segpets.evaluate import evaluate
from segpets.train import Result, train

QUICK = ("data.size=32", "data.batch_size=2", "model.widths=[4,8]", "trainer=cpu")
SHORT = ("trainer.precision=32", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
LISTS = {"train": range(6), "val": range(6, 8), "test": range(8, 10)}


def add(root: Path, *numbers: int) -> None:
    """Adds images of noise, whose left half is leaf."""
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[:, :16] = 1
        for folder, pixels in (("images", noise), ("masks", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / f"{number:03}.png")


def write_lists(root: Path, **stages: range) -> None:
    for stage, numbers in stages.items():
        (root / f"{stage}.txt").write_text("".join(f"{number:03}\n" for number in numbers))


def trained(root: Path, run: Path, *words: str, classes: str = "[background,leaf]") -> Result:
    data = ["data=folder", f"data.root={root}", f"data.classes={classes}", f"hydra.run.dir={run}"]
    return train(compose([*data, *QUICK, *SHORT, *words]))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add(tmp_path / "data", *range(10))
    return tmp_path / "data"


def test_a_run_does_not_go_on_with_images_that_were_added(root: Path, tmp_path: Path) -> None:
    trained(root, tmp_path / "run")
    again = [f"resume={tmp_path / 'run'}", "trainer.max_epochs=2"]
    files = ("checkpoints/last.ckpt", "summary.json", "config.yaml")
    before = [(tmp_path / "run" / file).read_bytes() for file in files]
    add(root, *range(10, 30))
    with pytest.raises(
        UserError,
        match=r"train and val and test aren't those with which this run began.*init_from=",
    ):
        train(compose(again))
    assert [(tmp_path / "run" / file).read_bytes() for file in files] == before, "a completed run"
    for number in range(10, 30):
        for folder in ("images", "masks"):
            (root / folder / f"{number:03}.png").unlink()
    assert train(compose(again)).path == tmp_path / "run"


def test_a_run_does_not_go_on_with_another_list_or_another_mask(root: Path, tmp_path: Path) -> None:
    write_lists(root, **LISTS)
    trained(root, tmp_path / "run", "data.split=files")
    again = [f"resume={tmp_path / 'run'}", "trainer.max_epochs=2"]
    write_lists(root, train=range(4, 10), test=range(2, 4), val=range(0, 2))
    with pytest.raises(UserError, match="train and val and test aren't those"):
        train(compose(again))
    write_lists(root, **LISTS)
    Image.new("L", (32, 32), 1).save(root / "masks" / "003.png")
    with pytest.raises(UserError, match="images or masks have changed since this run began"):
        train(compose(again))


def test_bands_mean_the_same_in_a_run_its_teacher_and_its_judge(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(10):
        for seed, band in enumerate("rgn"):
            noise = np.random.default_rng([number, seed]).integers(0, 256, (32, 32), dtype=np.uint8)
            (root / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(root / "images" / f"{number:03}_{band}.png")
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[:, :16] = 1
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "masks" / f"{number:03}.png")
    order, other = (
        "data.bands=[" + ",".join(f"'{{stem}}_{band}'" for band in bands) + "]"
        for bands in ("rgn", "ngr")
    )
    one = trained(root, tmp_path / "one", order).path
    two = trained(root, tmp_path / "two", other).path

    def judged(*words: str) -> None:
        options = ["errors=0", "resamples=99", f"hydra.run.dir={tmp_path / 'judged'}"]
        evaluate(compose([*words, *options], task="evaluate"))

    with pytest.raises(
        UserError, match=r"trained with data\.bands=.*only models that see the same"
    ):
        judged(f"run=[{one},{two}]")
    with pytest.raises(UserError, match=r"teacher=.* was trained with data\.bands="):
        trained(root, tmp_path / "three", other, f"teacher={one}")
    with pytest.raises(UserError, match=r"give them in that order"):
        judged(f"run={one}", other)


def test_a_new_run_and_an_evaluation_say_that_images_cannot_be_listed(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(root, tmp_path / "run")
    told = "its training images can't be listed, as where the data have changed since"
    trained(root, tmp_path / "same", f"init_from={tmp_path / 'run'}")
    assert told not in caplog.text
    add(root, *range(10, 30))
    trained(root, tmp_path / "more", f"init_from={tmp_path / 'run'}")
    assert caplog.text.count(told) == 1
    words = [f"run={tmp_path / 'run'}", f"hydra.run.dir={tmp_path / 'judged'}", "errors=0"]
    evaluate(compose(words, task="evaluate"))
    assert caplog.text.count(told) == 2


@pytest.mark.slow
def test_images_that_other_classes_were_learnt_from_have_been_seen(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(root, tmp_path / "run")
    words = ("data.seed=1", f"init_from={tmp_path / 'run'}")
    trained(root, tmp_path / "other", *words, classes="[ground,leaf]")
    assert re.search(r"was trained on 1 of the 1 images of (val|test), such as", caplog.text)


def test_runs_judged_by_other_lists_have_other_protocols(root: Path, tmp_path: Path) -> None:
    write_lists(root, **LISTS)
    trained(root, tmp_path / "one", "data.split=files", "test=false")
    write_lists(root, train=range(4, 10), test=range(2, 4), val=range(0, 2))
    trained(root, tmp_path / "other", "data.split=files", "test=false")
    trained(root, tmp_path / "drawn", "data.split=holdout", "test=false")
    one, other, drawn = (
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("one", "other", "drawn")
    )
    assert one["data_fingerprint"] == other["data_fingerprint"]
    assert one["protocol"]["images"] == other["protocol"]["images"]
    assert one["protocol"]["samples"] != other["protocol"]["samples"]
    assert "samples" not in drawn["protocol"]  # names and seed decide, as in earlier versions' runs
