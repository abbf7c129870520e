"""Tables for the console."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segpets.report.grid import Grid

SCORES = ("iou", "dice", "precision", "recall")


def facts_table(facts: Mapping[str, str], *, title: str) -> Table:
    """Lays out names and values in two columns."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def class_table(metrics: Mapping[str, float], classes: Sequence[str], *, stage: str) -> Table:
    """Lays out IoU, Dice, precision and recall of each class, their means and pixel accuracy."""
    accuracy = metrics.get(f"{stage}/pixel_accuracy")
    shown = f", pixel accuracy {accuracy:.4f}" if accuracy is not None else ""
    table = Table(title=f"{stage}{shown}", title_justify="left")
    table.add_column("class", style="bold")
    for score in SCORES:
        table.add_column({"iou": "IoU", "dice": "Dice"}.get(score, score), justify="right")

    def cell(name: str) -> str:
        value = metrics.get(f"{stage}/{name}")
        return "-" if value is None else f"{value:.4f}"

    for name in classes:
        table.add_row(escape(name), *(cell(f"{score}/{name}") for score in SCORES))
    table.add_section()
    table.add_row("mean", *(cell(f"mean_{score}") for score in SCORES))
    return table


class ClassShare(Protocol):
    """The share of a class: of the pixels, and of the images, within [0, 1]."""

    @property
    def pixels(self) -> float:
        """The share of the pixels."""
        ...

    @property
    def images(self) -> float:
        """The share of the images."""
        ...


def frequency_table(shares: Mapping[str, Mapping[str, ClassShare]]) -> Table:
    """Lays out the share that each class has of the pixels and of the images of each stage."""
    table = Table(title="share of the pixels, and of the images that show it", title_justify="left")
    table.add_column("class", style="bold")
    for stage in next(iter(shares.values())):
        table.add_column(stage, justify="right")
    for name, stages in shares.items():
        table.add_row(name, *(f"{s.pixels:6.2%} {s.images:6.1%}" for s in stages.values()))
    return table


def findings_table(rows: Sequence[tuple[bool, str, str, str]], *, total: int) -> Table:
    """Lays out what the doctor found: file, problem and remedy."""
    title = f"{total} found" + (f", the first {len(rows)}" if total > len(rows) else "")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("problem", overflow="fold", ratio=3)
    table.add_column("remedy", overflow="fold", ratio=3)
    for serious, *words in rows:
        table.add_row("ERROR" if serious else "warning", *(escape(word) for word in words))
    return table


def jobs_table(rows: Sequence[tuple[str, str, str]], *, title: str) -> Table:
    """Lays out a sweep's jobs: name, state, and what else there is to say."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("job", overflow="fold")
    table.add_column("state")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def grid_table(grid: Grid, *, title: str) -> Table:
    """Lays out a table of results; `segpets.compare.fit_width` fits one that is too wide."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in grid.columns:
        side: Literal["right", "left"] = "right" if column.numeric else "left"
        table.add_column(escape(column.title), justify=side, overflow="fold")
    for row in grid.rows:
        table.add_row(*(escape(cell.text) for cell in row))
    return table


def export_table(report: Mapping[str, Any]) -> Table:
    """Lays out the results of an exported file's comparison, and the limits."""
    limits = report["tolerance"]
    table = Table(title=f"{report['images']} test images", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("", style="bold")
    for head in ("found", "allowed"):
        table.add_column(head, justify="right")

    def row(name: str, found: str, limit: float | None = None, sign: str = "<=") -> None:
        table.add_row(name, found, "" if limit is None else f"{sign} {limit:g}")

    for part, where in (("same", ""), ("others", " at larger sizes")):
        one = report[part]
        row(f"largest difference of logits{where}", f"{one['largest_difference']:.2g}")
        row("  relative to the largest logit", f"{one['relative']:.2g}", limits["logits"])
        if limits["logits"] is not None:  # int8 differs by more nearly everywhere, and may
            row("  pixels within 0.001 of that logit", f"{one['close']:.3%}")
        row("  pixels of the same class", f"{one['agreement']:.3%}", limits["agreement"], ">=")
    if own := report["own"]:
        row("what rounding does to the original", f"{own['relative']:.2g}")
    row("mean IoU of the original", f"{report['mean_iou']:.4f}")
    row("  of the file", f"{report['mean_iou_exported']:.4f}")
    row("  mean IoU lost", f"{round(report['mean_iou_loss'], 4) + 0.0:.4f}", limits["mean_iou"])
    row("size of the file", f"{report['bytes'] / 1e6:.1f} MB")
    eager = report["latency_ms"]["eager"]
    row(f"latency of {report['latency_of']}", "")
    for name, value in report["latency_ms"].items():
        times = "" if name == "eager" else f" ({eager / value:.2f} times as fast)"
        row(f"  {name}{times}", f"{value:.2f} ms")
    return table


def as_text(table: Table, *, width: int = 100) -> str:
    """Renders a table without colours, for a log file as well as for a terminal."""
    text = io.StringIO()
    # In a notebook it would show the table at once, besides.
    Console(width=width, file=text, force_jupyter=False).print(table)
    return text.getvalue().rstrip()
