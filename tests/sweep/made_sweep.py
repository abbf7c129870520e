"""Sweeps with a loss that has moods, and what they leave."""

import json
import os
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
LOSS = """
import os
import sys
import time

import torch
from torch import Tensor

from segpets.loss import CrossEntropyLoss


class Moody(CrossEntropyLoss):
    def __init__(self, *, num_classes: int, mood: str) -> None:
        super().__init__(num_classes=num_classes)
        self.mood = mood

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.is_leaf:  # it is tried before the training
            return super().forward(logits, target)
        if self.mood == "raise":
            raise RuntimeError("what a bad mood")
        if self.mood == "exit":
            sys.exit(0)
        if self.mood == "die":
            os._exit(1)
        if self.mood == "slow":
            time.sleep(0.1)
        return super().forward(logits, target)
"""
CONFIG = "_target_: moody.Moody\nnum_classes: ${len:${data.classes}}\nmood: good\n"
NAMES = """
from pathlib import Path

from lightning.pytorch import Callback


class Names(Callback):
    \"\"\"Writes down which images each step of a training sees.\"\"\"

    def __init__(self, folder: str) -> None:
        self.file = Path(folder, "names.txt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with self.file.open("a") as file:
            file.write(f"{trainer.global_step} {' '.join(batch['name'])}\\n")
"""


def environment(own: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(own), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    """The summaries of a sweep's jobs, by the mood or the seed that tells them apart."""
    found = {}
    for file in (folder / "logs" / "train" / "multiruns" / "s").glob("*/summary.json"):
        if "failed-" not in file.parent.name and "replaced-" not in file.parent.name:
            summary = json.loads(file.read_text()) | {"path": file.parent}
            told = [w for w in summary["overrides"] if w.startswith(("loss.mood", "seed", "tags"))]
            found[" ".join(sorted(told))] = summary
    return found


def metrics(summary: dict[str, Any]) -> dict[str, float]:
    measured = ("images_per_second", "peak_memory_mb")
    return {k: v for k, v in summary.items() if "/" in k and not k.endswith(measured)}


def weights(summary: dict[str, Any]) -> dict[str, torch.Tensor]:
    file = summary["path"] / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def names_of_steps(summary: dict[str, Any]) -> dict[str, set[str]]:
    """The images of each step; a step that was done again must have had the same ones."""
    seen: dict[str, set[str]] = {}
    for line in (summary["path"] / "names.txt").read_text().splitlines():
        step, _, listed = line.partition(" ")
        seen.setdefault(step, set()).add(listed)
    return seen
