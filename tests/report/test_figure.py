"""Masks in the colours of their classes."""

import numpy as np
import pytest
import torch

from segpets.report.figure import colourise, outlined, sheet

ORANGE, SKY_BLUE, BLACK, GREY = (230, 159, 0), (86, 180, 233), (0, 0, 0), (128, 128, 128)


@pytest.mark.parametrize(
    ("classes", "colours"),
    [
        (["pet", "background", "border"], [ORANGE, BLACK, SKY_BLUE, GREY]),
        (["background", "leaf", "stem"], [BLACK, ORANGE, SKY_BLUE, GREY]),
        (["soil", "leaf"], [ORANGE, SKY_BLUE, GREY, GREY]),
    ],
)
def test_ids_are_painted_by_the_names_of_their_classes(
    classes: list[str], colours: list[tuple[int, int, int]]
) -> None:
    painted = colourise(torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8), classes)
    assert painted[0].tolist() == [list(colour) for colour in colours]


def test_edges_have_the_colours_of_their_classes() -> None:
    mask = np.array([[0, 0, 1, 1, 1]], dtype=np.uint8)
    white = np.full((1, 5, 3), 255, dtype=np.uint8)
    drawn = outlined(white, mask, ["leaf", "background"])
    assert [tuple(pixel) for pixel in drawn[0, :3].tolist()] == [(255,) * 3, ORANGE, (255,) * 3]
    drawn = outlined(white, mask, ["background", "leaf"])
    assert tuple(drawn[0, 1].tolist()) == BLACK


def test_a_legend_has_the_colours_of_the_masks() -> None:
    tile = np.full((1, 200, 300, 3), 255, dtype=np.uint8)
    drawn = sheet([tile], heading="", captions=[""], classes=["background", "leaf"])
    legend = {tuple(pixel) for pixel in drawn[16:32].reshape(-1, 3).tolist()}
    assert {BLACK, ORANGE} <= legend
    assert tuple(drawn[16 + 8, 4].tolist()) == BLACK, "the first entry is the background's"
