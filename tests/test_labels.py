"""The colours of classes."""

import numpy as np
import pytest

from segpets.report.palette import oklab, palette

ORANGE, SKY_BLUE, GREEN, BLACK = (230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 0, 0)


def names(count: int, *, background: int | None = None) -> list[str]:
    return ["background" if index == background else f"class {index}" for index in range(count)]


def test_places_of_oklab_are_those_of_its_author() -> None:
    # B. Ottosson's table of XYZ values, at the white of D65; red as CSS Color 4 gives it.
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-6)
    assert oklab(np.array([255, 0, 0])) == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-5)
    assert oklab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(
    ("classes", "colours"),
    [
        (["pet", "background", "border"], [ORANGE, BLACK, SKY_BLUE]),
        (["background", "leaf"], [BLACK, ORANGE]),
        (["leaf", "Background"], [ORANGE, BLACK]),
        (["cat", "dog", "BACKGROUND", "border"], [ORANGE, SKY_BLUE, BLACK, GREEN]),
        (["background"], [BLACK]),
        (["leaf", "stem", "foreground"], [ORANGE, SKY_BLUE, GREEN]),
        (["background", "Background"], [BLACK, ORANGE]),
        ([], []),
    ],
)
def test_the_background_is_black_and_the_others_take_the_colours_in_order(
    classes: list[str], colours: list[tuple[int, int, int]]
) -> None:
    assert palette(classes) == colours


def test_the_first_colours_are_those_of_okabe_and_ito() -> None:
    assert palette(names(7)) == [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ]


@pytest.mark.parametrize("background", [None, 0, 20])
@pytest.mark.parametrize(("count", "least"), [(21, 0.13), (40, 0.1), (150, 0.05), (254, 0.03)])
def test_no_two_colours_look_alike(count: int, least: float, background: int | None) -> None:
    colours = palette(names(count, background=background))
    assert (BLACK in colours) is (background is not None)
    places = oklab(np.array([*colours, (128, 128, 128), (255, 255, 255)]))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    assert distances[np.triu_indices(len(places), 1)].min() > least


def test_a_class_keeps_its_colour_however_many_there_are() -> None:
    assert palette(names(255))[:40] == palette(names(40))
    with_background = palette(names(41, background=9))
    assert with_background[:9] + with_background[10:] == palette(names(40))
    assert [len(palette(names(n))) for n in (1, 7, 8, 9, 255)] == [1, 7, 8, 9, 255]
