"""Runs of others, and damaged ones: nothing of them is run, and what is lost is said."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from made_comparison import FILES, HOSTILE, Page, compared, rows
from made_runs import drawn, make_run
from PIL import Image


def test_what_runs_are_called_is_text_everywhere(tmp_path: Path) -> None:
    classes = ("pet", HOSTILE, "x_{1}$")
    runs = [
        make_run(
            tmp_path / f"run <b> '{i}'",
            f"model={HOSTILE}{i}",
            f"{HOSTILE}.key={i}" + "long" * 200,
            counts=drawn(0.5 + i / 5),
            classes=classes,
            breeds=[HOSTILE] * 12,
            protocol={"split": HOSTILE, HOSTILE: HOSTILE},
        )
        for i in range(2)
    ]
    runs.append(make_run(tmp_path / "bad", status=HOSTILE, error=HOSTILE))
    path = compared(*runs, folder=tmp_path / "out").path
    page = Page((path / "compare.html").read_text())
    assert not page.tags & {"img", "b"}
    assert not {key for key in page.attributes if key.startswith("on")}
    assert page.text.count(HOSTILE) > 20
    row = rows(path / "compare.csv")[0]
    assert row["override.model"] == f"{HOSTILE}1"
    assert f"test/iou/{HOSTILE}" in row


def test_half_letters_and_steering_signs_do_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = "\ud800 \x1b[2J \x9b \x07"
    runs = [
        make_run(tmp_path / f"{i}\udcff", f"model={odd}{i}", counts=drawn(0.5 + i / 5))
        for i in range(2)
    ]
    runs.append(make_run(tmp_path / "bad", status="failed", error=odd))
    with caplog.at_level("INFO", logger="segpets.compare"):
        result = compared(*runs, folder=tmp_path / "out")
    assert not set("\ud800\x1b\x9b\x07\udcff") & set(caplog.text)
    assert {file.name for file in result.path.iterdir()} == FILES
    assert "model=? ?[2J ? ?1" in caplog.text


def test_a_protocol_may_have_any_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = [make_run(tmp_path / "a", "model=a")]
    runs.append(make_run(tmp_path / "b", "model=b", protocol={"{x}{0}": "{y}"}))
    with caplog.at_level("INFO", logger="segpets.compare"):
        compared(*runs, folder=tmp_path / "out")
    assert "{x}{0}: {y}" in caplog.text


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "os.mkdir", "path": "made"}, "the data source os.mkdir is none"),
        ({"_target_": "segpets.data.SegmentationDataModule"}, "is none of segpets' own"),
        ({"_target_": "segpets.data.Source"}, "is none of segpets' own"),
        ({"_target_": "segpets.data.OxfordPets", "root": "nowhere"}, "nowhere"),
        ({"_target_": "segpets.data.OxfordPets", "root": {"_target_": "os.getcwd"}}, "Only"),
        ({"_target_": "segpets.data.OxfordPets", "rout": "x"}, "root"),
        ({}, "config.yaml names no data source"),
        ({"_target_": "Coco"}, "is none of segpets' own"),
        (None, "config.yaml names no data source"),
    ],
)
def test_no_config_of_a_run_starts_anything_foreign(
    node: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = []
    for model, right in (("a", 0.9), ("b", 0.4)):
        config = {"data": {"module": {"source": node}}}
        runs.append(
            make_run(tmp_path / model, f"model={model}", counts=drawn(right), config=config)
        )
        for i in range(12):
            Image.new("L", (64, 64), i % 3).save(
                runs[-1] / f"predictions/test/masks/image_{i:03d}.png"
            )
    result = compared(*runs, folder=tmp_path / "out", images=2)
    page = Page((result.path / "compare.html").read_text())
    assert said in page.text
    assert sum(a.startswith("data:image/") for a in page.addresses) == 2 * 2
    assert not (tmp_path / "made").exists()


def test_masks_that_are_none_and_names_that_lead_elsewhere_are_left_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("L", (64, 64)).save(secret)
    names = ["../" * 9 + str(secret)[1:-4], "good", "bad", "wide"]
    runs = []
    for model, right in (("a", 0.9), ("b", 0.4)):
        run = make_run(
            tmp_path / model, f"model={model}", counts=drawn(right, images=4), names=names
        )
        masks = run / "predictions/test/masks"
        Image.new("L", (64, 64)).save(masks / "good.png")
        (masks / "bad.png").write_bytes(b"\x89PNG")
        Image.new("RGB", (8, 8)).save(masks / "wide.png")
        runs.append(run)
    page = Page((compared(*runs, folder=tmp_path / "out").path / "compare.html").read_text())
    assert sum(a.startswith("data:image/") for a in page.addresses) == 2
    assert "secret" not in page.text
    for rank in (1, 2):
        assert f"#{rank}: of 3 predicted masks 2 are missing, can't be read" in page.text


def damaged(run: Path, how: str) -> None:
    """Damages what a test has left in a run."""
    table, masks = run / "predictions/test/counts.csv", run / "predictions/test/masks"
    if how == "no predictions":
        shutil.rmtree(run / "predictions")
    elif how == "a file in place of predictions":
        shutil.rmtree(run / "predictions")
        (run / "predictions").write_text("")
    elif how == "other names":
        table.write_text(table.read_text().replace("image_", "photo_"))
    elif how == "no masks":
        shutil.rmtree(masks)
    for mask in masks.glob("*.png"):
        if how == "masks cut":
            mask.write_bytes(mask.read_bytes()[:-30])
        elif how == "masks of another size":
            Image.new("L", (640, 20)).save(mask)
        elif how == "masks of other classes":
            Image.new("L", (64, 64), 3).save(mask)
        elif how == "folders in place of masks":
            mask.unlink()
            mask.mkdir()


LOST = "#1: of 5 predicted masks 5 are missing, can't be read, or are of other classes or sizes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "on_the_console", "on_the_page", "tests"),
    [
        ("no predictions", "#1 seed 1: predictions/test/counts.csv is missing", "", 1),
        ("a file in place of predictions", "#1 seed 1: predictions/test/counts.csv is", "", 1),
        ("other names", "2 of 3 pairs are not tested", "They have no image in common", 1),
        ("no masks", "3 of 3 differences", LOST, 3),
        ("masks cut", "3 of 3 differences", LOST, 3),
        ("masks of another size", "3 of 3 differences", LOST, 3),
        ("masks of other classes", "3 of 3 differences", LOST, 3),
        ("folders in place of masks", "3 of 3 differences", LOST, 3),
    ],
)
def test_damaged_predictions_are_said_and_the_ranking_stands(
    how: str,
    on_the_console: str,
    on_the_page: str,
    tests: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = []
    for model, right in (("a", 0.9), ("b", 0.6), ("c", 0.4)):
        run = make_run(tmp_path / model, f"model={model}", counts=drawn(right, images=16))
        for i in range(16):
            noise = np.random.default_rng(i).integers(0, 3, (64, 64), dtype=np.uint8)
            Image.fromarray(noise).save(run / f"predictions/test/masks/image_{i:03d}.png")
        runs.append(run)
    damaged(runs[0], how)
    with caplog.at_level("INFO", logger="segpets.compare"):
        result = compared(*runs, folder=tmp_path / "out", images=5)
    assert [c.label for c in result.groups[0].configurations] == ["model=a", "model=b", "model=c"]
    assert len(result.comparisons[0]) == tests
    assert on_the_console in caplog.text
    assert on_the_page in Page((result.path / "compare.html").read_text()).text


def test_runs_of_which_only_the_summary_is_left_are_ranked(
    command: Command, tmp_path: Path
) -> None:
    for model, right in (("a", 0.9), ("b", 0.6)):
        run = make_run(tmp_path / model, f"model={model}", counts=drawn(right))
        shutil.rmtree(run / "predictions")
        (run / "config.yaml").unlink()
        (run / "metrics.csv").unlink()
    done = command("runs=[a,b]", module="segpets.compare", COLUMNS="80")
    assert done.returncode == 0
    assert "Traceback" not in done.stdout
    assert re.findall(r"^ *\d +(\w+) +\d +0", done.stdout, re.MULTILINE) == ["a", "b"]
    for lost in ("config.yaml", "metrics.csv", "predictions/test/counts.csv"):
        assert f"#1 seed 1, #2 seed 1: {lost} is missing" in done.stdout
    table = done.stdout.split("  * on the front")[0]
    assert max(map(len, table.splitlines())) <= 80
