"""Accuracy against latency, in a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.figure import Figure

_LINE: Final = 0.21  # inches between labels
_BELOW: Final = 0.8
_ABOVE: Final = 0.4
_LONGEST: Final = 52


@dataclass(frozen=True)
class Spot:
    """A model.

    Attributes:
        latency_ms: How long it takes.
        accuracy: How good it is; higher is better.
        label: What it is called.
        on_front: Whether none is as fast and as good.
    """

    latency_ms: float
    accuracy: float
    label: str
    on_front: bool


def accuracy_latency_figure(
    spots: Sequence[Spot], *, x_label: str, y_label: str, title: str
) -> Figure:
    """Draws models as points, their names beside the plot, and the front as a line.

    Args:
        spots: At least one.
        x_label: What goes to the right.
        y_label: What goes upwards.
        title: What stands above.
    """
    height = max(3.6, _LINE * len(spots))
    whole = height + _BELOW + _ABOVE
    figure = Figure(figsize=(10, whole), dpi=110)
    axes = figure.add_axes((0.08, _BELOW / whole, 0.5, height / whole))
    front = sorted((s.latency_ms, s.accuracy) for s in spots if s.on_front)
    axes.plot(*zip(*front, strict=True), "--", color="tab:blue", linewidth=1, zorder=1)
    for spot in spots:
        face = "tab:blue" if spot.on_front else "white"
        axes.plot(spot.latency_ms, spot.accuracy, "o", color="tab:blue", markerfacecolor=face)
    times = [spot.latency_ms for spot in spots]
    if max(times) > 5 * min(times) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(0.08, 0.08)
    axes.grid(alpha=0.3)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, loc="left", fontsize=9, parse_math=False)
    low, high = axes.get_ylim()
    wanted = [(spot.accuracy - low) / (high - low) for spot in spots]
    for spot, place in zip(spots, spread(wanted, gap=_LINE / height), strict=True):
        text = spot.label
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST - 3]}..."
        axes.annotate(
            text,
            (spot.latency_ms, spot.accuracy),
            xytext=(1.04, place),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            parse_math=False,
            weight="bold" if spot.on_front else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": "0.7",
                "linewidth": 0.7,
                "relpos": (0, 0.5),  # of the text: where its line ends
            },
        )
    return figure


def spread(wanted: Sequence[float], *, gap: float) -> list[float]:
    """Places near those that are wanted, in their order, at least `gap` apart.

    Args:
        wanted: Places within [0, 1].
        gap: The least distance.

    Returns:
        A place for each; within [0, 1] if there is room for all.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i], reverse=True)
    places = [0.0] * len(wanted)
    above = 1 + gap
    for index in order:  # downwards
        above = places[index] = min(wanted[index], above - gap)
    below = -gap
    for index in reversed(order):  # and up again, what has left at the bottom
        below = places[index] = max(places[index], below + gap)
    return places
