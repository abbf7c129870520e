"""The scripts that measure run; what they measure is looked at, not judged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segpets.train import Result

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def script(name: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *words]
    path = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | path | env, check=False
    )


@pytest.mark.parametrize(
    ("peer", "model"),
    [("article", "segnet_dsc"), ("smp", "smp"), ("torchvision", "unet"), ("bare", "unet")],
)
def test_both_sides_of_an_epoch_are_measured(peer: str, model: str, tmp_path: Path) -> None:
    words = ["--peers", peer, "--models", model, "--images", "16", "--rounds", "1"]
    done = script("epochs.py", *words, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["peer"], row["model"], row["images"]) == (peer, model, 16)
    assert row["times_as_fast"] == row["peer_seconds"] / row["segpets_seconds"]
    assert min(row["segpets_peak_mb"], row["peer_peak_mb"]) > 100
    assert f"{row['times_as_fast']:.2f}" in done.stdout


def test_steps_are_measured_beside_the_bare_loop(tmp_path: Path) -> None:
    words = ["--models", "unet", "--rounds", "1", "--steps", "2", "--variants", "augment=device"]
    words += ["--batches", "8", "256"]  # of which an epoch of pets_mini has two
    file = tmp_path / "out.json"
    small = ["model.widths=[4,8]", "data.size=32"]
    done = script("train_step.py", *words, "--json", str(file), *small)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [row["batch"] for row in rows] == [8, 256]
    for row in rows:
        assert row["variant"] == "augment=device" and row["segpets"] > 0 and row["bare"] > 0
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"rows": rows[:1]}))  # as where the time ended the second
    again = script("train_step.py", *words, "--json", str(file), "--resume", *small)
    assert again.returncode == 0 and again.stdout.count("measured before") == 1
    both = json.loads(file.read_text())["rows"]
    assert both[0] == rows[0] and [row["batch"] for row in both] == [8, 256]


def test_a_target_that_is_not_reached_is_an_error(tmp_path: Path) -> None:
    words = ["model.widths=[4,8]", "debug=smoke", "data.size=32", "trainer=cpu"]
    assert script("seconds_to.py", "--target", "0", *words).returncode == 0
    done = script("seconds_to.py", "--target", "0.99", *words)
    assert done.returncode == 1 and "mean IoU 0.99 on val not reached" in done.stdout


def test_the_estimate_counts_what_a_convolution_needs(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    words = ["--models", "unet", "--batch", "2", "--images", "4", "--json", str(file)]
    done = script("estimate.py", *words, "optimizer=adamw")
    assert done.returncode == 0, done.stderr
    # 1.5133 G mult-adds an image, two operations each, three times in training, two images; less
    # the gradient of the picture, which nobody needs.
    gflop = float(done.stdout.partition(" GFLOP")[0].rpartition(" ")[2])
    assert 8 < gflop < 10
    facts = json.loads(file.read_text())
    assert facts["device"].startswith("cpu") or torch.cuda.is_available()
    assert facts["threads"] == 1
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert facts["rows"][0]["flops"] / 1e9 == pytest.approx(gflop, abs=0.06)


def test_what_a_gpu_must_show_runs_dry_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [str(ROOT / "scripts" / "gpu.sh"), str(tmp_path / "out")]
    env = os.environ | {"DRY": "1", "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout
    parts = {file.stem for file in (tmp_path / "out").glob("*.done")}
    assert parts >= {"smoke", "losses", "tests_device", "tests_no_waiting", "pets_mini_8"}
    assert parts >= {"steps", "steps_fp32", "steps_compiled", "steps_of_others"}
    assert "efficient_to_target" in parts
    models = {f"model_{file.stem}" for file in (ROOT / "conf" / "model").glob("*.yaml")}
    assert parts >= models and len(models) > 10
    beside = (tmp_path / "out" / "losses.log").read_text()
    first = re.search(r"step 0 loss there, here: (\S+) (\S+)", beside)
    assert first is not None and first[1] == first[2], "of the same device"
    (tmp_path / "out" / "smoke.done").unlink()  # as if it had been cut off
    again = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("done before") == len(parts) - 1
    late = subprocess.run(
        [command[0], str(tmp_path / "late")],
        capture_output=True,
        text=True,
        env=env | {"SECONDS_IN_ALL": "0"},
        check=False,
    )
    assert late.returncode == 1 and "smoke: NOT RUN, the time is over" in late.stdout


def test_pieces_and_windows_are_measured_beside_the_whole() -> None:
    pieces = script("pieces.py", "--size", "512")
    assert pieces.returncode == 0, pieces.stderr
    assert "TIFF, deflate, tiles of 256" in pieces.stdout
    windows = script(
        "windows.py", "--rounds", "1", "--window", "256", "--model", "lraspp_mobilenet"
    )
    assert windows.returncode == 0, windows.stderr
    assert "of the pixels have the same class" in windows.stdout


def test_predicting_is_measured_beside_a_plain_loop(finished: Result, tmp_path: Path) -> None:
    pictures = finished.datamodule.source.root / "images"
    for file in sorted(pictures.glob("Abyssinian_1*.jpg"))[:3]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = ["--run", str(finished.path), "--source", str(tmp_path)]
    done = script("predict.py", *words, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    assert "plain loop, masks" in done.stdout and (tmp_path / "out.json").exists()


def test_comparing_two_hundred_runs_is_measured(tmp_path: Path) -> None:
    done = script("compare.py", "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out.json").read_text())
    assert len(facts["rounds"]) == 3 and facts["runs"] == 200 and "git" in facts["versions"]
    assert done.stdout.count("200 runs: ") == 3
