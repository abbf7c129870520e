"""A training on a GPU means what it means on a CPU; on a CPU these tests compare it with itself.

That a step doesn't wait for the device is in tests/train/test_no_waiting.py.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Train

import segpets
from segpets.compiled import Compiled
from segpets.run.checkpoint import read_checkpoint
from segpets.train import Result

GPU = pytest.param(
    "gpu",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    ],
)
EXACT = ["trainer.deterministic=true", "augment=none"]


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of conf/trainer."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, nothing is deterministic
    yield str(request.param)
    torch.use_deterministic_algorithms(False)


def losses(run: Result) -> list[float]:
    """The loss of each step."""
    with (run.path / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def weights(run: Result) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in run.module.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "apart"), [("32-true", 1e-3), ("bf16-mixed", 0.05)])
def test_losses_are_those_of_a_cpu_in_float32(
    device: str, train_tiny: Train, precision: str, apart: float
) -> None:
    words = [f"trainer.precision={precision}", "augment=none", "optimizer=sgd"]
    there = train_tiny(f"trainer={device}", *words, folder="there")
    here = train_tiny("trainer=cpu", "augment=none", "optimizer=sgd", folder="here")
    assert len(losses(here)) > 4
    assert losses(there) == pytest.approx(losses(here), rel=apart)
    metric = "test/pixel_accuracy"
    assert there.metrics[metric] == pytest.approx(here.metrics[metric], abs=10 * apart)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(device: str, train_tiny: Train) -> None:
    one, other = (train_tiny(f"trainer={device}", *EXACT, folder=name) for name in "ab")
    assert losses(one) == losses(other)
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.mark.slow
def test_a_training_goes_on_as_if_it_had_not_stopped(
    device: str, train_tiny: Train, command: Command, tmp_path: Path
) -> None:
    words = [f"trainer={device}", "trainer.deterministic=true", "augment=device_crop"]
    train_tiny(*words, "scheduler=none", folder="whole")
    train_tiny(*words, "scheduler=none", "trainer.max_epochs=1", folder="part")
    done = command(f"resume={tmp_path / 'part'}", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stdout
    ends = [
        read_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part")
    ]
    for name, value in ends[0]["state_dict"].items():
        assert torch.equal(ends[1]["state_dict"][name], value), name


@pytest.mark.slow
def test_a_compiled_training_learns_the_same_and_its_checkpoint_is_read_without(
    device: str, train_tiny: Train
) -> None:
    words = [f"trainer={device}", "augment=none", "optimizer=sgd", "data.size=32"]
    eager = train_tiny(*words, "trainer.compile=false", folder="eager")
    compiled = train_tiny(*words, "trainer.compile=true", folder="compiled")
    assert isinstance(compiled.module._step, Compiled) and compiled.module._step.works
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-3)
    first = next(iter(eager.datamodule.plain_dataloader("test")))["image"]
    one, other = (segpets.load(run.path).logits(first).cpu() for run in (eager, compiled))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_an_export_says_what_its_training_on_the_device_said(
    device: str, train_tiny: Train, command: Command, tmp_path: Path
) -> None:
    run = train_tiny(f"trainer={device}")
    for kind in ("torch_export", "onnx"):
        words = [f"run={run.path}", f"format={kind}", "images=7", "repeats=1"]
        done = command(*words, f"output={tmp_path / kind}", module="segpets.export")
        assert done.returncode == 0, done.stdout
        (facts,) = json.loads((tmp_path / kind / "export.json").read_text()).values()
        tested = run.metrics["test/mean_iou"]
        assert facts["mean_iou_exported"] == pytest.approx(tested, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["callback=ema"], ["data.fit=none", "data.window=48"]])
def test_what_is_done_with_a_run_gives_its_numbers_on_the_device(
    device: str, train_tiny: Train, command: Command, tmp_path: Path, words: list[str]
) -> None:
    """Averaged weights; and pictures of their own sizes, looked at through windows."""
    crops = ["augment=scale_crop", "data.crop=48"] if "data.fit=none" in words else []
    run = train_tiny(f"trainer={device}", *words, *crops)
    kind = {"cpu": "cpu", "gpu": "cuda"}[device]
    given = [f"run={run.path}", f"device={kind}"]
    done = command(*given, "hydra.run.dir=judged", module="segpets.evaluate")
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "judged" / "evaluation.json").read_text())["metrics"]
    assert found["test/mean_iou"] == pytest.approx(run.metrics["test/mean_iou"], abs=1e-3)
    assert found["test/loss"] == pytest.approx(run.metrics["test/loss"], rel=1e-2)
    picture = run.datamodule.splits["test"][0].image
    done = command(*given, f"source='{picture}'", "output=out", module="segpets.predict")
    assert done.returncode == 0, done.stdout
    assert len([*(tmp_path / "out" / "masks").iterdir()]) == 1
