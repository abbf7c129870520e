"""What a test leaves for comparing: counts and masks that agree with the metrics."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from segpets.metric import confusion_matrices, summarise
from segpets.train import Result

CLASSES = ["pet", "background", "border"]


@pytest.fixture
def counts(finished: Result) -> list[dict[str, str]]:
    path = finished.path / "predictions" / "test" / "counts.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def matrix(row: dict[str, str]) -> torch.Tensor:
    return torch.tensor([[int(row[f"{truth}>{pred}"]) for pred in CLASSES] for truth in CLASSES])


def test_each_test_image_has_a_row_with_its_attributes(
    finished: Result, counts: list[dict[str, str]]
) -> None:
    samples = {sample.name: sample for sample in finished.datamodule.splits.test}
    assert [row["name"] for row in counts] == sorted(samples)
    for row in counts:
        assert {"breed": row["breed"], "species": row["species"]} == samples[row["name"]].attributes
        assert matrix(row).sum() == 64 * 64


def test_the_counts_agree_with_masks_and_truth(
    finished: Result, counts: list[dict[str, str]]
) -> None:
    folder = finished.path / "predictions" / "test" / "masks"
    assert {file.stem for file in folder.iterdir()} == {row["name"] for row in counts}
    for row in counts:
        pred = torch.tensor(np.asarray(Image.open(folder / f"{row['name']}.png")))
        assert pred.shape == (64, 64)
        truth = finished.datamodule.pixels.of(row["name"])[1]
        expected = confusion_matrices(pred.unsqueeze(0), truth.unsqueeze(0), 3)[0]
        assert torch.equal(matrix(row), expected)


def test_all_test_metrics_follow_from_the_counts(
    finished: Result, counts: list[dict[str, str]]
) -> None:
    total = torch.stack([matrix(row) for row in counts]).sum(0)
    for name, value in summarise(total, CLASSES).items():
        assert finished.metrics[f"test/{name}"] == pytest.approx(value, rel=1e-6)
