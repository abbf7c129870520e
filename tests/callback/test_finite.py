"""A loss that is no number stops the run, and what was good is kept."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny, Train
from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.config import compose
from segpets.errors import UserError
from segpets.run.trust import Trust
from segpets.train import Result, train
from segpets.train.replay import replay

NAN_LOSS = """
import torch
from torch import nn


class Sours(nn.Module):
    '''Cross-entropy that is not finite from the given step on.'''

    def __init__(self, *, step, value):
        super().__init__()
        self.step, self.value, self.calls = step, float(value), 0

    def forward(self, logits, target):
        loss = nn.functional.cross_entropy(logits.float(), target, ignore_index=255)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls >= self.step:
                return loss * self.value
        return loss
"""


def write_loss(folder: Path) -> None:
    (folder / "sours.py").write_text(NAN_LOSS)
    (folder / "mine" / "loss").mkdir(parents=True)
    yaml = "_target_: sours.Sours\nstep: 6\nvalue: nan\n"
    (folder / "mine" / "loss" / "sours.yaml").write_text(yaml)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_it_stops_at_the_step_and_keeps_the_epochs_before(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    write_loss(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    searchpath = f"hydra.searchpath=[{tmp_path / 'mine'}]"
    with pytest.raises(UserError) as caught:
        train_tiny("loss=sours", f"loss.value={value}", "trainer.max_epochs=4", searchpath)
    # Three steps an epoch; the sixth is the last one of the second epoch.
    message = str(caught.value)
    assert f"the loss is {value} at step 6 (epoch 2), first in the loss function, for" in message
    for advice in ("optimizer.lr", "trainer.gradient_clip_val", "trainer.precision"):
        assert advice in message
    for name in ("best", "last"):
        file = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        checkpoint = torch.load(file, weights_only=True)
        assert checkpoint["epoch"] == 0
        weights = checkpoint["state_dict"].values()
        assert all(torch.isfinite(w).all() for w in weights if w.is_floating_point())
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_the_command_ends_with_code_1_and_says_what_to_try(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    write_loss(tmp_path)
    done = command("--config-dir=mine", *tiny("loss=sours"), "hydra.run.dir=run")
    assert done.returncode == 1
    assert "the loss is nan at step 6" in done.stdout
    assert "Traceback" not in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the loss is nan at step 6" in summary["error"]


SOURS_NET = """
import torch
from torch import nn


class SoursNet(nn.Module):
    '''A net whose second layer overflows in some step, in its output or in its gradient alone.'''

    def __init__(self, *, num_classes, step, part):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.third = nn.Conv2d(4, num_classes, 1)
        self.part, self.step = part, step
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        x = self.first(x)
        if self.training and torch.is_grad_enabled():
            self.calls += 1
        now = self.training and int(self.calls) >= self.step
        if now and self.part == "output":
            x = x * 1e30 * 1e30
        x = self.second(x)
        if now and self.part == "gradient":
            x.register_hook(lambda gradient: gradient * float("inf"))
        return self.third(x)
"""
SOURED = ("trainer.max_epochs=4", "~callback.pictures", "logger=[csv]", "optimizer=sgd")


def write_net(folder: Path) -> None:
    (folder / "sours_net.py").write_text(SOURS_NET)
    (folder / "mine" / "model").mkdir(parents=True)
    yaml = "_target_: sours_net.SoursNet\nnum_classes: 3\nstep: 5\npart: output\n"
    (folder / "mine" / "model" / "sours.yaml").write_text(yaml)


@pytest.mark.parametrize(
    ("part", "what", "layer"),
    [
        ("output", "the loss is nan", "net.second (Conv2d)"),
        ("gradient", "a gradient is no number", "net.second.bias (of 4 such weights)"),
    ],
)
def test_it_names_layer_and_images_and_the_step_can_be_run_again(
    command: Command, tiny: Tiny, tmp_path: Path, part: str, what: str, layer: str
) -> None:
    write_net(tmp_path)
    words = tiny("model=sours", f"model.part={part}", *SOURED)
    done = command("--config-dir=mine", *words, "hydra.run.dir=run")
    assert done.returncode == 1
    assert f"{what} at step 5 (epoch 2), first in {layer}, for the images" in done.stdout
    run = tmp_path / "run"
    note = json.loads((run / "failed_step.json").read_text())
    assert (note["step"], note["epoch"], note["batch"], note["layer"]) == (5, 2, 2, layer)
    assert len(note["images"]) == 4
    assert all(name in done.stdout for name in note["images"])
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}

    again = command("--config-dir=mine", "debug=replay", "run=run", "hydra.run.dir=again")
    assert again.returncode == 0, again.stdout
    assert f"Images: {', '.join(note['images'])}" in again.stdout
    assert "Running step 5 again, from run/checkpoints/last.ckpt" in again.stdout
    name = {"output": "second", "gradient": "second.bias"}[part]
    for precision in ("float32", "bf16"):
        verdict = f"the first {part} that is no number is that of net.{name}"
        line = next(line for line in again.stdout.splitlines() if f"{precision}: loss" in line)
        assert verdict in line
    with (tmp_path / "again" / "replay.csv").open(newline="") as file:
        rows = {row["value"]: row for row in csv.DictReader(file)}
    assert math.isfinite(float(rows["output net.first (Conv2d)"]["float32"]))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_it_stops_at_the_step_after_a_resume_in_mid_epoch(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_net(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    searchpath = f"hydra.searchpath=[{tmp_path / 'mine'}]"
    said = r"a gradient is no number at step 5 \(epoch 2\)"
    words = [
        "model=sours",
        "model.part=gradient",
        *SOURED,
        "callback.best_and_last.every_n_steps=4",
    ]
    with pytest.raises(UserError, match=said):
        train_tiny(*words, searchpath)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (saved["global_step"], saved["batches"]) == (4, 1)
    with pytest.raises(UserError, match=said):
        train(compose([f"resume={tmp_path / 'run'}", "allow=[sours_net.SoursNet]"]))


@pytest.mark.parametrize(
    "words",
    [
        ["model=vit_tiny", "model.width=24", "model.depth=1", "model.dropout=0.3", "callback=ema"],
        ["model.auxiliary=1", "model.widths=[4,8,16]", "teacher=TEACHER"],
        ["freeze=[down]"],  # whose statistics are kept from the first step on
    ],
)
def test_a_replayed_step_is_that_of_the_training(
    train_tiny: Train, tmp_path: Path, finished: Result, words: list[str]
) -> None:
    words = [word.replace("TEACHER", str(finished.path)) for word in words]
    train_tiny(*words, "trainer.precision=32", folder="run")
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        losses = {int(row["step"]) + 1: row["train/loss"] for row in csv.DictReader(file)}
    for step in (1, 2, 5):  # from the start, and from the checkpoint of the first epoch
        place = tmp_path / f"again-{step}"
        words = ["debug=replay", f"run={tmp_path / 'run'}", f"replay_step={step}"]
        cfg = compose([*words, f"hydra.run.dir={place}"])
        place.mkdir()
        with replay(cfg, Trust()).open(newline="") as file:
            rows = {row["value"]: row for row in csv.DictReader(file)}
        assert f"{float(rows['loss']['float32']):.9g}" == losses[step]
        assert float(rows["loss"]["bf16"]) != float(rows["loss"]["float32"])
        assert float(rows["loss"]["bf16"]) == pytest.approx(float(losses[step]), rel=0.05)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "holds no failed_step.json: no step of it failed"),
        (("replay_step=0",), "replay_step is 0: steps are counted from 1"),
        (("replay_step=99",), "replay_step is 99, but the training has 6 steps"),
    ],
)
def test_a_step_that_is_not_there_is_said(
    finished: Result, tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    words = ("debug=replay", f"run={finished.path}", f"hydra.run.dir={tmp_path}", *words)
    with pytest.raises(UserError, match=re.escape(reason)):
        replay(compose([*words]), Trust())


def test_a_checkpoint_of_weights_that_are_no_numbers_is_never_written(train_tiny: Train) -> None:
    class Spoils(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(math.nan)

    with pytest.raises(
        UserError, match=r"a weight is no number at step 6 \(epoch 2\), first in net"
    ):
        train_tiny(callbacks=[Spoils()])
