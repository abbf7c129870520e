"""The pictures that a run draws, compared with what it was given pixel by pixel."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from segpets.report.figure import colourise
from segpets.report.palette import palette
from segpets.train import Result

SIZE, GAP, LINE = 64, 4, 16  # of a tile, between tiles, and of a line of text, in pixels


def tiles(path: Path, rows: int) -> list[list[NDArray[np.uint8]]]:
    """The rows of four tiles in a picture of one column."""
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (2 * LINE + rows * (SIZE + LINE), 4 * (SIZE + GAP), 3)
    tops = [2 * LINE + row * (SIZE + LINE) for row in range(rows)]
    lefts = [column * (SIZE + GAP) for column in range(4)]
    return [[sheet[y : y + SIZE, x : x + SIZE] for x in lefts] for y in tops]


@pytest.mark.parametrize(("stage", "name"), [("val", "val_epoch_002"), ("test", "test")])
def test_a_row_shows_input_truth_prediction_and_both(
    finished: Result, stage: str, name: str
) -> None:
    drawn = tiles(finished.path / "predictions" / f"{name}.png", rows=3)
    classes = ["pet", "background", "border"]
    names = [sample.name for sample in getattr(finished.datamodule.splits, stage)]
    chosen = {"val": [0, 1, 2], "test": [1, 3, 5]}[stage]  # spread evenly over 3 and 7 images
    for row, index in zip(drawn, chosen, strict=True):
        image, mask = finished.datamodule.pixels.of(names[index])
        picture, truth, pred, _ = row
        np.testing.assert_array_equal(picture, image.permute(1, 2, 0))
        np.testing.assert_array_equal(truth, colourise(mask, classes))
        assert {tuple(colour) for colour in pred.reshape(-1, 3).tolist()} <= set(palette(classes))
        if stage == "test":
            file = finished.path / "predictions" / "test" / "masks" / f"{names[index]}.png"
            ids = torch.tensor(np.asarray(Image.open(file)))
            np.testing.assert_array_equal(pred, colourise(ids, classes))


def test_the_first_and_the_last_epoch_are_drawn(finished: Result) -> None:
    # every_n_epochs is 5, and the run has two epochs
    drawn = sorted(path.name for path in (finished.path / "predictions").glob("*.png"))
    confusion = ["confusion_test.png", "confusion_val.png"]
    assert drawn == [*confusion, "test.png", "val_epoch_001.png", "val_epoch_002.png"]


def test_the_confusion_matrix_is_drawn_as_shares_of_the_truth(finished: Result) -> None:
    from segpets.report.figure import confusion_figure

    figure = confusion_figure(torch.tensor([[3, 1], [0, 0]]), ["pet", "ground"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.25", "0.00", "0.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["pet", "ground"]
    with Image.open(finished.path / "predictions" / "confusion_test.png") as image:
        assert min(image.size) > 200


def test_names_of_classes_are_drawn_as_they_are() -> None:
    """Matplotlib leaves out of a legend what begins with _, and takes what is between $ for TeX."""
    from segpets.evaluate.figures import boundary_figure
    from segpets.report.figure import confusion_figure

    names = ["_background_", r"cost $\10$"]
    figure = confusion_figure(torch.tensor([[3, 1], [0, 2]]), names)
    figure.savefig(io.BytesIO())
    curves = {name: [0.5, 0.6] for name in names}
    figure = boundary_figure(
        [0.01, 0.02], {"boundary_iou": curves, "boundary_f": curves}, pixels=None
    )
    figure.savefig(io.BytesIO())
    legend = figure.axes[0].get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == names
