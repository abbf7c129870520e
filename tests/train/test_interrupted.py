"""A training that a signal stops, anywhere, goes on and ends as if nothing had happened."""

import csv
import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Start, Tiny, Train
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from torch import Tensor

from segpets.config import compose
from segpets.errors import UserError
from segpets.train import train

EMA = ("callback=ema", "scheduler=onecycle", "data.num_workers=1")
ACCUMULATING = (
    *("model=vit_tiny", "model.width=24", "model.depth=1", "model.dropout=0.1"),
    "+trainer.accumulate_grad_batches=2",
)
LONGER = ("trainer.max_epochs=4",)
VALIDATING = ("+trainer.val_check_interval=1",)
BY_STEPS = ("trainer.max_epochs=-1", "trainer.max_steps=9")  # 3 an epoch


class Stop(Callback):
    """Sends a signal after some training batch, or during some epoch's validation."""

    def __init__(self, number: int, *, after: int = 0, while_validating: int = 0) -> None:
        self.number, self.after, self.while_validating = number, after, while_validating
        self.trained = self.validated = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.trained += 1
        if self.trained == self.after:
            signal.raise_signal(self.number)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validated += 1

    def on_validation_batch_end(self, *args: Any) -> None:
        if self.validated == self.while_validating:
            signal.raise_signal(self.number)


class Order(Callback):
    """Notes the images of each training batch."""

    def __init__(self) -> None:
        self.names: list[tuple[int, int, list[str]]] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.names.append((trainer.current_epoch, batch_idx, batch["name"]))


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    """Names what isn't equal to the last bit; what is of the machine is left out."""
    if place.endswith(("peak_memory_mb", "images_per_second", "seconds")):
        return []
    if isinstance(one, dict):
        keys = one.keys() | other.keys()
        return [d for k in keys for d in differing(one.get(k), other.get(k), f"{place}/{k}")]
    if isinstance(one, list):
        assert len(one) == len(other), place
        return [d for i in range(len(one)) for d in differing(one[i], other[i], f"{place}/{i}")]
    same = torch.equal(one, other) if isinstance(one, Tensor) else one == other or one != one
    return [] if same else [place]


def saved_at(file: Path) -> tuple[int, int] | None:
    """Reads the epoch and the batch of a checkpoint; None if it isn't there at this moment."""
    try:
        saved = torch.load(file, weights_only=True)
    except FileNotFoundError:
        return None
    return saved["epoch"], saved.get("batches", 0)


def left_by(run: Path) -> dict[str, Any]:
    with (run / "metrics.csv").open(newline="") as file:
        rows = {row["step"]: dict(row) for row in csv.DictReader(file)}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = [t for t in events.Tags()["scalars"] if t.startswith(("train/", "val/", "test/"))]
    points = {t: [[e.step, e.value] for e in events.Scalars(t)] for t in tags}
    files = {name: run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")}
    saved = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    return {"rows": rows, "points": points, **saved}


Undisturbed = Callable[[tuple[str, ...]], tuple[Path, list[Any]]]


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """undisturbed(words) trains once without a signal: the run and the order of its images."""

    @functools.cache
    def trained(words: tuple[str, ...]) -> tuple[Path, list[Any]]:
        order, folder = Order(), tmp_path_factory.mktemp("undisturbed") / "run"
        train(compose([*tiny(*words), f"hydra.run.dir={folder}"]), callbacks=[order])
        return folder, order.names

    return trained


@pytest.mark.parametrize(
    ("words", "number", "at"),
    [
        (EMA, signal.SIGTERM, {"after": 2}),
        (EMA, signal.SIGUSR1, {"while_validating": 2}),
        (ACCUMULATING, signal.SIGUSR1, {"after": 1}),  # with half of a step's gradients
        (ACCUMULATING, signal.SIGINT, {"after": 5}),
        (VALIDATING, signal.SIGTERM, {"after": 5}),  # a validation is due
        (VALIDATING, signal.SIGTERM, {"while_validating": 1}),
        (BY_STEPS, signal.SIGTERM, {"after": 4}),
    ],
    ids=["mid-epoch", "validation", "half a step", "ctrl-c", "before", "in between", "by steps"],
)
def test_it_goes_on_to_the_last_bit(
    tiny: Tiny,
    undisturbed: Undisturbed,
    tmp_path: Path,
    words: tuple[str, ...],
    number: int,
    at: dict[str, int],
) -> None:
    run, order = tmp_path / "run", Order()
    folder, names = undisturbed(words)
    cfg = compose([*tiny(*words), f"hydra.run.dir={run}"])
    with pytest.raises(KeyboardInterrupt, match=r"resume=.*run goes on from there"):
        train(cfg, callbacks=[Stop(number, **at), order])
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert list((run / "checkpoints").glob(".*")) == []

    train(compose([f"resume={run}"]), callbacks=[order])
    assert order.names == names, "no batch is trained twice, and none is left out"
    assert differing(left_by(folder), left_by(run)) == []
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("completed", names[-1][0] + 1)


def test_a_kill_between_epochs_changes_nothing_of_a_training_by_steps(
    tiny: Tiny, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    class Die(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == 4:  # of 3 an epoch, after which it was saved
                raise RuntimeError("gone")

    run, order = tmp_path / "run", Order()
    folder, names = undisturbed(BY_STEPS)
    with pytest.raises(RuntimeError, match="gone"):
        train(compose([*tiny(*BY_STEPS), f"hydra.run.dir={run}"]), callbacks=[Die()])
    train(compose([f"resume={run}"]), callbacks=[order])
    assert order.names == names[3:]
    assert differing(left_by(folder), left_by(run)) == []


@pytest.mark.parametrize(
    "words",
    [("callback=early_stopping",), ("optimized_metric=val/iou/pet",)],
    ids=["early stopping", "another metric"],
)
def test_names_of_metrics_are_no_paths(
    train_tiny: Train, tmp_path: Path, words: tuple[str, ...]
) -> None:
    train_tiny(*words, "test=false")
    result = train(compose([f"resume={tmp_path / 'run'}", "trainer.max_epochs=3"]))
    assert json.loads((result.path / "summary.json").read_text())["epochs"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 6])
def test_a_plateau_schedule_knows_the_epoch_of_the_stop(
    tiny: Tiny, undisturbed: Undisturbed, tmp_path: Path, after: int
) -> None:
    # A loss that falls is no maximum, so each epoch lowers the rate.
    plateau = ("scheduler=plateau", "scheduler.patience=0", "scheduler.monitor=val/loss")
    words = (*plateau, "scheduler.mode=max", "optimizer.lr=0.004", *LONGER)
    run = tmp_path / "run"
    folder, _ = undisturbed(words)
    with pytest.raises(KeyboardInterrupt):
        cfg = compose([*tiny(*words), f"hydra.run.dir={run}"])
        train(cfg, callbacks=[Stop(signal.SIGTERM, after=after)])
    train(compose([f"resume={run}"]))
    left = left_by(run)
    assert differing(left_by(folder), left) == []
    assert left["last"]["optimizer_states"][0]["param_groups"][0]["lr"] == 0.001  # halved twice


@pytest.mark.slow
def test_a_kill_loses_no_more_than_the_steps_since_the_last_save(
    start: Start, tiny: Tiny, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    words = ("callback.best_and_last.every_n_steps=2", "data.batch_size=2", *LONGER)
    folder, _ = undisturbed(words)
    process = start(*tiny(*words), "hydra.run.dir=run")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    previous, seen = last.with_name("previous.ckpt"), 0
    while seen < 5 and process.poll() is None:
        seen += previous.exists() and saved_at(last) != saved_at(previous)
    process.kill()
    process.wait()
    before = saved_at(last if last.exists() else previous)
    done = start(f"resume={tmp_path / 'run'}").wait()
    assert done.returncode == 0, done.stdout
    if before is not None and before[1]:
        assert f"epoch {before[0] + 1} after batch {before[1]}" in done.stdout
    assert differing(left_by(folder), left_by(tmp_path / "run")) == []


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (("callback.best_and_last.every_n_steps=2",), 3 + 1),
        (("callback.best_and_last.every_n_minutes=0.0001",), 6 + 1),
        ((), 1),
    ],
    ids=["steps", "minutes", "default"],
)
def test_it_saves_in_mid_epoch_as_often_as_asked(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], count: int
) -> None:
    saves: list[int] = []
    save = Trainer.save_checkpoint

    def count_it(self: Trainer, *args: Any, **kwargs: Any) -> None:
        saves.append(self.global_step)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", count_it)
    train_tiny(*words, "data.batch_size=2", "trainer.max_epochs=1", "test=false", "logger=[]")
    assert len(saves) == len(set(saves)) == count


@pytest.mark.parametrize("key", ["every_n_steps", "every_n_minutes"])
def test_a_period_is_above_zero(train_tiny: Train, key: str) -> None:
    with pytest.raises(UserError, match=f"{key} is 0: give a number above 0, or null"):
        train_tiny(f"callback.best_and_last.{key}=0")


@pytest.mark.slow
def test_a_run_that_had_ended_logs_its_test_once_and_keeps_that_of_an_earlier_end(
    train_tiny: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files of one second are read by the names of their numbers, the tenth of a process before its
    # ninth. Real trainings are a process each.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(100))
    train_tiny("trainer.max_epochs=1")
    run = tmp_path / "run"
    train(compose([f"resume={run}"]))
    once = left_by(run)["points"]
    assert len(once["test/mean_iou"]) == len(once["val/mean_iou"]) == 1
    train(compose([f"resume={run}", "trainer.max_epochs=2"]))
    points = left_by(run)["points"]
    assert points["test/mean_iou"][:1] == once["test/mean_iou"]
    assert [step for step, _ in points["test/mean_iou"]] == [3, 6]
    assert [step for step, _ in points["train/loss"]] == list(range(6))
