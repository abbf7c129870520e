"""A run that goes on: to the same weights, in its directory, and nothing else about it changes."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Command, Tiny, Train
from lightning.pytorch import Callback, LightningModule, Trainer
from made_runs import edit
from PIL import Image

from segpets.cli.suggest import quoted
from segpets.config import compose
from segpets.errors import UserError
from segpets.train import Result, train

ROOT = Path(__file__).parents[2]
# A schedule by epochs, so that the first half of four epochs is what two epochs are.
SHORT = ("scheduler=step", "scheduler.step_size=1", "model=vit_tiny", "model.dropout=0.1")
SMALL = ("model.width=24", "model.depth=1")


def go_on(folder: Path, *overrides: str) -> Result:
    words = [f"resume={folder}", *overrides]
    return train(compose(words))


def last(folder: Path) -> dict[str, object]:
    checkpoint: dict[str, object] = torch.load(
        folder / "checkpoints" / "last.ckpt", weights_only=True
    )
    return checkpoint


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = last(one)["state_dict"], last(other)["state_dict"]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    train_tiny: Train, tmp_path: Path
) -> None:
    train_tiny(*SHORT, *SMALL, "trainer.max_epochs=4", folder="straight")
    train_tiny(*SHORT, *SMALL, "trainer.max_epochs=2", folder="stopped")
    result = go_on(tmp_path / "stopped", "trainer.max_epochs=4")

    assert_same_weights(tmp_path / "straight", tmp_path / "stopped")
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["epochs"] == 4
    assert summary["resumed"] == [[f"resume={result.path}", "trainer.max_epochs=4"]]
    with (result.path / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["val/mean_iou"]]
    assert epochs == [0, 1, 2, 3]


def test_a_run_goes_on_without_the_run_that_it_began_with(
    train_tiny: Train, tmp_path: Path
) -> None:
    """Which of its weights that one brought is still known: they have a rate of their own."""
    train_tiny("trainer.max_epochs=1", "model.widths=[4,12]", "test=false", folder="first")
    words = ["scheduler=step", f"init_from={tmp_path / 'first'}", "lr_factors={init_from:0.01}"]
    train_tiny(*words, "trainer.max_epochs=2", folder="straight")
    train_tiny(*words, "trainer.max_epochs=1", folder="stopped")
    (tmp_path / "first").rename(tmp_path / "gone")
    go_on(tmp_path / "stopped", "trainer.max_epochs=2")
    assert_same_weights(tmp_path / "straight", tmp_path / "stopped")


@pytest.mark.slow
def test_the_time_before_a_kill_counts(train_tiny: Train, tmp_path: Path) -> None:
    train_tiny(*SHORT, *SMALL, "trainer.max_epochs=2", folder="killed")
    checkpoint, file = last(tmp_path / "killed"), tmp_path / "killed" / "summary.json"
    (state,) = [s for s in checkpoint["callbacks"].values() if "seconds" in s]  # type: ignore[attr-defined]
    assert 0 < state["seconds"] <= json.loads(file.read_text())["seconds"]
    state["seconds"] = 5000.0
    torch.save(checkpoint, tmp_path / "killed" / "checkpoints" / "last.ckpt")
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in summary.items() if k != "seconds"}))
    go_on(tmp_path / "killed", "trainer.max_epochs=3")
    assert 5000 < json.loads(file.read_text())["seconds"] < 5100


class Power(Callback):
    """A power cut after so many steps, and the means of the images until then."""

    def __init__(self, steps: int = 1_000_000) -> None:
        self.steps, self.seen = steps, list[float]()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.steps:
            raise RuntimeError("the power is cut")
        self.seen.append(batch["image"].double().mean().item())


@pytest.mark.parametrize("step", [5, 6], ids=["in mid-epoch", "between two epochs"])
def test_worker_processes_of_a_resumed_run_begin_with_the_images_that_come(
    train_tiny: Train, tmp_path: Path, step: int
) -> None:
    """Lightning makes them read ahead before it tells the loader its epoch."""
    words = ["trainer.max_epochs=3", "test=false", "callback.best_and_last.every_n_steps=1"]
    whole, cut, rest = Power(), Power(step), Power()
    train_tiny(*words, folder="whole", callbacks=[whole])  # 3 steps an epoch
    with pytest.raises(RuntimeError, match="power"):
        train_tiny(*words, folder="cut", callbacks=[cut])
    cfg = compose([f"resume={tmp_path / 'cut'}", "data.num_workers=2"])
    train(cfg, callbacks=[rest])
    saved = len(whole.seen) - len(rest.seen)
    assert step - 1 <= saved <= step
    assert cut.seen[:saved] + rest.seen == whole.seen
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_a_resumed_run_may_be_allowed_a_class_of_its_own(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from lightning.pytorch import Callback\nclass Mine(Callback):\n    pass\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = tiny("trainer.max_epochs=1", "test=false", "hydra.run.dir=run")
    done = command(*words, "+callback.own._target_=own.Mine", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout
    refused = command("resume=run", "trainer.max_epochs=2", PYTHONPATH=path)
    assert refused.returncode == 1 and "allow=[own.Mine]" in refused.stdout
    done = command("resume=run", "trainer.max_epochs=2", "allow=[own.Mine]", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout
    assert last(tmp_path / "run")["epoch"] == 1


@pytest.mark.slow
def test_a_run_that_was_moved_goes_on_where_it_is(train_tiny: Train, tmp_path: Path) -> None:
    train_tiny("trainer.max_epochs=1", folder="before")
    (tmp_path / "before").rename(tmp_path / "after")
    go_on(tmp_path / "after", "trainer.max_epochs=2")
    assert not (tmp_path / "before").exists()
    assert last(tmp_path / "after")["epoch"] == 1


def test_without_a_readable_checkpoint_the_one_before_is_taken(
    train_tiny: Train, tmp_path: Path
) -> None:
    train_tiny("trainer.max_epochs=2", folder="run")
    folder = tmp_path / "run" / "checkpoints"
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").write_bytes((folder / "best.ckpt").read_bytes()[:1000])
    go_on(tmp_path / "run", "trainer.max_epochs=3")
    assert last(tmp_path / "run")["epoch"] == 2


def test_data_that_lie_elsewhere_now_are_named(
    tiny_pets: Path, train_tiny: Train, tmp_path: Path
) -> None:
    before, now = tmp_path / "before", tmp_path / "it's now"
    shutil.copytree(tiny_pets, before)
    train_tiny("trainer.max_epochs=1", f"data.root={before}", folder="run")
    before.rename(now)
    with pytest.raises(UserError, match="is not a folder"):
        go_on(tmp_path / "run", "trainer.max_epochs=2")
    result = go_on(tmp_path / "run", "trainer.max_epochs=2", f"data.root={quoted(str(now))}")
    assert last(result.path)["epoch"] == 1
    file = sorted((now / "images").glob("*.jpg"))[0]
    Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)
    with pytest.raises(UserError, match="images or masks have changed since this run began"):
        go_on(result.path, "trainer.max_epochs=3", f"data.root={quoted(str(now))}")


def test_what_would_make_another_run_is_refused(train_tiny: Train, tmp_path: Path) -> None:
    train_tiny("trainer.max_epochs=1", "test=false", folder="run")
    with pytest.raises(UserError, match=r"seed=2 can't change it. Start a new run with init_from="):
        go_on(tmp_path / "run", "seed=2")
    other = "callback.best_and_last.monitor=val/pixel_accuracy"  # than the best was chosen by
    with pytest.raises(UserError, match=f"{other} can't change it"):
        go_on(tmp_path / "run", other)


def test_the_command_line_goes_on_with_the_latest_run(command: Command, tiny: Tiny) -> None:
    assert command(*tiny("trainer.max_epochs=1", "paths.log_dir=my_logs")).returncode == 0
    done = command("resume=latest", "trainer.max_epochs=2", "paths.log_dir=my_logs")
    assert done.returncode == 0, done.stdout
    assert "Continuing from" in done.stdout
    assert "epoch 2 of 2" in done.stdout


def test_a_run_that_is_extended_without_a_test_forgets_the_old_one(
    train_tiny: Train, tmp_path: Path
) -> None:
    """Which was of other weights."""
    train_tiny("trainer.max_epochs=1", folder="run")
    result = go_on(tmp_path / "run", "trainer.max_epochs=2", "test=false")
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["epochs"] == 2
    assert not [key for key in summary if key.startswith("test/")]


@pytest.mark.slow
def test_weights_that_a_checkpoint_replaces_are_not_fetched_again(
    train_tiny: Train, tmp_path: Path
) -> None:
    """The run began with those of a hub, and goes on where there is no network."""
    run = train_tiny("model=smp", "trainer.max_epochs=1", folder="run").path
    edit(run, "model.encoder_weights", "imagenet")
    go_on(run, "trainer.max_epochs=2")
    assert "encoder_weights: imagenet" in (run / "config.yaml").read_text()
