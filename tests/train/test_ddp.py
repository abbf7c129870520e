"""Two processes leave what one leaves."""

import csv
import json
from pathlib import Path

import pytest
from fixture_types import Command, Tiny


@pytest.mark.slow
def test_a_training_of_two_processes_leaves_what_one_leaves(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    done = command(
        *tiny("trainer=ddp_sim", "callback=ema", "hydra.run.dir=run", "data.batch_size=2")
    )
    assert done.returncode == 0, done.stdout
    log = (tmp_path / "run" / "train.log").read_text()
    assert "epoch 1 of 2" in done.stdout
    for strange in ("Initializing distributed", "Warning", "weights_only", "Restoring states"):
        assert strange not in done.stdout
    assert "epoch 2 of 2" in log

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["epochs"] == 2
    assert summary["train/mean_iou"] < summary["train/pixel_accuracy"]
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column in ("train/loss", "val/mean_iou", "test/mean_iou"):
        assert [row for row in rows if row[column]], column


@pytest.mark.slow
def test_an_error_in_a_process_is_told_in_words(command: Command, tiny: Tiny) -> None:
    done = command(
        *tiny("trainer=ddp_sim", "data.batch_size=2", "optimizer=sgd", "optimizer.lr=1e30")
    )
    assert done.returncode == 1
    assert "loss is" in done.stdout
    assert "Try a lower optimizer.lr" in done.stdout
    assert "Traceback" not in done.stdout
