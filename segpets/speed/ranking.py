"""Several runs: accuracy beside latency."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segpets.comparison import Configuration, Group
from segpets.report.chart import number
from segpets.report.grid import Cell, Column, Grid, as_markdown, markdown_text
from segpets.report.latency import Spot
from segpets.speed.measured import Measured
from segpets.speed.timing import Timing
from segpets.speed.words import cell
from segpets.speed.workers import Row

FRONT = "* on the front: none is as fast and as good"
LATENCY = "latency_ms"

Models = Mapping[Path | None, Measured]


def heading(group: Group, index: int, groups: int) -> str:
    """What a group's metrics mean, as far as that tells it from the others."""
    if group.peculiar:
        told = "; ".join(f"{key}: {value}" for key, value in group.peculiar.items())
        return f"Protocol {index} of {groups}: {told}"
    protocol = group.protocol
    return f"{protocol.get('data')}, split {protocol.get('split')}, {', '.join(group.classes)}"


def grid(group: Group, models: Models, metric: str) -> Grid:
    """The configurations of a group, the most accurate first; means over the seeds."""
    batches = sorted({r.batch for run in _runs(group) for r in _own(models[run])})
    heads = [
        *(Column(title, title != "run") for title in ("#", "run", "seeds", metric)),
        *(Column(title) for title in ("params", "mult-adds")),
        Column("variant", numeric=False),
        *(Column(title) for title in ("p50 ms", "p95 ms")),
        *(Column(f"images/s at {batch}") for batch in batches),
        *(Column(f"peak MB at {batch}") for batch in batches),
    ]
    rows = []
    for c in group.configurations:
        owned = [models[run.path.resolve()] for run in c.runs]
        singles = [m.latency.timing for m in owned if m.latency and m.latency.timing]
        star = "*" if LATENCY in c.fronts else ""
        p50 = _mean([t.p50_ms for t in singles])
        accuracy, params, mult_adds = c.mean(metric), owned[0].cost.params, owned[0].cost.mult_adds
        rows.append(
            [
                Cell(str(c.rank), c.rank),
                Cell(c.label),
                Cell(str(len(c.runs)), len(c.runs)),
                Cell("-" if accuracy is None else f"{accuracy:.4f}", accuracy),
                Cell(number(params), params),
                Cell(number(mult_adds), mult_adds),
                Cell(" on ".join(reversed(owned[0].own))),
                Cell(f"{cell(p50).text}{star}", p50),
                cell(_mean([t.p95_ms for t in singles])),
                *(cell(_mean([t.images_per_second for t in _at(owned, b)])) for b in batches),
                *(cell(_mean([_peak(r) for m in owned for r in _own(m, b)])) for b in batches),
            ]
        )
    return Grid(heads, rows)


def _runs(group: Group) -> list[Path]:
    return [run.path.resolve() for c in group.configurations for run in c.runs]


def _own(model: Measured, batch: int | None = None) -> list[Row]:
    """The rows of the device and variant in which a model is loaded."""
    return [
        row
        for row in model.rows
        if (row.job.device, row.job.variant) == model.own and batch in (None, row.batch)
    ]


def _at(models: Sequence[Measured], batch: int) -> list[Timing]:
    return [row.timing for m in models for row in _own(m, batch) if row.timing]


def _peak(row: Row) -> float | None:
    return row.peak_memory_mb


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def spots(group: Group, metric: str) -> list[Spot]:
    """The points of a group's plot; none where latencies were measured on several devices."""
    if len({run.device for c in group.configurations for run in c.runs if run.device}) > 1:
        return []
    return [
        Spot(latency, accuracy, f"#{c.rank} {c.label}", LATENCY in c.fronts)
        for c in group.configurations
        if (latency := c.mean(LATENCY)) is not None and (accuracy := c.mean(metric)) is not None
    ]


def latency_label(group: Group, models: Models) -> str:
    """What the latencies of a group are of."""
    owns = dict.fromkeys(models[run].own[1] for run in _runs(group))
    device = next(run.device for c in group.configurations for run in c.runs if run.device)
    return f"median ms of one image ({', '.join(owns)})\n{device}"


def section(group: Group, table: Grid, *, title: str, picture: str | None) -> str:
    """A group's part of the Markdown."""
    lines = [FRONT, *group.notes]
    if picture is None:
        lines.append("no plot: no latency of one image was measured, or not on one device")
    shown = f"\n![accuracy against latency]({picture})\n" if picture else ""
    listed = "".join(f"- {markdown_text(line)}\n" for line in lines)
    return f"## {markdown_text(title)}\n\n{as_markdown(table)}\n{listed}{shown}"


def page(parts: Sequence[str], others: Sequence[str], facts: Mapping[str, Any]) -> str:
    """The Markdown of several runs."""
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


def rows(
    models: Sequence[Measured], groups: Sequence[Group], metric: str
) -> Iterator[dict[str, object]]:
    """All that was measured, for CSV: a row for each run, device, variant and batch size."""
    places: dict[Path, tuple[int, Configuration]] = {
        run.path.resolve(): (index, c)
        for index, group in enumerate(groups, 1)
        for c in group.configurations
        for run in c.runs
    }
    for model in models:
        run = model.subject.run
        index, configuration = places.get(run, (None, None)) if run else (None, None)
        values: Mapping[str, float] = {}
        if configuration is not None:
            values = next(r.values for r in configuration.runs if r.path.resolve() == run)
        for row in model.rows:
            t = row.timing
            yield {
                "run": str(run),
                "protocol": index,
                "rank": configuration.rank if configuration else None,
                metric: values.get(metric),
                "params": model.cost.params,
                "mult_adds": model.cost.mult_adds,
                "device": row.job.device,
                "variant": row.job.variant,
                "batch": row.batch,
                "passes": t.passes if t else None,
                "p50_ms": t.p50_ms if t else None,
                "p95_ms": t.p95_ms if t else None,
                "p99_ms": t.p99_ms if t else None,
                "images_per_second": t.images_per_second if t else None,
                "peak_memory_mb": row.peak_memory_mb,
                "missing": row.missing,
            }
