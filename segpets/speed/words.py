"""Measurements as tables, plain data and Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from segpets.cost import Cost
from segpets.report.chart import number
from segpets.report.grid import Cell, Column, Grid, as_markdown, markdown_text
from segpets.speed.measured import Measured
from segpets.speed.subject import Subject
from segpets.speed.variants import VARIANTS
from segpets.speed.workers import Row


def runtime_versions() -> dict[str, str | None]:
    """The versions of what runs exported files."""
    try:
        return {"onnxruntime": version("onnxruntime")}
    except PackageNotFoundError:
        return {"onnxruntime": None}


def told(model: Measured, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `benchmark.json` holds: `latency_ms` and `device` for comparisons, and all the rest."""
    device, variant = model.own
    row, subject = model.latency, model.subject
    name = _device_name(device, facts)
    return {
        "latency_ms": row.timing.p50_ms if row and row.timing else None,
        "device": f"{name}, {subject.size}x{subject.size}",
        "latency_of": f"the median pass of one image on {device}, variant {variant}: "
        + VARIANTS[variant].title
        + ("" if row else "; it wasn't measured"),
        "run": None if subject.run is None else str(subject.run),
        "model": dict(subject.model),
        "weights": model.weights,
        "size": [subject.size, subject.size],
        "params": model.cost.params,
        "mult_adds": model.cost.mult_adds,
        **facts,
        "rows": [_plain(row, facts, subject) for row in model.rows],
        "layers": model.cost.table.splitlines(),
    }


def _device_name(device: str, facts: Mapping[str, Any]) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    threads = facts["threads"]
    cpu = f"{facts['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
    return cpu if device == "cpu" else f"{device} of {facts['cpu']}"


def _plain(row: Row, facts: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    variant = VARIANTS[row.job.variant]
    size = subject.padded if variant.file else subject.size
    return {
        "device": row.job.device,
        "device_name": _device_name(row.job.device, facts),
        "variant": row.job.variant,
        "what": variant.title,
        "input": [row.batch, 3, size, size],
        "batch": row.batch,
        **(asdict(row.timing) if row.timing else {}),
        "warm_up": row.warm_up,
        "first_pass_s": row.first_pass_s,
        "peak_memory_mb": row.peak_memory_mb,
        "missing": row.missing,
    }


def variant_grid(rows: Sequence[Row]) -> Grid:
    """The variants of one model; `times eager` is the median of `eager` by that of the row."""
    heads = [
        *(Column(title, numeric=False) for title in ("device", "variant")),
        *(Column(title) for title in ("batch", "min ms", "p50 ms", "p95 ms", "p99 ms")),
        *(Column(title) for title in ("passes", "images/s", "times eager")),
        *(Column(title) for title in ("peak MB", "first pass s")),
    ]
    eager = {
        (row.job.device, row.batch): row.timing.p50_ms
        for row in rows
        if row.job.variant == "eager" and row.timing
    }
    lines = []
    for row in rows:
        start = [Cell(row.job.device), Cell(row.job.variant), Cell(str(row.batch), row.batch)]
        if row.timing is None:
            lines.append([*start, *(Cell("-") for _ in heads[3:])])
            continue
        t, base = row.timing, eager.get((row.job.device, row.batch))
        lines.append(
            [
                *start,
                *(cell(ms) for ms in (t.min_ms, t.p50_ms, t.p95_ms, t.p99_ms)),
                Cell(str(t.passes), t.passes),
                cell(t.images_per_second),
                cell(None if base is None else base / t.p50_ms),
                cell(row.peak_memory_mb),
                cell(row.first_pass_s),
            ]
        )
    return Grid(heads, lines)


def cell(value: float | None) -> Cell:
    """A number with three digits at least."""
    if value is None:
        return Cell("-")
    return Cell(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}", value)


def missing(rows: Sequence[Row]) -> Iterator[str]:
    """Says of each variant without a number why it has none, once."""
    seen: dict[str, None] = {}
    for row in rows:
        if row.missing:
            seen.setdefault(f"{row.job.variant} on {row.job.device}: {row.missing}")
    yield from seen


def heading(name: str, told: Mapping[str, Any]) -> str:
    """A model and what it costs, in a line."""
    height, width = told["size"]
    return (
        f"{name}: {number(told['params'])} parameters, {number(told['mult_adds'])} mult-adds of "
        f"one {height}x{width} image"
    )


def page(name: str, told: Mapping[str, Any], grid: Grid, cost: Cost) -> str:
    """What `benchmark.md` holds of one model."""
    rows = told["rows"]
    versions = ", ".join(f"{key} {value}" for key, value in told["versions"].items() if value)
    height, width = told["size"]
    lines = [
        f"parameters: {told['params']:,}",
        f"mult-adds of one {height}x{width} image: {told['mult_adds']:,}",
        f"weights: {told['weights']}",
        f"CPU: {told['cpu']}, {told['threads']} threads; load before the measurement: "
        f"{told['load_before']}",
        *(
            f"{device}: {title}"
            for device, title in dict.fromkeys((r["device"], r["device_name"]) for r in rows)
            if device != "cpu"
        ),
        f"versions: {versions}",
        f"measured: {told['measured']}, in {told['seconds']:.0f} s",
    ]
    variants = dict.fromkeys((row["variant"], row["what"]) for row in rows)
    return "\n".join(
        [
            f"# {markdown_text(name)}\n",
            *(f"- {markdown_text(line)}" for line in lines),
            "",
            as_markdown(grid),
            *(f"- {markdown_text(f'{variant}: {what}')}" for variant, what in variants),
            *(
                f"- {markdown_text('not measured: ' + reason)}"
                for reason in dict.fromkeys(
                    f"{row['variant']} on {row['device']}: {row['missing']}"
                    for row in rows
                    if row["missing"]
                )
            ),
            "",
            markdown_text(told["method"]),
            "\n## Layers\n",
            "```",
            cost.table,
            "```\n",
        ]
    )
