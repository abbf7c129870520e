"""The command compare, as one types it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from made_comparison import FILES, NOTES, Page, compared, rows
from made_runs import drawn, make_run
from PIL import Image

from segpets.errors import UserError
from segpets.train import Result as Trained


def test_a_sweep_from_the_command_line(command: Command, sweep: Path, tmp_path: Path) -> None:
    done = command("runs=logs/train/multiruns/first", module="segpets.compare")
    assert done.returncode == 0, done.stdout
    table = re.findall(r"^ *(\d) +(\w+) +(\d) +0\.\d{4}", done.stdout, re.MULTILINE)
    assert table == [("1", "unet", "2"), ("2", "vit", "2"), ("3", "fcn", "2")]
    assert "dice" not in done.stdout, "it is the same in all"
    assert "2 of 3 differences between configurations are significant" in done.stdout
    assert "#1 (model=unet) is significantly better than #2 (model=vit)" in done.stdout
    said = " ".join(done.stdout.split())
    assert " mean IoU of an image, averaged over seeds and images (95 % interval" in said
    assert NOTES[0] in said
    # Where times are long, a column more has no room, and its note neither.
    assert NOTES[1] in said or re.search(r"no room for [^:]*95 % at epoch", said)
    assert "failed: logs/train/multiruns/first/model-segnet: RuntimeError: no" in done.stdout
    assert re.search(r"unreadable: .*model-unet__seed-3: .*can't be read", done.stdout)
    assert "failed-1" not in done.stdout
    out = tmp_path / "logs" / "compare" / "latest"
    assert {file.name for file in out.iterdir() if file.suffix != ".log"} - {".hydra"} == FILES
    again = command("runs=logs/train/multiruns/first", module="segpets.compare", COLUMNS="70")
    assert again.returncode == 0
    assert "no room for" in again.stdout and "95 % at epoch: the first" not in again.stdout
    assert len(list((tmp_path / "logs/compare/runs").iterdir())) == 2, "nothing is overwritten"


def test_the_same_runs_give_the_same_numbers(sweep: Path, tmp_path: Path) -> None:
    one, two = (compared(sweep, folder=tmp_path / name, images=0).path for name in ("a", "b"))
    for name in ("compare.csv", "tests.csv", "compare.html"):
        assert (one / name).read_text() == (two / name).read_text()


def test_the_files_hold_everything_in_full(sweep: Path, tmp_path: Path) -> None:
    path = compared(sweep, folder=tmp_path / "out").path
    table = rows(path / "compare.csv")
    assert [row["override.model"] for row in table] == ["unet", "vit", "fcn"]
    summaries = [
        json.loads((sweep / f"model-unet__seed-{seed}" / "summary.json").read_text())
        for seed in (1, 2)
    ]
    for name in ("test/mean_iou", "test/iou/border", "test/mean_dice"):
        expected = (summaries[0][name] + summaries[1][name]) / 2
        assert float(table[0][name]) == pytest.approx(expected, rel=1e-15)
        assert float(table[0][f"{name} low"]) < expected < float(table[0][f"{name} high"])
    assert table[0]["epochs_to_95"] == "3.0"  # 0.1, 0.5, 0.6
    runs = rows(path / "runs.csv")
    assert sorted(row["status"] for row in runs) == [*["completed"] * 6, "failed", "unreadable"]
    tests = rows(path / "tests.csv")
    assert [(row["first rank"], row["second rank"]) for row in tests] == [
        ("1", "2"),
        ("1", "3"),
        ("2", "3"),
    ]
    markdown = (path / "compare.md").read_text()
    for note in NOTES:
        assert note.removeprefix("* ") in markdown.replace("\\", "")
    assert re.search(r"^\| 1 \| unet \| 2 \| 0\\?\.\d{4}", markdown, re.MULTILINE)
    assert re.search(r"^1 & unet & 2 & 0\.\d{4}", (path / "compare.tex").read_text(), re.MULTILINE)


def test_the_page_fetches_nothing_and_shows_everything(sweep: Path, tmp_path: Path) -> None:
    text = (compared(sweep, folder=tmp_path / "out").path / "compare.html").read_text()
    page = Page(text)
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", text)
    assert "default-src 'none'" in text
    assert not {key for key in page.attributes if key.startswith("on")}
    for shown in ("model=unet", "IoU by class", "Mean IoU by breed", "beagle", "Learning curves"):
        assert shown in page.text
    assert "test/mean_iou against mult-adds" in page.text
    for note in NOTES:
        assert note in page.text
    curves = text[text.index("Learning curves</h3>") : text.index("against mult-adds</h3>")]
    assert re.findall(r'<li data-line="(\d)">.*?(#\d \(model=\w+\))</li>', curves) == [
        (str(rank), f"#{rank} (model={model})")
        for rank, model in enumerate(("unet", "vit", "fcn"), 1)
    ], "the names of the curves stand below them"
    assert "Not ranked (2)" in page.text


def test_protocols_are_ranked_apart_and_the_difference_is_said(
    sweep: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_run(
        tmp_path / "other", "model=unet", protocol={"resolution": [128, 128], "split_seed": 1}
    )
    with caplog.at_level("INFO", logger="segpets.compare"):
        result = compared(sweep, other, folder=tmp_path / "out")
    assert [len(group.configurations) for group in result.groups] == [3, 1]
    assert "Protocol 1 of 2: " in caplog.text
    assert re.search(r"Protocol 1 of 2: at 64x64, \d+ test images, data.seed 0: ", caplog.text)
    assert re.search(r"Protocol 2 of 2: at 128x128, \d+ test images, data.seed 1: ", caplog.text)
    table = rows(result.path / "compare.csv")
    assert [(row["group"], row["rank"]) for row in table] == [
        ("1", "1"),
        ("1", "2"),
        ("1", "3"),
        ("2", "1"),
    ]


def test_the_worst_cases_are_columns_and_can_be_ranked_by(tmp_path: Path) -> None:
    """One run is a little better on the whole, and much worse in its worst image."""
    even, uneven = drawn(0.7), drawn(0.9)
    uneven[0] = [[5, 95, 0], [0, 5, 95], [95, 0, 5]]
    runs = [make_run(tmp_path / n, f"model={n}", counts=c) for n, c in (("a", even), ("b", uneven))]
    expected = {}
    for name, counts in (("a", even), ("b", uneven)):
        hits = np.diagonal(counts, axis1=1, axis2=2)
        each = hits / (counts.sum(1) + counts.sum(2) - hits)  # (12, 3)
        expected[name] = {
            "worst_class_iou": each.min(1).mean(),
            "worst_images_iou": each.mean(1).min(),  # 5 % of 12 are one
            "class_mean_iou": each.mean(),
        }
    path = compared(*runs, folder=tmp_path / "out").path
    found = {row["override.model"]: row for row in rows(path / "compare.csv")}
    for name, values in expected.items():
        for metric, value in values.items():
            assert float(found[name][f"test/{metric}"]) == pytest.approx(value), metric
    assert found["b"]["rank"] == "1" and found["a"]["rank"] == "2"
    assert "worst images IoU" in (path / "compare.html").read_text()
    ranked = compared(*runs, metric="test/worst_images_iou", folder=tmp_path / "by").path
    found = {row["override.model"]: row for row in rows(ranked / "compare.csv")}
    assert found["a"]["rank"] == "1"


def test_runs_without_predictions_are_in_the_table_but_in_no_test(
    sweep: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for run in sweep.glob("model-vit*"):
        shutil.rmtree(run / "predictions")
    with caplog.at_level("INFO", logger="segpets.compare"):
        result = compared(sweep, folder=tmp_path / "out")
    assert len(result.groups[0].configurations) == 3
    assert [(t.first.rank, t.second.rank) for t in result.comparisons[0]] == [(1, 3)]
    assert "Without paired tests, for want of predictions: #2" in caplog.text


def test_the_images_of_a_training_come_from_its_data(finished: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished.path, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("lr: 0.0", "lr: 0.1", 1))
    _predict_background(other)
    result = compared(finished.path, other, folder=tmp_path / "out", images=3)
    (group,) = result.groups
    assert [c.choices.keys() for c in group.configurations] == [{"optimizer.lr"}] * 2
    page = Page((result.path / "compare.html").read_text())
    pictures = [a for a in page.addresses if a.startswith("data:image/")]
    assert len(pictures) == 3 * 4, "image, truth, and two predictions"
    assert "Only the predicted masks" not in page.text
    assert "Mean IoU by species" in page.text


def _predict_background(run: Path) -> None:
    """Makes a run one that predicts the second of three classes everywhere."""
    table = rows(run / "predictions/test/counts.csv")
    classes = ["pet", "background", "border"]
    total = np.zeros((3, 3))
    for row in table:
        for i, truth in enumerate(classes):
            pixels = sum(int(row[f"{truth}>{pred}"]) for pred in classes)
            row |= {f"{truth}>{pred}": "0" for pred in classes}
            row[f"{truth}>background"] = str(pixels)
            total[i, 1] += pixels
        Image.new("L", (64, 64), 1).save(run / f"predictions/test/masks/{row['name']}.png")
    with (run / "predictions/test/counts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    summary = json.loads((run / "summary.json").read_text())
    summary["test/mean_iou"] = total[1, 1] / total.sum() / 3
    (run / "summary.json").write_text(json.dumps(summary))


def test_quotes_spaces_and_signs_in_paths(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "läufe (1), it's"
    make_run(folder / "a b", "model=unet")
    path = str(folder).replace("'", "\\'")
    done = command(f"runs=['{path}/a b','{path}']", "images=0", module="segpets.compare")
    assert done.returncode == 0, done.stdout


def test_latest_and_patterns_pass_hydra(command: Command, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "logs/train/latest").symlink_to(sweep / "model-vit__seed-1")
    words = "runs=[latest,logs/train/multiruns/*/model-un?t*]"
    done = command(words, "images=0", module="segpets.compare")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"^ *\d +(\w+) +\d +0", done.stdout, re.MULTILINE) == ["unet", "vit"]


@pytest.mark.parametrize(
    ("runs", "values", "message"),
    [
        (["nowhere"], {}, "runs=nowhere finds no folder"),
        ([], {}, "runs names nothing"),
        (["SWEEP"], {"metric": "test/mean_io"}, "Did you mean metric=test/mean_iou?"),
        (
            ["SWEEP"],
            {"metric": "boundary"},
            "_images_iou, and 9 more, such as test/iou/pet",
        ),
        (["SWEEP"], {"metric": 3}, "metric=3 must be a text"),
        (["SWEEP"], {"resamples": 3}, "resamples=3 must be a whole number of at least 99"),
        (["SWEEP"], {"pairs": "few"}, "pairs=few must be a whole number of at least 0"),
        (["SWEEP"], {"images": True}, "images=True must be a whole number of at least 0"),
        (["SWEEP/model-segnet"], {}, "is failed (RuntimeError: no)"),
        (["SWEEP/notes"], {}, "holds no run"),
    ],
)
def test_wrong_values_are_answered(
    runs: list[str], values: dict[str, object], message: str, sweep: Path, tmp_path: Path
) -> None:
    words = [word.replace("SWEEP", str(sweep)) for word in runs]
    with pytest.raises(UserError, match=re.escape(message)):
        compared(*words, folder=tmp_path / "out", **values)


@pytest.mark.parametrize(
    ("words", "message"), [([], "runs has no value"), (["runz=x"], "Did you mean runs?")]
)
def test_wrong_words_are_answered(command: Command, words: list[str], message: str) -> None:
    done = command(*words, module="segpets.compare")
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_an_earlier_comparison_is_not_overwritten(sweep: Path, tmp_path: Path) -> None:
    compared(sweep, folder=tmp_path / "out", images=0)
    with pytest.raises(UserError, match=r"already holds a compare\.html"):
        compared(sweep, folder=tmp_path / "out", images=0)
