"""Models as points, accuracy against a cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

_LONGEST = 52


@dataclass(frozen=True)
class Spot:
    """A model.

    Attributes:
        cost: Its cost.
        accuracy: Its accuracy; higher is better.
        label: Its name.
        on_front: Whether no other model is as cheap and as good.
    """

    cost: float
    accuracy: float
    label: str
    on_front: bool


def scatter(spots: Sequence[Spot], *, x_label: str, y_label: str, title: str) -> Figure:
    """Draws models as points that the legend names, and the front as a line."""
    figure = Figure(figsize=(10, max(3.6, 0.24 * len(spots))), dpi=110, layout="constrained")
    axes = figure.subplots()
    front = sorted((spot.cost, spot.accuracy) for spot in spots if spot.on_front)
    axes.plot(*zip(*front, strict=True), "--", color="grey", linewidth=1, zorder=1)
    markers = "osD^v<>pP*X"
    for index, spot in enumerate(spots):
        label = spot.label if len(spot.label) <= _LONGEST else f"{spot.label[: _LONGEST - 3]}..."
        marker = markers[index // 10 % len(markers)]  # the ten colours begin again
        face = None if spot.on_front else "white"
        axes.plot(
            spot.cost, spot.accuracy, marker, color=f"C{index % 10}", mfc=face, ls="", label=label
        )
    costs = [spot.cost for spot in spots]
    if max(costs) > 5 * min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(0.08, 0.08)
    axes.grid(alpha=0.3)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, loc="left", fontsize=9, parse_math=False)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
