"""Labels beside points."""

import itertools

import numpy as np
import pytest

from segpets.report.placement import Label, placed

FRAME = (0.0, 0.0, 760.0, 360.0)


def box(label: Label) -> tuple[float, float, float, float]:
    half = 6.4 * len(label.text) / 2
    return label.x - half, label.y - 10, label.x + half, label.y + 2


def meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0.2 and down > 0.2


@pytest.mark.parametrize("count", [3, 12, 40])
def test_no_label_covers_another_nor_a_point(count: int) -> None:
    rng = np.random.default_rng(count)
    points = [(float(x), float(y)) for x, y in rng.normal((380, 180), (60, 40), (count, 2))]
    labels = placed(points, [f"#{i + 1}" for i in range(count)], frame=FRAME)
    found = [label for label in labels if label]
    assert [label.text for label in found] == [f"#{i + 1}" for i in range(count)]
    assert not any(meet(box(a), box(b)) for a, b in itertools.combinations(found, 2))
    marks = [(x - 4.9, y - 4.9, x + 4.9, y + 4.9) for x, y in points]
    assert not any(meet(box(label), mark) for label in found for mark in marks)


def test_a_lonely_label_stands_to_the_right_and_turns_at_the_edge() -> None:
    (inside,) = placed([(100.0, 100.0)], ["#1"], frame=FRAME)
    (at_the_edge,) = placed([(755.0, 100.0)], ["#1"], frame=FRAME)
    assert inside is not None
    assert at_the_edge is not None
    assert inside.x > 105
    assert at_the_edge.x < 750
    assert (inside.line, inside.y) == ("", 104.0)


def test_points_in_one_place_get_lines_and_where_no_room_is_no_label() -> None:
    labels = placed([(380.0, 180.0)] * 30, ["#10"] * 30, frame=FRAME)
    lines = [label.line for label in labels if label]
    assert lines[0] == ""
    assert lines[-1].startswith("M380.0 180.0L")
    assert None in placed([(380.0, 180.0)] * 200, ["#10"] * 200, frame=FRAME)


def test_points_without_a_text_are_not_covered() -> None:
    (label,) = placed([(100.0, 100.0), (115.0, 100.0)], ["#1"], frame=FRAME)
    assert label is not None
    assert not meet(box(label), (110, 95, 120, 105))
