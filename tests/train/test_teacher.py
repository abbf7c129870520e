"""A student learns from a teacher's probabilities."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny, Train
from made_runs import edit
from torch import nn

import segpets
from segpets.build.objects import build_data
from segpets.config import compose
from segpets.distillation import Distillation
from segpets.train import Result, train

QUICK = ["trainer.max_epochs=2", "trainer.precision=32-true"]


def test_the_term_by_hand() -> None:
    """One pixel: the teacher says 3/4 and 1/4, the student 1/2 and 1/2; another is ignored."""
    teacher = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1).expand(1, 2, 1, 2)
    student = torch.zeros(1, 2, 1, 2, requires_grad=True)
    mask = torch.tensor([[[1, 255]]])
    apart = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    made = Distillation(nn.Identity(), weight=0.5, temperature=1.0)
    found = made.term(student, teacher, mask)
    assert found.item() == pytest.approx(0.5 * apart)
    (slope,) = torch.autograd.grad(found, student)
    assert slope[..., 1].abs().sum() == 0
    # At the temperature 2 the teacher says sqrt(3) to 1, and the term is multiplied by 4.
    high = math.sqrt(3) / (1 + math.sqrt(3))
    soft = high * math.log(high / 0.5) + (1 - high) * math.log((1 - high) / 0.5)
    warm = Distillation(nn.Identity(), weight=1.0, temperature=2.0)
    assert warm.term(student, teacher, mask).item() == pytest.approx(4 * soft, rel=1e-5)
    assert warm.term(student, teacher, torch.full((1, 1, 2), 255)) == 0


@pytest.fixture(scope="module")
def teacher(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    words = tiny(*QUICK, "trainer.max_epochs=6", "seed=5")
    return train(compose([*words, f"hydra.run.dir={folder}"]))


def test_the_cost_is_that_of_what_is_trained_on(teacher: Result, train_tiny: Train) -> None:
    """Here of a crop, which is smaller than the images; student and teacher are alike."""
    words = [f"teacher={teacher.path}", "augment=scale_crop", "data.crop=32", "data.fit=none"]
    result = train_tiny(*QUICK, *words, "trainer.max_steps=1", "test=false", "logger=[]")
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["teacher"]["mult_adds"] == summary["mult_adds"]


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher(teacher: Result, train_tiny: Train) -> None:
    images = next(iter(teacher.datamodule.plain_dataloader("test")))["image"]
    probs = segpets.load(teacher.path).logits(images).softmax(1)
    apart = {}
    for name, words in {"alone": [], "taught": [f"teacher={teacher.path}"]}.items():
        more = ["teacher_weight=1000"] if words else []
        run = train_tiny(*QUICK, *words, *more, "trainer.max_epochs=10", folder=name)
        found = segpets.load(run.path).logits(images).softmax(1)
        apart[name] = float((found - probs).abs().mean())
    assert apart["taught"] < 0.8 * apart["alone"]


def test_its_cost_is_said_and_no_checkpoint_holds_it(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    done = command(*tiny(*QUICK, f"teacher={teacher.path}"), "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout
    assert "parameters and" in done.stdout and "mult-adds more for each training image" in (
        " ".join(done.stdout.split())
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    own = json.loads((teacher.path / "summary.json").read_text())
    assert summary["teacher"]["runs"] == [str(teacher.path)]
    assert summary["teacher"]["params"] == own["params"]
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert not any("teacher" in name for name in saved["state_dict"])
    assert segpets.load(tmp_path / "run").classes == ("pet", "background", "border")


@pytest.mark.slow
def test_a_taught_training_goes_on(teacher: Result, train_tiny: Train, tmp_path: Path) -> None:
    """Stopped at once by its number of steps, it ends with the weights of an undisturbed one."""
    words = [*QUICK, f"teacher={teacher.path}", "scheduler=none"]
    whole = train_tiny(*words, "trainer.max_epochs=3", folder="whole")
    train_tiny(*words, "trainer.max_epochs=2", folder="parts")
    resumed = train(compose([f"resume={tmp_path / 'parts'}", "trainer.max_epochs=3"]))
    assert resumed.module.distillation is not None
    saved = [
        torch.load(r.path / "checkpoints/last.ckpt", weights_only=True) for r in (whole, resumed)
    ]
    pairs = zip(*(one["state_dict"].values() for one in saved), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_several_teachers_are_averaged(teacher: Result, train_tiny: Train, tmp_path: Path) -> None:
    copy = tmp_path / "second"
    shutil.copytree(teacher.path, copy)
    run = train_tiny(*QUICK, f"teacher=[{teacher.path},{copy}]", "trainer.max_epochs=1")
    found = json.loads((run.path / "summary.json").read_text())["teacher"]
    own = json.loads((teacher.path / "summary.json").read_text())
    assert found["params"] == 2 * own["params"] and len(found["runs"]) == 2


@pytest.mark.slow
def test_a_sweep_over_teachers(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    other = tmp_path / "other"
    shutil.copytree(teacher.path, other)
    change_a_weight(other)
    words = [f"teacher={teacher.path},{other}", "hydra.sweep.dir=sweep", "-m"]
    done = command(*tiny(*QUICK, "trainer.max_epochs=1", *words))
    assert done.returncode == 0, done.stdout
    found = [json.loads(file.read_text()) for file in (tmp_path / "sweep").glob("*/summary.json")]
    assert {tuple(one["teacher"]["runs"]) for one in found} == {(str(teacher.path),), (str(other),)}
    assert len({one["teacher"]["weights"] for one in found}) == 2


@pytest.mark.slow
def test_teachers_that_cannot_teach_are_answered(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    def said(*words: str) -> str:
        done = command(*tiny(*QUICK, *words))
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stdout
        return " ".join(done.stdout.split())

    assert "teacher=nowhere" in said("teacher=nowhere")
    other = tmp_path / "other"
    shutil.copytree(teacher.path, other)
    edit(other, "data.classes", ["cat", "background", "border"])
    assert "knows the classes cat, background, border, but the data have pet" in (
        said(f"teacher={other}")
    )
    shutil.copytree(teacher.path, tmp_path / "labels")
    edit(tmp_path / "labels", "data.labels", "species")
    assert "data.labels=species, but the data have data.labels=trimap" in (
        said(f"teacher={tmp_path / 'labels'}")
    )
    refused = said(f"teacher={teacher.path}", "teacher_temperature=0")
    assert "teacher_temperature=0" in refused and "Taught by" not in refused
    assert "teacher_temperature=abc" in said(f"teacher={teacher.path}", "teacher_temperature=abc")
    assert "teacher names nothing" in said("teacher=[]")
    taught = command(
        *tiny(*QUICK, "trainer.max_epochs=1", f"teacher={other}", "hydra.run.dir=run"),
        "data.classes=[cat,background,border]",
    )
    assert taught.returncode == 0, taught.stdout
    again = ["resume=run", "trainer.max_epochs=2"]
    elsewhere = other.rename(tmp_path / "elsewhere")
    untaught = command(*again, "teacher=null")
    assert untaught.returncode == 1
    assert "so teacher=null can't change it" in " ".join(untaught.stdout.split())
    gone = command(*again)
    assert gone.returncode == 1
    assert "needs its teacher at each start, also when it goes on" in " ".join(gone.stdout.split())
    # Another net in its place isn't taken; the same one is, wherever it lies.
    shutil.copytree(elsewhere, other)
    change_a_weight(other)
    for words in ([], [f"teacher={other}"]):
        changed = command(*again, *words)
        assert changed.returncode == 1, changed.stdout
        assert "has other weights than the teacher that this run began with" in (
            " ".join(changed.stdout.split())
        )
    step = ["debug=replay", "run=run", "replay_step=1"]
    for words, reason in (([], "has other weights"), (["teacher=gone"], "teacher=gone")):
        replayed = command(*step, *words)
        assert replayed.returncode == 1 and reason in " ".join(replayed.stdout.split())
    replayed = command(*step, f"teacher={elsewhere}")
    assert replayed.returncode == 0, replayed.stdout
    moved = command(*again, f"teacher={elsewhere}")
    assert moved.returncode == 0, moved.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["epochs"] == 2 and summary["teacher"]["runs"] == [str(elsewhere)]


def change_a_weight(run: Path) -> None:
    for file in (run / "checkpoints").glob("*.ckpt"):
        saved = torch.load(file, weights_only=True)
        name = next(name for name in saved["state_dict"] if name.endswith("weight"))
        saved["state_dict"][name] += 0.5
        torch.save(saved, file)


def test_a_weight_without_a_teacher_is_said_to_change_nothing(tiny: Tiny, command: Command) -> None:
    done = command(*tiny(*QUICK, "teacher_weight=5"))
    assert done.returncode == 0, done.stdout
    assert "teacher_weight changes nothing without teacher=RUN" in done.stdout


def test_nothing_is_taught_by_a_test_alone(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    words = [f"init_from={teacher.path}", f"teacher={teacher.path}", "train=false"]
    done = command(*tiny(*QUICK, *words, "hydra.run.dir=run"))
    assert done.returncode == 0, done.stdout
    assert "teacher changes nothing with train=false" in done.stdout
    assert "teacher" not in json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.slow
def test_latest_is_the_run_that_it_was_at_the_start(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    first = command(*tiny(*QUICK, "trainer.max_epochs=1"))
    assert first.returncode == 0, first.stdout
    latest = (tmp_path / "logs" / "train" / "latest").resolve()
    words = ["teacher=latest", "init_from=latest", "lr_factors={init_from:0.5}"]
    second = command(*tiny(*QUICK, *words, "trainer.max_epochs=1"))
    assert second.returncode == 0, second.stdout
    run = (tmp_path / "logs" / "train" / "latest").resolve()
    assert run != latest
    summary = json.loads((run / "summary.json").read_text())
    assert summary["teacher"]["runs"] == [str(latest)]
    again = command("resume=latest", "trainer.max_epochs=2")
    assert again.returncode == 0, again.stdout
    summary = json.loads((run / "summary.json").read_text())
    assert summary["teacher"]["runs"] == [str(latest)] and summary["epochs"] == 2


def test_a_strangers_run_allows_its_teacher_nothing(
    teacher: Result, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    """Its own config names a class to be allowed, and a teacher whose net is that class."""
    done = command(*tiny(*QUICK, "trainer.max_epochs=1", "hydra.run.dir=run"))
    assert done.returncode == 0, done.stdout
    run = tmp_path / "run"
    shutil.copytree(teacher.path, run / "teach")
    target = "torch.utils.collect_env.run"
    edit(run / "teach", "model", {"_target_": target, "command": f"touch {tmp_path}/taken"})
    edit(run, "allow", [target])
    edit(run, "teacher", str(run / "teach"))
    resumed = command("resume=run", "trainer.max_epochs=2")
    assert resumed.returncode == 1, resumed.stdout
    assert target in resumed.stdout
    assert not (tmp_path / "taken").exists()


@pytest.mark.slow
def test_a_teacher_of_another_split_is_warned_of(
    teacher: Result, tiny: Tiny, command: Command
) -> None:
    leak = r"was trained on (\d+) of the (\d+) images of val, such as \w+, which then says too much"
    done = command(*tiny(*QUICK, f"teacher={teacher.path}", "data.seed=3", "trainer.max_epochs=1"))
    assert done.returncode == 0, done.stdout
    own, other = (build_data(compose(tiny(*words))).listed() for words in ([], ["data.seed=3"]))
    both = {s.name for s in own.train} & {s.name for s in other.val}
    told = re.search(leak, " ".join(done.stdout.split()))
    assert told is not None and both
    assert [int(number) for number in told.groups()] == [len(both), len(other.val)]
    done = command(*tiny(*QUICK, f"init_from={teacher.path}", "train=false", "hydra.run.dir=same"))
    assert done.returncode == 0 and "says too much" not in done.stdout
    folds = ["data.folds=3", "data.fold=0", "trainer.max_epochs=1", "hydra.run.dir=fold"]
    done = command(*tiny(*QUICK, f"init_from={teacher.path}", *folds))
    assert done.returncode == 0, done.stdout
    assert re.search(leak, " ".join(done.stdout.split()))
