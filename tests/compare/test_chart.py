"""Curves and points in a page."""

import re
import xml.etree.ElementTree as ET

import pytest

from segpets.compare.chart import chart, colour

SERIES = {"a <b> & $c$": [(1, 0.2), (3, 0.6)], "none": [], "b": [(2, 0.4)]}


def drawn(*args: object, **options: object) -> ET.Element:
    svg = chart(*args, **{"x_label": "epoch", "y_label": "val/mean_iou"} | options)
    assert svg is not None
    return ET.fromstring(svg)


def lines(svg: ET.Element) -> dict[str, list[tuple[float, float]]]:
    """The places of the marks, by the number of their line."""
    return {
        line.attrib["data-line"]: [(float(u.get("x")), float(u.get("y"))) for u in line.iter("use")]
        for line in svg.iter("g")
        if line.get("class") == "line"
    }


def test_points_stand_in_order_and_say_what_they_are() -> None:
    svg = drawn(SERIES)
    ((ax, ay), (cx, cy)), ((bx, by),) = lines(svg).values()
    assert ax < bx < cx
    assert ay > by > cy, "y goes downwards in a drawing"
    assert (bx, by) == pytest.approx(((ax + cx) / 2, (ay + cy) / 2), abs=0.01)
    titles = [title.text for title in svg.iter("title")]
    name = "a <b> & $c$"
    assert titles == [name, f"{name}: 1, 0.2000", f"{name}: 3, 0.6000", "b", "b: 2, 0.4000"]


def test_a_series_without_points_keeps_its_colour() -> None:
    svg = drawn(SERIES)
    marks = {
        line.get("data-line"): next(line.iter("use")).get("style")
        for line in svg.iter("g")
        if line.get("data-line")
    }
    assert list(marks) == ["1", "3"]
    assert colour(0) in str(marks["1"])
    assert colour(2) in str(marks["3"])
    assert len({colour(index) for index in range(40)}) == 40


def test_a_page_may_hold_several() -> None:
    svg = chart(SERIES, x_label="x", y_label="y")
    assert svg is not None
    assert not re.search(r"https?:|url\(|<style|xmlns|<!", svg)
    assert all(name.startswith("m") for name in re.findall(r' id="([^"]*)"', svg))


def test_a_logarithm_makes_factors_equally_long_and_has_no_0() -> None:
    points = {"a": [(1e3, 0.5)], "b": [(1e5, 0.5)], "c": [(1e7, 0.5)], "none": [(0.0, 0.5)]}
    svg = drawn(points, logarithmic=True, joined=False, front=[(1e3, 0.5), (1e5, 0.5), (0, 1)])
    (a,), (b,), (c,) = lines(svg).values()
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.01)
    texts = [text.text for text in svg.iter("text")]
    assert [t for t in ("1 k", "100 k", "10 M") if t in texts] == ["1 k", "100 k", "10 M"]
    front = next(g for g in svg.iter("g") if g.get("class") == "front")
    assert len(re.findall("[ML]", next(front.iter("path")).attrib["d"])) == 2


def test_epochs_are_whole_and_labels_stand_beside_points() -> None:
    svg = drawn({"a": [(1, 0.1), (2, 0.2)]}, labels={"a": "#1 $x$"})
    texts = [str(text.text) for text in svg.iter("text")]
    assert "#1 $x$" in texts
    assert {t for t in texts if re.fullmatch(r"[\d.]+", t) and float(t) >= 1} == {"1", "2"}


def test_one_point_and_none() -> None:
    assert chart({"a": []}, x_label="x", y_label="y") is None
    assert chart({"a": [(0, 1)]}, x_label="x", y_label="y", logarithmic=True) is None
    svg = drawn({"a": [(1, 0.25)]})
    assert len(lines(svg)["1"]) == 1
    assert "1" in [text.text for text in svg.iter("text")], "an epoch is whole"
    assert not [text for text in svg.iter("text") if "0.9" in str(text.text)]
