"""Several runs as one model: by every command that takes them, against the mean by hand."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import Command
from made_runs import edit
from omegaconf import OmegaConf
from PIL import Image

import segpets
from segpets.build.objects import build_data
from segpets.config import compose
from segpets.data.source import STAGES
from segpets.errors import UserError
from segpets.evaluate import evaluate
from segpets.run.protocol import split_names
from segpets.train import Result


@pytest.fixture(scope="session")
def members(finished: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three trained runs whose last layers differ, as a sweep of seeds would."""
    sweep = tmp_path_factory.mktemp("members") / "sweep"
    for seed in (1, 2, 3):
        copy = sweep / f"seed-{seed}"
        shutil.copytree(finished.path, copy)
        generator = torch.Generator().manual_seed(seed)
        for file in (copy / "checkpoints").glob("*.ckpt"):
            saved = torch.load(file, weights_only=True)
            key = [name for name in saved["state_dict"] if name.endswith("weight")][-1]
            weight = saved["state_dict"][key]
            saved["state_dict"][key] = weight + 2 * torch.randn(weight.shape, generator=generator)
            torch.save(saved, file)
    return sweep


def test_probabilities_are_averaged(members: Path, finished: Result) -> None:
    images = next(iter(finished.datamodule.plain_dataloader("test")))["image"]
    runs = sorted(members.iterdir())
    alone = [segpets.load(run).logits(images).softmax(1) for run in runs]
    expected = torch.stack(alone).mean(0)
    assert (alone[0] - alone[1]).abs().max() > 0.05, "else this shows nothing"
    together = segpets.load(runs).logits(images)
    torch.testing.assert_close(together.exp(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(segpets.load(str(members)).logits(images), together)
    assert segpets.load([runs[0]]).members == ()


def test_evaluate_says_protocol_and_cost(
    members: Path, finished: Result, tmp_path: Path, command: Command
) -> None:
    done = command(
        f"run={members}", "hydra.run.dir=out", "errors=0", "resamples=99", module="segpets.evaluate"
    )
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "3 models, whose probabilities are averaged, at 3 times the cost" in said
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["protocol"]["ensemble"] == {
        "members": [str(run) for run in sorted(members.iterdir())],
        "averaged": "probabilities, at the model's size",
    }
    assert record["protocol"]["data_of_the_training"] is True
    # Each member's own test, which is that of the run that they are copies of, is to be read there.
    gained = record["metrics"]["test/mean_iou"] - finished.metrics["test/mean_iou"]
    found = record["gains"]["ensemble"]
    assert found["value"] == pytest.approx(gained, abs=1e-6) and abs(gained) > 1e-3
    assert found["low"] < found["value"] < found["high"]
    words = f"The ensemble changes the mean IoU of its members, averaged, by {gained:+.4f}"
    assert words in said


@pytest.mark.slow
def test_the_gain_over_members_needs_their_own_tests_of_the_same_images(
    members: Path, tmp_path: Path, command: Command
) -> None:
    runs = [shutil.copytree(run, tmp_path / run.name) for run in sorted(members.iterdir())[:2]]
    options = ["errors=0", "resamples=99"]
    for case, words in (("val", ["stage=val"]), ("pet", ["labels=border_as_pet"])):
        done = command(
            *[f"run=[{runs[0]},{runs[1]}]", f"hydra.run.dir={case}", *options, *words],
            module="segpets.evaluate",
        )
        assert done.returncode == 0 and "of its members" not in done.stdout
    counts = runs[1] / "predictions" / "test" / "counts.csv"
    lines = counts.read_text().splitlines()
    counts.write_text("\n".join(lines[:-1]) + "\n")
    words = [f"run=[{runs[0]},{runs[1]}]", "hydra.run.dir=out", *options]
    done = command(*words, module="segpets.evaluate")
    assert done.returncode == 0 and "of its members" not in done.stdout


def test_predict_mixes_no_ensemble_with_its_first_member(
    members: Path, finished: Result, tmp_path: Path, command: Command
) -> None:
    photo = finished.datamodule.splits["test"][0].image
    first, *_ = runs = sorted(members.iterdir())
    words = [f"source={photo}", "output=predicted", "outputs=[masks]"]
    both = f"run=[{runs[0]},{runs[1]}]"
    done = command(both, *words, module="segpets.predict")
    assert done.returncode == 0, done.stdout
    (file,) = (tmp_path / "predicted" / "masks").iterdir()
    mask = np.asarray(Image.open(file))
    expected = segpets.load(runs[:2]).predict(photo)
    assert (mask == expected).all()
    other = command(f"run={first}", *words, module="segpets.predict")
    assert other.returncode == 1
    assert "holds predictions by another model (2 averaged: " in " ".join(other.stdout.split())


def test_a_file_holds_one_net(members: Path, command: Command) -> None:
    for run, count in (
        (f"run=[{members / 'seed-1'},{members / 'seed-2'}]", 2),
        (f"run={members}", 3),
    ):
        done = command(run, module="segpets.export")
        assert done.returncode == 1
        assert f"run names {count} runs, and a file holds one net" in " ".join(done.stdout.split())
    done = command(f"run=[{members / 'seed-1'}]", "decide=iou", module="segpets.export")
    assert done.returncode == 1
    assert "as segpets.evaluate decide=iou finds them" in " ".join(done.stdout.split())


def test_a_run_that_is_named_twice_counts_once(
    members: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = members / "seed-1"
    for again in (run, Path(os.path.relpath(run)), run / ".." / "seed-1"):
        caplog.clear()
        assert segpets.load([run, again]).members == ()
        assert "seed-1 twice: it counts once" in caplog.text


def test_trials_that_their_search_ended_are_left_out(
    members: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(members, tmp_path / "search")
    file = tmp_path / "search" / "seed-2" / "trial.json"
    file.write_text('{"number": 1, "pruned_at_epoch": 1}')
    model = segpets.load(tmp_path / "search")
    assert [member.path.name for member in model.members] == ["seed-1", "seed-3"]
    assert "seed-2 was ended early by its search, and is left out" in caplog.text


@pytest.mark.slow
def test_the_benchmark_counts_what_all_members_cost(
    members: Path, finished: Result, tmp_path: Path, command: Command
) -> None:
    quick = ["variants=[eager]", "batch_sizes=[1]", "seconds=0", "devices=[cpu]"]
    done = command(f"run={members}", *quick, "hydra.run.dir=out", module="segpets.benchmark")
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    summary = json.loads((finished.path / "summary.json").read_text())
    assert found["params"] == 3 * summary["params"]
    assert found["mult_adds"] == pytest.approx(3 * summary["mult_adds"], rel=0.01)
    assert not (members / "seed-1" / "benchmark.json").exists(), "it is of no run alone"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("size", 96, r"data\.size=\[64, 64\], but \S+ with data\.size=\[96, 96\]"),
        ("labels", "species", r"data\.labels=trimap, but \S+ with data\.labels=species"),
        ("mean", [0.1, 0.2, 0.3], r"data\.mean=\[0\.485.* with data\.mean=\[0\.1, 0\.2, 0\.3\]"),
        ("classes", ["pet", "edge", "background"], r"data\.classes=\['pet', 'background', 'bor"),
    ],
)
def test_models_that_see_or_say_something_else_are_refused(
    members: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    shutil.copytree(members, tmp_path / "sweep")
    edit(tmp_path / "sweep" / "seed-2", f"data.{key}", value)
    with pytest.raises(UserError, match=said):
        segpets.load(tmp_path / "sweep")


def test_what_isnt_completed_is_left_out(
    members: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(members, tmp_path / "sweep")
    file = tmp_path / "sweep" / "seed-2" / "summary.json"
    file.write_text(file.read_text().replace('"completed"', '"interrupted"'))
    model = segpets.load(tmp_path / "sweep")
    assert [member.path.name for member in model.members] == ["seed-1", "seed-3"]
    assert "seed-2 isn't completed, and is left out" in caplog.text


def test_members_of_other_splits_judge_no_val(
    members: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(members, tmp_path / "sweep")
    edit(tmp_path / "sweep" / "seed-2", "data.seed", 7)
    noted = json.loads((tmp_path / "sweep" / "seed-2" / "summary.json").read_text())
    config = segpets.load(tmp_path / "sweep" / "seed-2").config
    before = noted["split_names"]
    listed = build_data(OmegaConf.create(dict(config)), config["data"]).listed()
    noted["split_names"] = split_names(listed)
    assert [noted["split_names"][k] == before[k] for k in STAGES] == [False, False, True]
    (tmp_path / "sweep" / "seed-2" / "summary.json").write_text(json.dumps(noted))
    words = [f"run={tmp_path / 'sweep'}", f"hydra.run.dir={tmp_path / 'out'}"]
    with pytest.raises(
        UserError, match=r"of its images, such as \w+, are among those that a run was trained on"
    ):
        evaluate(compose([*words, "stage=val"], task="evaluate"))
    done = command(*words, "errors=0", "resamples=99", "decide=iou", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    for fitted in (
        record["decision"]["protocol"]["weights"],
        record["calibration"]["protocol"]["temperature"],
    ):
        assert fitted.startswith("a model was trained on images of val, so for each half of")
    assert record["decision"]["protocol"]["halves"]
    assert record["protocol"]["data_of_the_training"] is True, "it is the test of each"
    assert "on these images they would flatter" in " ".join(done.stdout.split())


@pytest.mark.parametrize("more", [["data.seed=7"], ["data=pets_mini", "data.seed=7"]])
def test_a_run_judges_no_val_of_another_split(
    members: Path, tmp_path: Path, more: list[str], command: Command
) -> None:
    """By any way to name the data; val of its own split is judged by the same words."""
    run = members / "seed-1"
    data = segpets.load(run).config["data"]
    own = [f"data.root={data['root']}", "data.size=64"] if len(more) > 1 else []
    words = [f"run={run}", "errors=0", "resamples=99", "stage=val", *own]
    done = command(*words, *more, f"hydra.run.dir={tmp_path / 'out'}", module="segpets.evaluate")
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stdout.split())
    assert "are among those that a run was trained on, by a split of its own: give stage=test" in (
        said
    )
    plain = [word for word in more if "seed" not in word]
    done = command(*words, *plain, f"hydra.run.dir={tmp_path / 'b'}", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout


def test_the_only_job_of_a_sweep_is_found_though_it_isnt_completed(
    members: Path, tmp_path: Path
) -> None:
    shutil.copytree(members / "seed-1", tmp_path / "sweep" / "seed-1")
    file = tmp_path / "sweep" / "seed-1" / "summary.json"
    file.write_text(file.read_text().replace('"completed"', '"interrupted"'))
    assert segpets.load(tmp_path / "sweep").path.name == "seed-1"


def test_a_folder_without_runs_is_answered(tmp_path: Path, command: Command) -> None:
    (tmp_path / "empty").mkdir()
    for run in ("run=empty", "run=[]", "run=[empty,missing]"):
        done = command(run, module="segpets.evaluate")
        assert done.returncode == 1
        assert "Traceback" not in done.stdout
        assert re.search(r"run(=|\b)", done.stdout)
