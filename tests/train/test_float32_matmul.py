"""A training multiplies fp32 matrices as its config says, and leaves the process as it was."""

from pathlib import Path
from typing import Any

import torch
from fixture_types import Command, Tiny, Train
from lightning.pytorch import Callback


class Note(Callback):
    """Notes the process's setting after each step."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_end(self, *_: Any) -> None:
        """Adds a line."""
        with self.file.open("a") as out:
            print(torch.get_float32_matmul_precision(), file=out)


def test_the_setting_holds_for_the_training_alone(train_tiny: Train, tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision()
    noted = tmp_path / "noted"
    note = ["+callback.note._target_=test_float32_matmul.Note", f"+callback.note.file={noted}"]
    train_tiny(*note, "trainer.float32_matmul=medium", "trainer.precision=32-true")
    assert set(noted.read_text().split()) == {"medium"}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_another_setting_is_refused_in_words(command: Command, tiny: Tiny) -> None:
    done = command(*tiny("trainer.float32_matmul=tf32"))
    assert done.returncode == 1
    assert "trainer.float32_matmul=tf32: give highest, high or medium" in done.stdout
    assert "Traceback" not in done.stdout
