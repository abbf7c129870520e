"""metrics.csv: a row a step; a resume goes on where the checkpoint was."""

import csv
from pathlib import Path

import torch

from segpets.callback import MetricsCSV
from segpets.train import Result


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_values_of_one_step_share_a_row(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path=str(path))
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=1)
    logger.log_metrics({"val/mean_iou": 0.25}, step=1)
    logger.log_metrics({"train/loss": 0.1}, step=0)
    logger.finalize("success")
    assert rows(path) == [
        {"step": "0", "epoch": "", "train/loss": "0.1", "val/mean_iou": ""},
        {"step": "1", "epoch": "0", "train/loss": "1.5", "val/mean_iou": "0.25"},
    ]


def test_a_resume_keeps_the_rows_up_to_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCSV(path=str(path))
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step=step)
    first.finalize("success")
    second = MetricsCSV(path=str(path))
    second.go_on(3, {})
    second.log_metrics({"train/loss": 30.0, "val/loss": 3.0}, step=3)
    second.log_metrics({"train/loss": 40.0}, step=4)
    second.finalize("success")
    assert [row["train/loss"] for row in rows(path)] == ["0", "1", "2", "30", "40"]
    assert [row["val/loss"] for row in rows(path)] == ["", "", "", "3", ""]


def test_a_resume_that_logs_nothing_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCSV(path=str(path))
    first.log_metrics({"train/loss": 1.0}, step=7)
    first.finalize("success")
    MetricsCSV(path=str(path)).finalize("failed")
    assert [row["step"] for row in rows(path)] == ["7"]


def test_steps_wait_to_be_written_until_a_checkpoint_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    logger = MetricsCSV(path=str(path))
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.save()
    assert not path.exists()
    logger.log_metrics({"val/mean_iou": 0.5}, step=1)
    logger.flush()
    assert rows(path) == [{"step": "1", "epoch": "", "train/loss": "1", "val/mean_iou": "0.5"}]


def test_a_run_logs_each_step_and_each_epoch(finished: Result) -> None:
    found = rows(finished.path / "metrics.csv")
    steps = [row for row in found if row["train/loss"]]
    assert [int(row["step"]) for row in steps] == list(range(6))
    val = [float(row["val/mean_iou"]) for row in found if row["val/mean_iou"]]
    assert len(val) == 2
    assert val[-1] == float(f"{finished.metrics['val/mean_iou']:.9g}")
    assert max(val) == float(f"{finished.metrics['best/val/mean_iou']:.9g}")
    (test,) = [row for row in found if row["test/mean_iou"]]
    assert float(test["test/iou/pet"]) == float(f"{finished.metrics['test/iou/pet']:.9g}")


def test_what_a_kill_kept_from_a_row_comes_from_the_checkpoint(
    finished: Result, tmp_path: Path
) -> None:
    whole = rows(finished.path / "metrics.csv")
    saved = torch.load(finished.path / "checkpoints" / "last.ckpt", weights_only=True)
    step = saved["global_step"] - 1
    late = [name for name in saved["metrics"] if name.startswith("train/") and name != "train/loss"]
    path = tmp_path / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, whole[0].keys())
        writer.writeheader()
        for row in whole:
            lost = dict.fromkeys(late, "") if int(row["step"]) == step else {}
            writer.writerow(row | lost)
    assert "train/mean_iou" in late
    assert rows(path) != whole
    measured = {k: v for k, v in saved["metrics"].items() if k.startswith("train/")}
    MetricsCSV(path=str(path)).go_on(step + 1, measured)
    assert rows(path) == whole
