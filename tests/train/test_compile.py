"""A compiled training ends as another does, and where nothing compiles it runs as it is."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny, Train
from torch import Tensor

from segpets.compiled import Compiled
from segpets.run.checkpoint import read_checkpoint

ONE = ("data.size=32", "trainer.max_epochs=1", "optimizer=sgd", "data.batch_size=4")


@pytest.mark.slow
def test_a_compiled_training_ends_as_another_and_is_resumed(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    for folder, compiled in (("a", "true"), ("b", "false")):
        words = tiny(*ONE, f"trainer.compile={compiled}")
        done = command(*words, f"hydra.run.dir={folder}", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
        assert done.returncode == 0, done.stdout
        assert ("channels last, compiled" in done.stdout) == (compiled == "true")
        assert "can't compile" not in done.stdout
    states = [read_checkpoint(tmp_path / f / "checkpoints/last.ckpt") for f in ("a", "b")]
    mine, other = (state["state_dict"] for state in states)
    assert mine.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-3, msg=name)
    words = ["run=a", "format=torch_export", "images=4", "repeats=1"]
    exported = command(*words, module="segpets.export")  # compares it with the model, eager
    assert exported.returncode == 0, exported.stdout
    done = command("resume=a", "trainer.max_epochs=2", "trainer.compile=false")
    assert done.returncode == 0, done.stdout
    assert json.loads((tmp_path / "a/summary.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_without_a_compiler_a_line_says_so_and_the_training_runs(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    nothing = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = command(*tiny(*ONE, "trainer.compile=true"), "hydra.run.dir=run", **nothing)
    assert done.returncode == 0, done.stdout
    told = [line for line in done.stdout.splitlines() if "can't compile the step" in line]
    assert len(told) == 1 and "it runs as it is" in told[0]
    assert "Traceback" not in done.stdout


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.message for one in caplog.records if one.name == "segpets.compiled"]


def scaled(weight: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A step of one weight: its logits and its loss."""

    def step(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits = image * weight.sin()
        return logits, (logits - mask).square().mean()

    return step


@pytest.mark.slow
def test_only_the_first_shape_is_compiled_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    weight = torch.tensor(0.3, requires_grad=True)
    step = Compiled(scaled(weight))
    shapes = [(2, 3, 8, 8), (2, 3, 4, 6), (2, 3, 8, 8), (2, 3, 6, 6)]
    for shape in shapes:
        image, mask = torch.ones(shape), torch.zeros(shape)
        logits, loss = step(image, mask)
        (slope,) = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(logits, torch.full(shape, math.sin(0.3)))
        assert slope.item() == pytest.approx(2 * math.sin(0.3) * math.cos(0.3), rel=1e-5)
    assert ours(caplog) == [
        "trainer.compile: batches have several shapes, 8x8 and 4x6 among them: only the first runs "
        "compiled"
    ]


@pytest.mark.slow
def test_a_backward_pass_that_cannot_be_compiled_runs_as_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("WARNING")

    def refuse(*args: object, **kwargs: object) -> None:
        raise NotImplementedError("no backward here")

    weight = torch.tensor(0.3, requires_grad=True)
    step = Compiled(scaled(weight))
    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx_backward", refuse)
    image, mask = torch.ones(1, 3, 5, 5), torch.zeros(1, 3, 5, 5)
    for _ in range(2):
        _, loss = step(image, mask)
        (slope,) = torch.autograd.grad(loss, weight)
        assert slope.item() == pytest.approx(2 * math.sin(0.3) * math.cos(0.3), rel=1e-5)
    (told,) = ours(caplog)
    assert "this machine can't compile the step" in told and "it runs as it is" in told


@pytest.mark.parametrize("choice", ["max", "1", "null"])
def test_another_choice_is_refused(train_tiny: Train, choice: str) -> None:
    with pytest.raises(Exception, match=r"trainer\.compile=\w+: give auto, true or false"):
        train_tiny(f"trainer.compile={choice}")
