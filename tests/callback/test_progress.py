"""The bar of a training in a terminal."""

import re
import sys

import pytest
from fixture_types import Train


@pytest.mark.parametrize("every", [2, 0])
def test_a_bar_in_a_terminal_shows_loss_and_iou(
    train_tiny: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    every: int,
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    metrics = train_tiny("test=false", f"trainer.log_every_n_steps={every}").metrics
    shown = capsys.readouterr().out
    lines = [line for line in re.split(r"[\r\n]", shown) if "Epoch 2/2" in line]
    assert lines
    assert f"val mIoU: {metrics['val/mean_iou']:.3f}" in re.sub(r"\x1b\[[0-9;?]*\w", "", lines[-1])
    assert f"loss: {metrics['train/loss']:.3f}" in lines[-1]
