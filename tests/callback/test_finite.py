"""A loss that is no number stops the run, and what was good is kept."""

import json
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny, Train

from segpets.errors import UserError

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
    assert f"the loss is {value} at step 6 (epoch 2)" in message
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
