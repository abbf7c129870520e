"""Curves and points as places in a drawing, which a template turns into SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from segpets.report.placement import Label, placed

WIDTH: Final = 760
HEIGHT: Final = 360
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 42
_OKABE_ITO: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A point of a line.

    Attributes:
        x: Place from the left.
        y: Place from the top.
        text: What it stands for.
    """

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line, or marks alone.

    Attributes:
        name: What it is of.
        colour: A colour of CSS.
        marks: Its points.
        path: Its course, as SVG has it.
        label: What stands beside its first mark; None without one.
    """

    name: str
    colour: str
    marks: list[Mark]
    path: str
    label: Label | None = None


@dataclass(frozen=True)
class Chart:
    """A drawing of `WIDTH` by `HEIGHT`.

    Attributes:
        x_label: What goes to the right.
        y_label: What goes upwards.
        x_ticks: Places and texts.
        y_ticks: Places and texts.
        lines: The lines.
        front: The course of a line through the best marks; empty without one.
    """

    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    front: str = ""


def colour(index: int) -> str:
    """The colour of the index-th thing.

    The first are those of M. Okabe and K. Ito, "Color Universal Design", 2008, which colour-blind
    readers tell apart; of the others neighbours differ in hue and lightness.
    """
    if index < len(_OKABE_ITO):
        return _OKABE_ITO[index]
    return f"hsl({index * 137.508 % 360:.0f} 70% {(42, 60, 50)[index % 3]}%)"


def ticks(low: float, high: float, *, count: int = 6) -> list[float]:
    """About `count` round numbers within a range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    logarithmic: bool = False,
    whole: bool = False,
    front: Points = (),
    joined: bool = True,
    labels: Mapping[str, str] | None = None,
) -> Chart | None:
    """Lays out curves or points.

    Args:
        series: Points by name; one without points keeps its colour for other charts.
        x_label: What goes to the right.
        y_label: What goes upwards.
        logarithmic: Whether x is; values of 0 or less are left out then.
        whole: Whether x has whole numbers only.
        front: Points to be joined, whatever series they are of.
        joined: Whether the points of a series are.
        labels: What stands beside the first point of a series, by its name; the first find the
            best places.

    Returns:
        The chart; None without a point.
    """
    if logarithmic:
        series = {name: [(x, y) for x, y in points if x > 0] for name, points in series.items()}
        front = [(x, y) for x, y in front if x > 0]
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    if not xs:
        return None
    scale = math.log10 if logarithmic else float
    x_low, x_high = _range(scale(min(xs)), scale(max(xs)))
    y_low, y_high = _range(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        up = (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    lines = []
    for index, (name, points) in enumerate(series.items()):
        marks = [Mark(*place(x, y), f"{name}: {number(x)}, {y:.4f}") for x, y in points]
        path = "M" + "L".join(f"{m.x} {m.y}" for m in marks) if marks and joined else ""
        lines.append(Line(name, colour(index), marks, path))
    if logarithmic:
        powers = range(math.ceil(x_low), math.floor(x_high) + 1)
        values = [10.0**n for n in powers] if len(powers) > 1 else ticks(10**x_low, 10**x_high)
    else:
        values = [x for x in ticks(x_low, x_high) if not whole or x == round(x)]
    beside = _beside(lines, labels or {})
    lines = [replace(line, label=beside.get(line.name)) for line in lines]
    steps = [place(x, y) for x, y in sorted(front)]
    return Chart(
        x_label=x_label,
        y_label=y_label,
        x_ticks=[(place(x, y_low)[0], number(x)) for x in values if x > 0 or not logarithmic],
        y_ticks=[(place(xs[0], y)[1], f"{y:.4g}") for y in ticks(y_low, y_high)],
        lines=lines,
        front="M" + "L".join(f"{x} {y}" for x, y in steps) if len(steps) > 1 else "",
    )


def _beside(lines: Sequence[Line], labels: Mapping[str, str]) -> dict[str, Label | None]:
    """The places of labels, by the names of their lines."""
    firsts = {line.name: (line.marks[0].x, line.marks[0].y) for line in lines if line.marks}
    named = [name for name in labels if name in firsts]
    points = [firsts[name] for name in [*named, *(name for name in firsts if name not in labels)]]
    frame = (LEFT + 2.0, TOP + 0.0, WIDTH - 2.0, HEIGHT - BOTTOM - 1.0)
    return dict(zip(named, placed(points, [labels[n] for n in named], frame=frame), strict=True))


def _range(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or abs(low) * 0.05 or 0.5
    return low - room, high + room


def number(value: float) -> str:
    """A number in few letters: 12, 3.5 k, 1.94 M, 18.1 G."""
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
