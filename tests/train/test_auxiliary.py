"""A training with auxiliary heads, and what comes after it."""

import json
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny

import segpets


@pytest.mark.slow
def test_auxiliary_heads_are_trained_and_never_seen_again(
    tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    words = [
        "model.widths=[4,8,8]",
        "model.auxiliary=1",
        "trainer.max_epochs=2",
        "hydra.run.dir=run",
    ]
    done = command(*tiny(*words))
    assert done.returncode == 0, done.stdout
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert "net.heads.0.weight" in saved["state_dict"]
    model = segpets.load(tmp_path / "run")
    assert model.logits(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 3, 64, 64)
    exported = command("run=run", module="segpets.export")
    assert exported.returncode == 0, exported.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    plain = command(*tiny(words[0], "trainer.max_epochs=1", "hydra.run.dir=plain"))
    assert plain.returncode == 0, plain.stdout
    other = json.loads((tmp_path / "plain" / "summary.json").read_text())
    assert summary["mult_adds"] == other["mult_adds"], "inference doesn't compute them"
    assert summary["params"] == other["params"] + 8 * 3 + 3
