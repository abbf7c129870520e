"""Where curves and points stand in a drawing."""

import pytest

from segpets.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, number, ticks


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.63, 0.69) == pytest.approx([0.63, 0.64, 0.65, 0.66, 0.67, 0.68, 0.69])
    assert ticks(3, 3) == [3]


def test_points_stand_in_the_frame_and_in_order() -> None:
    drawn = chart({"a": [(1, 0.2), (3, 0.6)], "b": [(2, 0.4)]}, x_label="x", y_label="y")
    assert drawn is not None
    (first, last), (middle,) = (line.marks for line in drawn.lines)
    assert LEFT < first.x < middle.x < last.x < WIDTH - RIGHT
    assert HEIGHT - BOTTOM > first.y > middle.y > last.y > TOP
    assert middle.x == pytest.approx((first.x + last.x) / 2, abs=0.1)
    assert drawn.lines[0].path == f"M{first.x} {first.y}L{last.x} {last.y}"
    assert drawn.lines[0].colour != drawn.lines[1].colour


def test_a_logarithm_makes_factors_equally_long() -> None:
    points = {name: [(x, 0.5)] for name, x in (("a", 1e3), ("b", 1e5), ("c", 1e7), ("none", 0.0))}
    drawn = chart(points, x_label="x", y_label="y", logarithmic=True, joined=False)
    assert drawn is not None
    a, b, c, none = (line.marks for line in drawn.lines)
    assert b[0].x - a[0].x == pytest.approx(c[0].x - b[0].x, abs=0.2)
    assert none == [], "there is no logarithm of 0"
    assert [text for _, text in drawn.x_ticks] == ["1 k", "10 k", "100 k", "1 M", "10 M"]


def test_epochs_are_whole() -> None:
    drawn = chart({"a": [(1, 0.1), (2, 0.2)]}, x_label="epoch", y_label="y", whole=True)
    assert drawn is not None
    assert [text for _, text in drawn.x_ticks] == ["1", "2"]


def test_one_point_and_none() -> None:
    assert chart({"a": []}, x_label="x", y_label="y") is None
    drawn = chart({"a": [(5, 0.0)]}, x_label="x", y_label="y")
    assert drawn is not None
    assert len(drawn.lines[0].marks) == 1


def test_numbers_in_few_letters() -> None:
    values = [12, 3500, 1_942_611, 18.1e9, 2e12, 0.25]
    assert [number(v) for v in values] == ["12", "3.5 k", "1.94 M", "18.1 G", "2 T", "0.25"]
