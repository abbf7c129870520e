"""Curves and points as SVG for a page, in its colours, naming whatever is touched."""

import colorsys
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from segpets.report.grid import number

_OKABE_ITO: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RC: Final[Any] = {"svg.fonttype": "none", "svg.hashsalt": "segpets", "font.size": 9}
_LINE = re.compile(r'<g id="line-(\d+)">(.*?)</g>\s*</g>', re.DOTALL)

Points = Sequence[tuple[float, float]]


def colour(index: int) -> str:
    """Chooses the colour of the index-th configuration.

    The first are those of M. Okabe and K. Ito, "Color Universal Design", 2008, which colour-blind
    readers tell apart; of the others neighbours differ in hue and lightness.
    """
    if index < len(_OKABE_ITO):
        return _OKABE_ITO[index]
    hue, lightness = index * 137.508 % 360 / 360, (0.42, 0.6, 0.5)[index % 3]
    return to_hex(colorsys.hls_to_rgb(hue, lightness, 0.7))


def chart(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    logarithmic: bool = False,
    front: Points = (),
    joined: bool = True,
    labels: Mapping[str, str] | None = None,
) -> Markup | None:
    """Draws curves or points.

    Args:
        series: Points by name; one without points keeps its colour for other charts.
        x_label: The x axis.
        y_label: The y axis.
        logarithmic: Whether x is; values of 0 or less are left out then. Else x counts epochs.
        front: Points to join by a dashed line, whatever series they are of.
        joined: Whether the points of a series are.
        labels: Texts beside the first point of a series, by its name.

    Returns:
        An element `<svg class="chart">`; None without a point.
    """
    figure = Figure(figsize=(7.6, 3.6), dpi=72, layout="constrained")
    axes = figure.subplots()
    drawn: dict[int, tuple[str, Points]] = {}
    for index, (name, points) in enumerate(series.items()):
        points = [(x, y) for x, y in points if x > 0 or not logarithmic]
        if not points:
            continue
        drawn[index] = name, points
        axes.plot(
            *zip(*points, strict=True),
            "o-" if joined else "o",
            color=colour(index),
            markersize=3 if joined else 8,
            gid=f"line-{index + 1}",
            clip_on=False,
        )
        if labels and name in labels:
            axes.annotate(
                labels[name], points[0], (5, 4), textcoords="offset points", parse_math=False
            )
    if not drawn:
        return None
    if len(steps := [(x, y) for x, y in sorted(front) if x > 0 or not logarithmic]) > 1:
        axes.plot(*zip(*steps, strict=True), "--", gid="front", clip_on=False, zorder=1)
    _scale(axes, [x for _, points in drawn.values() for x, _ in points], logarithmic)
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_ylabel(y_label, parse_math=False)
    axes.spines[:].set_visible(False)
    return _svg(figure, drawn, x_label, y_label)


def _scale(axes: Axes, xs: Sequence[float], logarithmic: bool) -> None:
    axes.margins(0.05)
    axes.grid(clip_on=False)
    if not logarithmic:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return
    axes.set_xscale("log")
    powers = math.log10(max(xs) / min(xs))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if powers > 2 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _svg(
    figure: Figure, drawn: Mapping[int, tuple[str, Points]], x_label: str, y_label: str
) -> Markup:
    file = io.StringIO()
    with rc_context(_RC):
        figure.savefig(file, format="svg", transparent=True)
    text = file.getvalue()

    def named(match: re.Match[str]) -> str:
        name, points = drawn[int(match[1]) - 1]
        titles = iter([f"{name}: {number(x)}, {y:.4f}" for x, y in points])
        marks = re.sub(
            r"<use ([^>]*)/>",
            lambda use: f"<use {use[1]}><title>{escape(next(titles))}</title></use>",
            match[2],
        )
        title = f"<title>{escape(name)}</title>"
        return f'<g class="line" data-line="{match[1]}">{title}{marks}</g></g>'

    text = _LINE.sub(named, text[text.index("<svg") :])
    text = re.sub(r'<g id="(?:[xy](tick)_\d+|(front))"', r'<g class="\1\2"', text)
    # A page needs no namespaces, its rules forbid styles and addresses of others, and it has
    # several charts: of their ids only those of the marks name what is the same everywhere.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' (xmlns(:\w+)?|version|width|height|id)="(?!m[0-9a-f]{10}")[^"]*"', "", text)
    label = escape(f"{y_label} against {x_label}")
    text = text.replace("<svg", f'<svg class="chart" role="img" aria-label="{label}"', 1)
    return Markup(text.replace("xlink:href", "href"))
