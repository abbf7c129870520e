"""The command compare, as one types it."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from in_chromium import opened
from made_runs import drawn, make_run
from PIL import Image

from segpets.compare import Result, compare
from segpets.config import compose
from segpets.errors import UserError
from segpets.train import Result as Trained

HOSTILE = "<img src=x onerror=alert(1)>|\"'&"
NOTES = (
    "* on the front of accuracy against cost: no other run is at least as accurate and as cheap",
    "95 % at epoch: the first epoch whose val mean IoU reaches 95 % of the run's best",
)
FILES = {"compare.html", "compare.csv", "runs.csv", "tests.csv", "compare.md", "compare.tex"}


def compared(*runs: Path | str, folder: Path, **values: object) -> Result:
    cfg = compose([f"hydra.run.dir={folder}", "runs=x"], task="compare")
    cfg.runs = [str(run) for run in runs]
    for key, value in values.items():
        cfg[key] = value
    return compare(cfg)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three models of two seeds, one failed try of another, a cut summary, and what is no run."""
    folder = tmp_path / "logs" / "train" / "multiruns" / "first"
    for model, right in (("unet", 0.9), ("vit", 0.7), ("fcn", 0.696)):
        for seed in (1, 2):
            counts = drawn(right, images=40, seed=seed)
            name = f"model-{model}__seed-{seed}"
            make_run(folder / name, f"model={model}", "loss=dice", seed=seed, counts=counts)
    make_run(folder / "model-segnet", "model=segnet", status="failed", error="RuntimeError: no")
    make_run(folder / "model-unet__seed-3", "model=unet", seed=3)
    text = (folder / "model-unet__seed-3" / "summary.json").read_text()
    (folder / "model-unet__seed-3" / "summary.json").write_text(text[:100])
    make_run(folder / "model-segnet.failed-1", "model=segnet", status="failed")
    (folder / "notes").mkdir()
    return folder


class Page(HTMLParser):
    """All that a page would fetch, its tags, and the text that it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {key for key, _ in attrs}
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


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


# In a browser: `make test` needs none, `make test-all` does, and says so where there is none.

ASKS = """
const table = document.querySelector("table.sortable");
const column = title => [...table.tHead.rows[0].cells].findIndex(c => c.innerText === title);
const order = () => [...table.tBodies[0].rows].map(r => r.cells[column("model")].innerText);
const click = title => table.tHead.rows[0].cells[column(title)].querySelector("button").click();
seen.first = order();
click("model"); seen.model = order();
click("model"); seen.down = order();
click("params"); seen.params = order();
const item = document.querySelector(".legend li[data-line='2']");
item.dispatchEvent(new MouseEvent("mouseenter"));
seen.marked = [...document.querySelectorAll("g.line.this title")].map(t => t.textContent)[0];
"""


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_works_in_chromium(sweep: Path, tmp_path: Path) -> None:
    for model, params in (("vit", 9000), ("fcn", 20_000), ("unet", 100_000)):
        for run in sweep.glob(f"model-{model}__seed-[12]"):
            summary = json.loads((run / "summary.json").read_text())
            (run / "summary.json").write_text(json.dumps(summary | {"params": params}))
    text = (compared(sweep, folder=tmp_path / "out").path / "compare.html").read_text()
    with opened(text, tmp_path) as tab:
        seen = tab.ask(ASKS)
        assert tab.failures == []
    assert seen == {
        "first": ["unet", "vit", "fcn"],
        "model": ["fcn", "unet", "vit"],
        "down": ["vit", "unet", "fcn"],
        "params": ["vit", "fcn", "unet"],
        "marked": "#2 (model=vit)",
    }


MEASURES = """
const table = document.querySelector("table.ranking"), wide = table.parentElement;
const heads = [...table.tHead.rows[0].cells];
const shown = () => heads.filter(head => head.offsetWidth).map(head => head.innerText);
seen.beside = document.documentElement.scrollWidth - innerWidth;
seen.under = wide.scrollWidth - wide.clientWidth;
seen.heads = shown();
seen.list = getComputedStyle(table.tBodies[0].rows[0]).display;
const box = document.querySelector(".columns input[value=classes]");
const before = box.checked;
box.click();
seen.classes = [before, shown().includes("IoU border")];
"""


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1000, 500])
@pytest.mark.parametrize("choices", [2, 8, 14])
def test_the_table_fits_into_the_window(width: int, choices: int, tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / f"run{i}{seed}",
            *(f"part_of_it.key_{k}=some_value_{i}/{'x' * k}" for k in range(choices)),
            seed=seed,
            counts=drawn(0.5 + i / 5, seed=seed),
        )
        for i in range(2)
        for seed in (1, 2)
    ]
    text = (compared(*runs, folder=tmp_path / "out", images=0).path / "compare.html").read_text()
    with opened(text, tmp_path, width=width) as tab:
        seen = tab.ask(MEASURES)
        assert tab.failures == []
    assert seen["beside"] <= 0
    assert seen["under"] <= 0
    keys = [head for head in seen["heads"] if "key" in head]
    assert keys == [f"part_of_it.key_{k}" for k in range(len(keys))]
    assert len(keys) in (choices, 6)
    assert {"#", "mean IoU", "95 % ±"} <= set(seen["heads"])
    assert seen["list"] == ("flex" if width == 500 else "table-row")
    was, is_now = seen["classes"]
    assert is_now is not was
