"""best.ckpt and last.ckpt: which epochs they are, and that a crash leaves them whole."""

import math
import os
from pathlib import Path

import pytest
import torch
from fixture_types import TakePart, Train
from lightning.pytorch import Callback, LightningModule, Trainer

from segpets.callback import BestAndLast
from segpets.errors import UserError


class Scripted(Callback):
    """Puts val/mean_iou in place of what was measured, and remembers each epoch's files."""

    def __init__(self, values: list[float], folder: Path) -> None:
        self.values = values
        self.folder = folder
        self.epochs: list[tuple[int, int]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.callback_metrics["val/mean_iou"] = torch.tensor(self.values[trainer.current_epoch])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch:
            self.epochs.append((self.epoch_of("best"), self.epoch_of("last")))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, pl_module)

    def epoch_of(self, name: str) -> int:
        file = self.folder / f"{name}.ckpt"
        epoch = load(file)["epoch"] if file.exists() else -1
        assert isinstance(epoch, int)
        return epoch


def load(file: Path) -> dict[str, object]:
    checkpoint: dict[str, object] = torch.load(file, weights_only=True)
    return checkpoint


@pytest.fixture
def scripted(take_part: TakePart, tmp_path: Path) -> Scripted:
    """Takes part in the trainings of a test, before the other callbacks."""
    callback = Scripted([], tmp_path / "run" / "checkpoints")
    take_part(callback)
    return callback


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.1, 0.2, 0.3], [0, 1, 2]),
        ([0.3, 0.1, 0.2], [0, 0, 0]),
        ([0.1, 0.3, 0.3], [0, 1, 1]),  # the first of equals: what later ones add is not worth more
        ([float("nan"), 0.0, 0.1], [-1, 1, 2]),  # NaN chooses nothing
        ([0.2, float("nan"), 0.3], [0, 0, 2]),
    ],
)
def test_best_is_the_best_epoch_and_last_the_last(
    train_tiny: Train, scripted: Scripted, values: list[float], best: list[int]
) -> None:
    scripted.values = values
    train_tiny("trainer.max_epochs=3", "logger=[]", "test=false")
    assert scripted.epochs == list(zip(best, [0, 1, 2], strict=True))
    files = [scripted.folder / f"{name}.ckpt" for name in ("best", "last")]
    assert files[0].samefile(files[1]) == (best[-1] == 2)
    assert set(os.listdir(scripted.folder)) == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert load(scripted.folder / "last.ckpt")["epoch"] == 2
    assert load(scripted.folder / "previous.ckpt")["epoch"] == 1


def test_a_checkpoint_is_plain_data_with_its_metrics(train_tiny: Train) -> None:
    result = train_tiny("logger=[]")
    last = load(result.path / "checkpoints" / "last.ckpt")
    assert last["epoch"] == 1
    assert last["global_step"] == 2 * (15 // 4)
    metrics = last["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["val/mean_iou"] == result.metrics["val/mean_iou"]
    best = load(result.path / "checkpoints" / "best.ckpt")["metrics"]
    assert isinstance(best, dict)
    assert best["val/mean_iou"] == result.metrics["best/val/mean_iou"]
    assert best["val/mean_iou"] >= metrics["val/mean_iou"]


def test_the_best_weights_are_the_ones_that_are_tested(
    train_tiny: Train, scripted: Scripted
) -> None:
    scripted.values = [0.5, 0.1]
    result = train_tiny("logger=[]")
    best = load(scripted.folder / "best.ckpt")["state_dict"]
    last = load(scripted.folder / "last.ckpt")["state_dict"]
    assert isinstance(best, dict)
    assert isinstance(last, dict)
    tested = result.module.state_dict()
    assert all(torch.equal(tested[name], best[name]) for name in best)
    assert any(not torch.equal(tested[name], last[name]) for name in last)


def test_a_crash_while_saving_leaves_the_checkpoints_of_before(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    before: dict[str, bytes] = {}
    save = Trainer.save_checkpoint

    def crash_half_way(self: Trainer, filepath: str | Path, *args: object) -> None:
        save(self, filepath, *args)  # type: ignore[arg-type]
        if self.current_epoch == 1:
            before.update({file.name: file.read_bytes() for file in folder.glob("[a-z]*.ckpt")})
            whole = Path(filepath).read_bytes()
            Path(filepath).write_bytes(whole[: len(whole) // 2])
            raise OSError("no space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", crash_half_way)
    with pytest.raises(OSError, match="no space left"):
        train_tiny("logger=[]", "trainer.max_epochs=3")
    assert before.keys() == {"best.ckpt", "last.ckpt"}
    for name, content in before.items():
        assert (folder / name).read_bytes() == content
        assert load(folder / name)["epoch"] == 0


def test_a_metric_that_cannot_choose_the_best_is_refused(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="better the smaller it is"):
        BestAndLast(folder=str(tmp_path), monitor="val/loss")
    told = r"val/mIoU, which no validation measures: .* one of .*val/mean_iou"
    with pytest.raises(UserError, match=told):
        train_tiny("optimized_metric=val/mIoU", "trainer.max_epochs=1")


def test_the_best_value_survives_a_resume_with_its_weights_only(tmp_path: Path) -> None:
    first, second = (BestAndLast(folder=str(tmp_path)) for _ in range(2))
    first.best = 0.7
    second.load_state_dict(first.state_dict())
    assert second.best == -math.inf, "the best of the epochs to come would never be saved"
    (tmp_path / "best.ckpt").touch()
    second.load_state_dict(first.state_dict())
    assert second.best == 0.7
