"""A compiled training ends as another does, and where nothing compiles it runs as it is."""

import json
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny, Train

from segpets.run.checkpoint import read_checkpoint

ONE = ("data.size=32", "trainer.max_epochs=1", "optimizer=sgd", "data.batch_size=4")


@pytest.mark.slow
def test_a_compiled_training_ends_as_another_and_is_resumed(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    # 15 images in batches of 4: the last batch has another shape.
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


@pytest.mark.parametrize("choice", ["max", "1", "null"])
def test_another_choice_is_refused(train_tiny: Train, choice: str) -> None:
    with pytest.raises(Exception, match=r"trainer\.compile=\w+: give auto, true or false"):
        train_tiny(f"trainer.compile={choice}")
