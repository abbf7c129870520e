"""Ranks several runs: accuracy beside latency, each protocol by itself."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from segpets.benchmark.report import ModelReport, cell, keep
from segpets.records.group import Configuration, Group, grouped
from segpets.records.heading import heading
from segpets.records.record import read_record
from segpets.report.figure import as_png
from segpets.report.grid import Cell, Column, Grid, as_csv, as_markdown, markdown_text, number
from segpets.report.scatter import Spot, scatter
from segpets.report.table import as_text, grid_table
from segpets.run.files import shown, write_atomically

log = logging.getLogger("segpets.benchmark")

METRIC: Final = "test/mean_iou"
LATENCY: Final = "latency_ms"
FRONT: Final = "* on the front: none is as fast and as good"

Models = Mapping[Path, ModelReport]


def rank(models: Sequence[ModelReport], folder: Path, facts: Mapping[str, Any]) -> None:
    """Ranks runs by accuracy, and plots it against their latency."""
    by_path = {model.subject.run.path: model for model in models if model.subject.run}
    groups, others = grouped([read_record(path) for path in by_path], metric=METRIC)
    parts = []
    for index, group in enumerate(groups):
        name = f"accuracy_latency_{index + 1}.png" if groups[1:] else "accuracy_latency.png"
        title, grid = heading(groups, index), _grid(group, by_path)
        log.info("%s", as_text(grid_table(grid, title=title), width=150))
        figure = _figure(group, by_path, title)
        if figure is not None:
            keep(folder / name)
            (folder / name).write_bytes(as_png(figure))
        parts.append(_section(group, grid, title, name if figure else None))
        for note in group.notes:
            log.info("  %s", note)
    if len(groups) > 1:
        log.info(
            "%d protocols: their metrics don't mean the same, so each has its plot", len(groups)
        )
    out = [f"{shown(one.path)}: {one.reason}" for one in others]
    for line in out:
        log.info("not ranked: %s", line)
    for name in ("benchmark.md", "benchmark.csv"):
        keep(folder / name)
    write_atomically(folder / "benchmark.md", _page(parts, out, facts))
    write_atomically(folder / "benchmark.csv", as_csv(list(_rows(by_path, groups))))
    log.info("%s/benchmark.md, benchmark.csv and the plots tell it", shown(folder))


def _grid(group: Group, models: Models) -> Grid:
    """Lays out the configurations of a group, the most accurate first; means over the seeds."""
    owned = [[models[run.path.resolve()] for run in c.runs] for c in group.configurations]
    batches = sorted({row.batch for ms in owned for m in ms for row in m.own_rows()})
    heads = [
        *(Column(title, title != "run") for title in ("#", "run", "seeds", METRIC)),
        *(Column(title) for title in ("params", "mult-adds")),
        Column("variant", numeric=False),
        *(Column(title) for title in ("p50 ms", "p95 ms")),
        *(Column(f"images/s at {batch}") for batch in batches),
        *(Column(f"peak MB at {batch}") for batch in batches),
    ]
    rows = []
    for c, ms in zip(group.configurations, owned, strict=True):
        singles = [m.latency for m in ms if m.latency]
        p50 = cell(_mean([row.p50_ms for row in singles]))
        star = "*" if LATENCY in c.fronts else ""
        at = {b: [row for m in ms for row in m.own_rows() if row.batch == b] for b in batches}
        cost, accuracy = ms[0].cost, c.mean(METRIC)
        rows.append(
            [
                Cell(str(c.rank), c.rank),
                Cell(c.label),
                Cell(str(len(c.runs)), len(c.runs)),
                Cell("-" if accuracy is None else f"{accuracy:.4f}", accuracy),
                Cell(number(cost.params), cost.params),
                Cell(number(cost.mult_adds), cost.mult_adds),
                Cell(" on ".join(reversed(ms[0].own))),
                Cell(f"{p50.text}{star}", p50.value),
                cell(_mean([row.p95_ms for row in singles])),
                *(cell(_mean([row.images_per_second for row in at[b]])) for b in batches),
                *(cell(_mean([row.peak_memory_mb for row in at[b]])) for b in batches),
            ]
        )
    return Grid(heads, rows)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _figure(group: Group, models: Models, title: str) -> Figure | None:
    """Draws a group, unless latencies were measured on several devices or not at all."""
    devices = {run.device for c in group.configurations for run in c.runs if run.device}
    spots = [
        Spot(latency, accuracy, f"#{c.rank} {c.label}", LATENCY in c.fronts)
        for c in group.configurations
        if (latency := c.mean(LATENCY)) is not None and (accuracy := c.mean(METRIC)) is not None
    ]
    if len(devices) > 1 or not spots:
        return None
    variants = dict.fromkeys(
        models[run.path.resolve()].own[1] for c in group.configurations for run in c.runs
    )
    label = f"median ms of one image ({', '.join(variants)})\n{next(iter(devices))}"
    return scatter(spots, x_label=label, y_label=METRIC, title=title)


def _section(group: Group, table: Grid, title: str, picture: str | None) -> str:
    """Writes a group's part of the Markdown."""
    lines = [FRONT, *group.notes]
    if picture is None:
        lines.append("no plot: no latency of one image was measured, or not on one device")
    drawn = f"\n![accuracy against latency]({picture})\n" if picture else ""
    listed = "".join(f"- {markdown_text(line)}\n" for line in lines)
    return f"## {markdown_text(title)}\n\n{as_markdown(table)}\n{listed}{drawn}"


def _page(parts: Sequence[str], others: Sequence[str], facts: Mapping[str, Any]) -> str:
    """Writes the Markdown of several runs."""
    head = (
        f"{facts['cpu']}, {facts['threads']} threads; load before the measurement: "
        f"{facts['load_before']}; {facts['measured']}. Each run's own benchmark.md has all "
        "variants, and its layers."
    )
    if len(parts) > 1:
        head += f" The runs have {len(parts)} protocols: their metrics don't mean the same, so "
        head += "each has a table and a plot of its own."
    listed = "".join(f"- {markdown_text(line)}\n" for line in others)
    rest = f"## Not ranked\n\n{listed}" if others else ""
    method = markdown_text(facts["method"])
    return "\n".join(
        ["# Accuracy and latency\n", markdown_text(head), "", *parts, rest, method, ""]
    )


def _rows(models: Models, groups: Sequence[Group]) -> Iterator[dict[str, object]]:
    """Yields a row for each measured run, device, variant and batch size."""
    places: dict[Path, tuple[int, Configuration, float | None]] = {
        run.path.resolve(): (index, c, run.values.get(METRIC))
        for index, group in enumerate(groups, 1)
        for c in group.configurations
        for run in c.runs
    }
    for path, model in models.items():
        index, c, accuracy = places.get(path, (None, None, None))
        facts: dict[str, object] = {"run": str(path), "protocol": index}
        facts |= {"rank": c.rank if c else None, METRIC: accuracy}
        facts |= {"params": model.cost.params, "mult_adds": model.cost.mult_adds}
        yield from (facts | asdict(row) for row in model.rows)
