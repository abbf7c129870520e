"""The page of results says what the stored summaries say, and its script trains what is missing."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixture_types import Tiny
from made_runs import CLASSES, drawn, make_run
from results import listed, missing
from scipy import stats

from segpets.config import compose, conf_dir
from segpets.records.counts import read_counts
from segpets.run.files import RunFiles

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "results.py"
CHANGES = {"otherwise": ["other", "all"], "copies": ["fewer", "all"]}


def give(store: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--store", str(store), *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def made_store(folder: Path, rows: list[dict[str, Any]], **further: Any) -> Path:
    store = folder / "results"
    store.mkdir()
    tables = {"rows": rows, "published": []} | further
    (store / "rows.yaml").write_text(yaml.safe_dump(tables))
    ceiling = (ROOT / "docs" / "results" / "ceiling.json").read_text()
    (store / "ceiling.json").write_text(ceiling)
    return store


def summary(mean_iou: float, *, seed: int = 1, **facts: Any) -> str:
    named = {f"test/iou/{name}": mean_iou for name in ("pet", "background", "border")}
    named |= {"test/mean_iou": mean_iou, "test/pixel_accuracy": 0.9, "epochs": 20}
    named |= {"params": 1_906_110, "mult_adds": 721_000_000, "seconds": 1234.5, "latency_ms": 7.25}
    named |= {"interval": [0.73, 0.77], "device": "a CPU", "cores": 2}
    named |= {"protocol": {"images": {"test": 3669}}, "overrides": [f"seed={seed}"]}
    return json.dumps(named | facts)


def row(name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name, "title": f"net {name}", "seeds": 3, "minutes": 1, "command": []} | facts


def cells(page: str, title: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {title} | 2"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_page_is_what_the_summaries_say(tmp_path: Path) -> None:
    page = ROOT / "docs" / "RESULTS.md"
    before = page.read_text()
    done = give(ROOT / "docs" / "results", "--write")
    assert done.returncode == 0, done.stdout
    assert page.read_text() == before, "python scripts/results.py --write"


@pytest.mark.slow
def test_the_rows_are_every_model_and_loss_at_both_protocols() -> None:
    known = yaml.safe_load((ROOT / "docs" / "results" / "rows.yaml").read_text())["rows"]
    names = [one["name"] for one in known]
    assert len(set(names)) == len(names)
    trained: dict[str, set[str]] = {"models": set(), "losses": set()}
    by_article = {key: set[str]() for key in trained}
    for one in known:
        cfg = compose(one["command"])
        kept = by_article if cfg.data.get("split") == "article" else trained
        kept["models"].add(cfg.model._target_)
        kept["losses"].add(cfg.loss._target_)
    every = {
        key: {
            yaml.safe_load(file.read_text())["_target_"] for file in conf_dir().glob(f"{group}/*")
        }
        for key, group in (("models", "model"), ("losses", "loss"))
    }
    assert trained == by_article == every


def test_means_intervals_and_the_share_of_the_ceiling(tmp_path: Path) -> None:
    rows = [row("a"), row("b", seeds=1), row("c", device="gpu"), row("d")]
    store = made_store(tmp_path, rows)
    values = [0.75, 0.76, 0.764]
    others: dict[int, dict[str, Any]] = {1: {}, 2: {"seconds": 900, "versions": {"code": "b5"}}}
    others[3] = {"device": "a GPU", "seconds": 30, "latency_ms": 1}
    for seed, value in enumerate(values, 1):
        (store / f"a.{seed}.json").write_text(summary(value, seed=seed, **others[seed]))
    (store / "b.1.json").write_text(summary(0.7, protocol={"images": {"test": 296}}))
    done = give(store, "--write")
    assert done.returncode == 0, done.stdout
    page = (tmp_path / "RESULTS.md").read_text()
    low, high = stats.t.interval(0.95, 2, sum(values) / 3, stats.sem(values))
    mean = sum(values) / 3
    ceiling = json.loads((store / "ceiling.json").read_text())["mean_iou"]["mean"]
    assert cells(page, "net a") == [
        *("net a", "20", "1.91 M", "0.72 G", "7.2", "900", "1, 2", "3 of 3", "0.9000"),
        f"**{mean:.4f}**",
        f"{low:.3f} to {high:.3f}, seeds",
        *([f"{mean:.3f}"] * 3),
        f"{mean / ceiling:.1%}",
    ]
    single = cells(page, "net b")
    assert "Devices: (1) a CPU, 2 cores; (2) a GPU, 2 cores." in page and single[6] == "1"
    assert single[10] == "0.730 to 0.770, images" and single[-1] == "-", "other test images"
    assert "Seeds of several revisions are averaged in: net a (2).\n" in page
    assert "| net c | needs a GPU |" in page and "| net d | not yet |" in page


@pytest.mark.slow
def test_a_row_that_is_none_and_a_missing_folder_are_answered(tmp_path: Path) -> None:
    store = made_store(tmp_path, [row("a", command=["data=oxford_pets", "data.root=FOLDER"])])
    assert "there is no row b: choose one of a" in give(store, "--row", "b").stdout
    assert "a needs the data set: --root FOLDER" in give(store, "--row", "a").stdout
    assert "3 is no time: give 90m or 3h" in give(store, "--budget", "3").stdout
    (store / "a.1.json").write_text("{")
    broken = give(store, "--write")
    assert broken.returncode == 1 and "Traceback" not in broken.stdout
    assert "a.1.json can't be read" in broken.stdout and "restore it, or delete it" in broken.stdout


def test_on_a_gpu_every_row_has_three_seeds(tmp_path: Path) -> None:
    store = made_store(tmp_path, [row("a", seeds=1), row("b", seeds=1, device="gpu")])
    (store / "a.1.json").write_text(summary(0.7))
    rows = listed(store).rows
    here = [(one.name, seed) for one, seed in missing(rows, store, gpu=True)]
    assert here == [("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    assert [*missing(rows, store, gpu=False)] == []


def test_a_change_is_shown_without_and_with_it(tmp_path: Path) -> None:
    changes = [{"name": "x", "title": "with x", "of": ["b", "a"]}]
    store = made_store(tmp_path, [row("a"), row("b")], changes=changes)
    kept = {"difference": 0.031, "low": 0.011, "high": 0.052, "significant": True, "seeds": [2, 2]}
    kept["means"] = [0.74, 0.71]
    (store / "x.json").write_text(json.dumps(kept))
    assert give(store, "--write").returncode == 0
    line = "| with x | 0.7100 | 0.7400 | +0.0310 (+0.0110 to +0.0520) | 2 and 2 | yes |"
    assert line in (tmp_path / "RESULTS.md").read_text().splitlines()


def test_rows_of_different_training_images_are_compared_by_their_test(tmp_path: Path) -> None:
    changes = [{"name": name, "title": name, "of": of} for name, of in CHANGES.items()]
    names = ("fewer", "all", "other")
    command = {name: ["data.root=FOLDER", f"data.exclude=${{here:}}/{name}"] for name in names}
    rows = [row(name, seeds=2, command=words) for name, words in command.items()]
    store = made_store(tmp_path, rows, changes=changes)
    expected = {}
    for one, right in (("fewer", 0.7), ("all", 0.8), ("other", 0.8)):
        for seed in (1, 2):
            noted = [*command[one], f"seed={seed}"]
            (store / f"{one}.{seed}.json").write_text(summary(right, overrides=noted))
            images = {"train": 90 if one == "fewer" else 100, "val": 10, "test": 40}
            protocol = {"images": images} | ({"split_seed": 5} if one == "other" else {})
            run = tmp_path / "logs" / "results" / f"{one}-{seed}"
            counts = drawn(right, images=40, seed=seed)
            facts = {"protocol": protocol, "data_fingerprint": f"images of {one}"}
            words = ["data.root=/pets", f"data.exclude=/filled/in/{one}"]
            make_run(run, *words, seed=seed, counts=counts, **facts)
            expected[one, seed] = read_counts(RunFiles(run).counts, CLASSES).iou.mean()
    done = give(store, "--root", "/pets", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "otherwise: left out, as its rows were judged by other rules" in done.stdout
    assert not (store / "otherwise.json").exists()
    found = json.loads((store / "copies.json").read_text())
    means = {one: (expected[one, 1] + expected[one, 2]) / 2 for one in ("fewer", "all")}
    assert found["difference"] == pytest.approx(means["fewer"] - means["all"])
    assert (found["images"], found["seeds"], found["significant"]) == (40, [2, 2], True)
    assert "| copies | " in (tmp_path / "RESULTS.md").read_text()
    rows[0]["command"].append("loss=dice")  # of which what is there and stored knows nothing
    tables = yaml.safe_load((store / "rows.yaml").read_text())
    (store / "rows.yaml").write_text(yaml.safe_dump(tables | {"rows": rows}))
    (store / "copies.json").unlink()
    done = give(store, "--root", "/pets", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    told = "logs/results/fewer-1 was begun by another command than that of fewer, data.exclude="
    assert told in done.stdout and not (store / "copies.json").exists()
    assert "| net fewer | not yet |" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.slow
def test_what_is_missing_is_trained_and_goes_on_after_the_time_is_over(
    tiny: Tiny, tmp_path: Path
) -> None:
    given = [*tiny("trainer.max_epochs=2")]
    (root,) = (word for word in given if word.startswith("data.root="))
    folder = root.removeprefix("data.root=")
    command = ["data.root=FOLDER" if word == root else word for word in given]
    words = ["tta=[flip,1.25]", "decide=[1,1,1.2]", "resamples=99"]
    judged = [{"name": "more", "title": "net a", "of": ["a"], "seeds": [1], "words": words}]
    changes = [{"name": "teacher", "title": "taught", "of": ["taught", "a"]}]
    rows = [
        row("taught", command=[*command, "teacher=logs/results/a-1"], seeds=1, needs="a"),
        row("a", command=command, seeds=1),
    ]
    store = made_store(tmp_path, rows, judged=judged, changes=changes)
    for asked in ("more", "teacher"):  # the trainings that they are made of come first
        assert " needs the data set: --root FOLDER" in give(store, "--row", asked).stdout
    late = give(store, "--root", folder, "--budget", "4s", cwd=tmp_path)
    assert late.returncode == 0, late.stdout
    assert "The time is over; the next call goes on" in late.stdout
    done = give(store, "--root", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    kept = json.loads((store / "a.1.json").read_text())
    assert kept["overrides"] == [*command, "seed=1"]
    assert folder not in (store / "a.1.json").read_text(), "a folder of this machine"
    summary = json.loads((tmp_path / "logs/results/a-1/summary.json").read_text())
    assert kept["test/mean_iou"] == summary["test/mean_iou"]
    assert kept["interval"][0] <= kept["test/mean_iou"] <= kept["interval"][1]
    assert kept["latency_ms"] > 0
    page = (tmp_path / "RESULTS.md").read_text()
    assert re.search(rf"\| net a \| 2 .*\*\*{summary['test/mean_iou']:.4f}\*\*", page)
    more = json.loads((store / "more.json").read_text())
    plain = more["lines"]["plain"]["test/mean_iou"]
    assert plain == pytest.approx(summary["test/mean_iou"], abs=1e-6)
    both = more["lines"]["decision and tta"]["test/mean_iou"]
    assert more["gains"]["decision and tta"]["value"] == pytest.approx(both - plain, abs=1e-6)
    assert f"| net a | **{plain:.4f}** | - |" in page
    assert f"| ... with both | **{both:.4f}** | {both - plain:+.4f} (" in page
    taught = json.loads((store / "teacher.json").read_text())
    both = [RunFiles(tmp_path / "logs/results" / f"{name}-1") for name in ("taught", "a")]
    scores = [read_counts(files.counts, ["pet", "background", "border"]).iou for files in both]
    assert taught["difference"] == pytest.approx(float((scores[0] - scores[1]).mean()))
    names = [tmp_path / "logs/results" / f"{name}-1/summary.json" for name in ("taught", "a")]
    assert taught["means"] == [json.loads(f.read_text())["test/mean_iou"] for f in names]
    assert taught["low"] <= taught["difference"] <= taught["high"] and taught["seeds"] == [1, 1]
    again = give(store, cwd=tmp_path)
    assert "a, seed" not in again.stdout, "it is there"
    # A row is trained by who asks for it, and what is stored stays.
    before = {file.name: file.read_bytes() for file in store.iterdir()}
    shutil.rmtree(tmp_path / "logs/results/a-1")
    mine = give(store, "--root", folder, "--row", "a", cwd=tmp_path)
    assert mine.returncode == 0, mine.stdout
    value = f"{summary['test/mean_iou']:.4f}"
    assert f"a, seed 1: mean IoU {value} here, {value} stored" in mine.stdout
    assert {file.name: file.read_bytes() for file in store.iterdir()} == before
    elsewhere = json.dumps(kept | {"latency_ms": -1, "device": "another"})
    (store / "a.1.json").write_text(elsewhere)
    assert give(store, "--latency", cwd=tmp_path).returncode == 0
    assert json.loads((store / "a.1.json").read_text()) == json.loads(elsewhere)
    (store / "a.1.json").write_text(json.dumps(kept | {"latency_ms": -1}))
    counts = RunFiles(tmp_path / "logs/results/taught-1").counts
    counts.rename(counts.with_suffix(".away"))  # as what the time ended hasn't any
    assert give(store, "--latency", cwd=tmp_path).returncode == 0
    counts.with_suffix(".away").rename(counts)
    measured = json.loads((store / "a.1.json").read_text())
    assert measured.pop("latency_ms") > 0
    assert measured == {key: value for key, value in kept.items() if key != "latency_ms"}
    judged_again = give(store, "--row", "more", cwd=tmp_path)
    line = f"| net a | **{plain:.4f}** | - |"
    assert judged_again.stdout.count(line) == 2, "here, and stored"


@pytest.mark.slow
def test_a_row_that_fails_keeps_no_other_from_being_trained(tiny: Tiny, tmp_path: Path) -> None:
    given = [*tiny("trainer.max_epochs=1")]
    (root,) = (word for word in given if word.startswith("data.root="))
    command = ["data.root=FOLDER" if word == root else word for word in given]
    further = [{"name": "both", "title": "both", "of": ["b"], "seeds": [1, 2], "words": []}]
    rows = [row("a", command=[*command, "loss=none"], seeds=1), row("b", command=command, seeds=1)]
    store = made_store(tmp_path, rows, judged=further)
    here = tmp_path / "the pets, of [1=2]"  # which Hydra would read as more than a word
    here.symlink_to(root.removeprefix("data.root="))
    lost = give(store, "--root", str(tmp_path / "mistyped"), "--row", "b", cwd=tmp_path)
    assert lost.returncode == 1 and "Not all went well:\nb, seed 1, failed" in lost.stdout
    done = give(store, "--root", str(here), cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert done.stdout.endswith("Not all went well:\na, seed 1, failed\n")
    assert (store / "b.1.json").exists() and not (store / "a.1.json").exists()
    assert "both: left out, as b-2 aren't in logs/results: --row both" in done.stdout
    assert "| net b | 1 |" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_stops_the_training_and_goes_on_with_it(
    tiny: Tiny, tmp_path: Path, sent: signal.Signals
) -> None:
    given = [*tiny("trainer.max_epochs=200", "test=false")]
    store = made_store(tmp_path, [row("a", command=given, seeds=1)])
    command = [sys.executable, str(SCRIPT), "--store", str(store), "--row", "a"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        run = tmp_path / "logs/results/a-1"
        while not (run / "checkpoints/last.ckpt").exists():
            assert running.poll() is None
            time.sleep(0.1)
        running.send_signal(sent)
        _, told = running.communicate(timeout=60)
    assert running.returncode == 1 and told.endswith("Stopped; the next call goes on\n")
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert not (run / ".lock").exists()
