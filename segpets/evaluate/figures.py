"""Figures of an evaluation."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segpets.report.palette import palette

Bins = Sequence[tuple[float, float, int]]
_DPI = 110
_NAMED = 20


def reliability_figure(diagrams: Mapping[str, Bins]) -> Figure:
    """Draws how often the most probable class is right, against its probability.

    Args:
        diagrams: By the heading: mean probability, part that is right, and number of
            pixels, of each bin.
    """
    figure = Figure(figsize=(4 * len(diagrams) + 0.6, 5.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots(
        2, len(diagrams), sharex=True, sharey="row", squeeze=False, height_ratios=(4, 1)
    )
    for column, (note, bins) in enumerate(diagrams.items()):
        _reliability(axes[0][column], bins, note)
        _shares(axes[1][column], bins)
    axes[0][0].set_ylabel("part of the pixels that is right")
    axes[1][0].set_ylabel("of all pixels")
    return figure


def _reliability(axes: Axes, bins: Bins, note: str) -> None:
    sure, right = [b[0] for b in bins], [b[1] for b in bins]
    axes.plot((0, 1), (0, 1), color="grey", linewidth=1, linestyle="--", label="as sure as right")
    axes.plot(sure, right, marker="o", markersize=4, color="#0072b2", label="the model")
    axes.fill_between(sure, sure, right, color="#d55e00", alpha=0.25, linewidth=0, label="gap")
    axes.set_title(note, size=10)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)


def _shares(axes: Axes, bins: Bins) -> None:
    total = sum(pixels for *_, pixels in bins)
    axes.bar(
        [sure for sure, *_ in bins], [n / total for *_, n in bins], width=0.04, color="#0072b2"
    )
    axes.set_xlabel("probability of the most probable class")
    axes.grid(alpha=0.3)


def boundary_figure(
    widths: Sequence[float],
    curves: Mapping[str, Mapping[str, Sequence[float | None]]],
    *,
    pixels: Sequence[int] | None,
) -> Figure:
    """Draws boundary IoU and boundary F of each class against the width.

    Args:
        widths: Parts of an image's diagonal, ascending.
        curves: `boundary_iou` and `boundary_f`, and in each the values of each class.
        pixels: The widths in pixels, where all images are of one size.
    """
    titles = {"boundary_iou": "boundary IoU", "boundary_f": "boundary F"}
    lines: dict[str, Line2D] = {}
    figure = Figure(figsize=(9.2, 4.4), dpi=_DPI, layout="constrained")
    places = [100 * width for width in widths]
    ticks = [f"{place:.3g}" for place in places]
    if pixels is not None:
        ticks = [f"{tick}\n{count} px" for tick, count in zip(ticks, pixels, strict=True)]
    for axes, (score, title) in zip(
        figure.subplots(1, 2, sharey=True), titles.items(), strict=True
    ):
        colours = palette(list(curves[score]))
        for (name, values), colour in zip(curves[score].items(), colours, strict=True):
            known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
            if known:
                rgb = [value / 255 for value in colour]
                (line,) = axes.plot(*zip(*known, strict=True), marker="o", markersize=4, c=rgb)
                lines[name] = line
        axes.set_title(title, size=10)
        axes.set_xticks(places, ticks)
        axes.set_xlabel("width, in % of the image's diagonal")
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    if len(curves["boundary_iou"]) <= _NAMED:
        legend = figure.axes[0].legend(lines.values(), map(str, range(len(lines))), fontsize=8)
        for text, name in zip(legend.get_texts(), lines, strict=True):
            text.set_text(name)  # as it is, whatever Matplotlib takes a label for
            text.set_parse_math(False)
    return figure
