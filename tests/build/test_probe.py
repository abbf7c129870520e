"""Nets and losses of one's own are tried before a training begins."""

from functools import partial
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny
from omegaconf import OmegaConf

from segpets.build import probe as trial
from segpets.build.instantiate import build
from segpets.config import compose
from segpets.errors import UserError
from segpets.paths import conf_dir

LOSSES = """
import torch
from torch import nn
from torch.nn import functional as F

class Map(nn.Module):
    def forward(self, logits, target):
        return F.cross_entropy(logits, target, ignore_index=255, reduction="none")

class Swapped(nn.Module):
    def forward(self, target, logits):
        return F.cross_entropy(logits, target, ignore_index=255)

class Hard(nn.Module):
    def forward(self, logits, target):
        return (logits.argmax(1) != target).float().mean()

class Number(nn.Module):
    def forward(self, logits, target):
        return logits.mean().item()

class Indexed(nn.Module):
    def forward(self, logits, target):
        hot = F.one_hot(target, logits.shape[1])
        return (logits.softmax(1) - hot.movedim(-1, 1)).square().mean()

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, logits, target):
        self.calls += 1
        windows = F.avg_pool2d(logits + torch.rand(1), 11, stride=1)  # of no 8 x 8 pixels
        return windows.mean()

def plain(logits, target):
    return F.cross_entropy(logits, target, ignore_index=255)
"""
LINE = {text: i for i, text in enumerate(LOSSES.splitlines(), 1)}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_trial_losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def tried(name: str) -> object:
    loss = build(OmegaConf.create({"_target_": f"my_trial_losses.{name}"}), "loss")
    trial.try_loss(loss, classes=3, size=(32, 32))
    return loss


def line_of(code: str) -> int:
    (found,) = [number for text, number in LINE.items() if code in text]
    return found


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Map", r"Map gives a tensor of shape \(2, 8, 8\) and type float32"),
        ("Hard", "Hard gives a number without a gradient for the logits"),
        ("Number", "Number gives a float, but should give a tensor with one number"),
        ("Swapped", r"Swapped fails for .*Error: .*\(my_trial_losses.py, line \d+\)"),
    ],
)
def test_a_loss_that_cannot_be_trained_with_is_refused(mine: Path, name: str, answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        tried(name)


def test_the_line_of_the_losss_own_file_is_named(mine: Path) -> None:
    with pytest.raises(UserError, match=r"RuntimeError: .*line (\d+)\)") as refused:
        tried("Indexed")
    assert f"(my_trial_losses.py, line {line_of('F.one_hot')})" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_trial_changes_neither_the_random_state_nor_the_loss(mine: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loss = tried("Noisy")
    assert torch.equal(torch.get_rng_state(), before)
    assert loss.calls == 0  # type: ignore[attr-defined]


def test_a_plain_function_serves_as_a_loss(mine: Path) -> None:
    from my_trial_losses import plain  # type: ignore[import-not-found]

    trial.try_loss(plain, classes=3, size=(32, 32))
    with pytest.raises(UserError, match=r"the loss my_trial_losses\.plain fails .*multiple values"):
        trial.try_loss(partial(plain, target=None), classes=3, size=(32, 32))


@pytest.mark.parametrize("file", sorted((conf_dir() / "loss").glob("*.yaml")), ids=lambda f: f.stem)
@pytest.mark.parametrize("classes", [2, 19])
def test_every_loss_of_segpets_passes(file: Path, classes: int) -> None:
    names = ",".join(f"c{index}" for index in range(classes))
    cfg = compose([f"loss={file.stem}", "data=folder", "data.root=x", f"data.classes=[{names}]"])
    trial.try_loss(build(cfg.loss, "loss"), classes=classes, size=(32, 32))


NETS = """
import torch
from torch import nn

class Halving(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(8, num_classes, 1)
    def forward(self, image):
        x = self.a(image)
        y = nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2)
        return self.b(torch.cat([x, y], dim=1))

class Table(Halving):
    def forward(self, image):
        return {"out": self.b(torch.cat([self.a(image)] * 2, dim=1))}
"""


def test_nets_and_losses_are_tried_by_the_command(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "losses.py").write_text(LOSSES)
    (tmp_path / "nets.py").write_text(NETS)
    for group in ("model", "loss"):
        (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "map.yaml").write_text("_target_: losses.Map\n")
    for name in ("Halving", "Table"):
        config = f"_target_: nets.{name}\nnum_classes: ${{len:${{data.classes}}}}\n"
        (tmp_path / "mine" / "model" / f"{name.lower()}.yaml").write_text(config)

    def told(*words: str) -> str:
        done = command("--config-dir=mine", *tiny(*words))
        assert done.returncode == 1
        *_, error = done.stdout.splitlines()
        assert error.startswith("error: ")
        return error

    assert "the loss losses.Map gives a tensor of shape (2, 8, 8)" in told("loss=map")
    odd = told("model=halving", "data.size=65")
    line = 1 + NETS.splitlines().index("        return self.b(torch.cat([x, y], dim=1))")
    assert "model nets.Halving doesn't take images of 65x65: RuntimeError: Sizes" in odd
    assert f"(nets.py, line {line})" in odd
    assert "segpets.model.pad.pad_to_multiple" in odd
    assert "to a dict, but should give logits for 3 classes" in told("model=table")
