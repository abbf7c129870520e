"""The colours of classes."""

import numpy as np
import pytest

from segpets.labels import oklab, palette


def test_places_of_oklab_are_those_of_its_author() -> None:
    # B. Ottosson's table of XYZ values, at the white of D65; red as CSS Color 4 gives it.
    assert oklab(np.array([255, 255, 255])) == pytest.approx([1, 0, 0], abs=1e-6)
    assert oklab(np.array([255, 0, 0])) == pytest.approx([0.62796, 0.22486, 0.12585], abs=1e-5)
    assert oklab(np.array([0, 0, 0])) == pytest.approx([0, 0, 0])


def test_the_first_colours_are_those_of_okabe_and_ito() -> None:
    assert palette(2) == [(230, 159, 0), (0, 0, 0)]
    assert palette(8)[-1] == (204, 121, 167)


@pytest.mark.parametrize(("classes", "least"), [(21, 0.13), (40, 0.1), (150, 0.05), (254, 0.03)])
def test_no_two_colours_look_alike(classes: int, least: float) -> None:
    places = oklab(np.array([*palette(classes), (128, 128, 128), (255, 255, 255)]))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    assert distances[np.triu_indices(len(places), 1)].min() > least


def test_a_class_keeps_its_colour_however_many_there_are() -> None:
    assert palette(255)[:40] == palette(40)
    assert [len(palette(n)) for n in (1, 8, 9, 255)] == [1, 8, 9, 255]
