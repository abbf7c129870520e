"""The average of the weights: recomputed by hand, validated, saved and tested."""

from typing import Any

import pytest
import torch
from fixture_types import TakePart, Train
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import Tensor, nn

from segpets.callback import EMA
from segpets.distillation import Distillation
from segpets.metric import SegmentationMetrics, confusion_matrices
from segpets.train import Result

DECAY = 0.3  # small, so that both parts of min(decay, (1 + n) / (10 + n)) are used


class Recorder(Callback):
    """Keeps the training's own weights after each step, and those that are validated."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0:
            self.validated.append({k: v.clone() for k, v in pl_module.state_dict().items()})


def averages(steps: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The average after each step; the first is the weights themselves."""
    average = steps[0]
    found = [average]
    for n, current in enumerate(steps[1:], start=1):
        d = min(DECAY, (1 + n) / (10 + n))
        average = {
            name: d * average[name] + (1 - d) * value if value.is_floating_point() else value
            for name, value in current.items()
        }
        found.append(average)
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], msg=name)


def val_mean_iou(result: Result) -> float:
    """Validates the weights that the module holds, without Lightning."""
    metrics = SegmentationMetrics(classes=result.module.classes)
    module = result.module.eval()
    with torch.no_grad():
        for batch in result.datamodule.val_dataloader():
            preds = module(batch["image"]).argmax(1)
            metrics.update(confusion_matrices(preds, batch["mask"], 3))
    return metrics.compute()["mean_iou"]


def test_the_average_is_what_is_validated_saved_and_tested(
    train_tiny: Train, take_part: TakePart
) -> None:
    recorder = Recorder()
    take_part(recorder)
    result = train_tiny("callback=ema", f"callback.ema.decay={DECAY}", "logger=[]")
    assert len(recorder.steps) == 6
    by_hand = averages(recorder.steps)
    of_epochs = [by_hand[2], by_hand[5]]
    for validated, average in zip(recorder.validated, of_epochs, strict=True):
        assert_same(validated, average)
    own = recorder.steps[-1]
    assert any(not torch.allclose(own[k], by_hand[-1][k]) for k in own)

    checkpoints = result.path / "checkpoints"
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    assert_same(last, by_hand[5])
    best = torch.load(checkpoints / "best.ckpt", weights_only=True)
    assert_same(best["state_dict"], of_epochs[best["epoch"]])
    assert_same(result.module.state_dict(), best["state_dict"])
    assert val_mean_iou(result) == pytest.approx(result.metrics["best/val/mean_iou"], abs=1e-7)


def test_what_looks_on_changes_nothing(train_tiny: Train) -> None:
    plain = train_tiny("logger=[]", "test=false", folder="plain").module.state_dict()
    averaged = train_tiny(
        "logger=[]", "test=false", "callback=ema", "callback.ema.decay=0", folder="averaged"
    ).module.state_dict()
    for name, value in plain.items():  # a decay of 0 is the weights themselves
        assert torch.equal(value, averaged[name]), name


def test_the_average_holds_no_second_teacher() -> None:
    module = BoringModel()
    module.distillation = Distillation(nn.Linear(32, 2), weight=1.0, temperature=1.0)
    callback = EMA()
    callback.setup(Trainer(accelerator="cpu", logger=False), module, "fit")
    assert callback._average_model is not None
    assert callback._average_model.module.distillation is module.distillation


def test_the_average_lies_where_the_weights_will_lie() -> None:
    """They are moved after setup. A GPU is played by the device of tensors without content."""
    module = BoringModel()
    module._device = torch.device("meta")  # as Lightning says before it moves them
    callback = EMA()
    callback.setup(Trainer(accelerator="cpu", logger=False), module, "fit")
    assert callback._average_model is not None
    assert {one.device.type for one in callback._average_model.parameters()} == {"meta"}
