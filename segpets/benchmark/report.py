"""The measurement of one model: plain data, a table and Markdown."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from segpets.benchmark.subject import Subject
from segpets.benchmark.timing import Row
from segpets.benchmark.variants import VARIANTS
from segpets.build.cost import Cost
from segpets.data.geometry import by
from segpets.errors import UserError
from segpets.report.grid import Cell, Column, Grid, as_markdown, markdown_text, number
from segpets.report.table import as_text, grid_table
from segpets.run.files import BENCHMARK, shown, write_atomically

log = logging.getLogger("segpets.benchmark")


@dataclass(frozen=True)
class ModelReport:
    """A model, its cost, and its speed.

    Attributes:
        subject: The model.
        name: Its name in tables.
        weights: The origin of its weights, in words.
        cost: Parameters, multiply-accumulates and layers.
        own: The device and the variant by which `segpets.load` computes with it.
        rows: Its speed, in each variant and batch size.
    """

    subject: Subject
    name: str
    weights: str
    cost: Cost
    own: tuple[str, str]
    rows: list[Row]

    @property
    def latency(self) -> Row | None:
        """The row for one image, on its own device and variant; None if it wasn't measured."""
        rows = (row for row in self.own_rows() if row.batch == 1 and row.p50_ms is not None)
        return next(rows, None)

    def own_rows(self) -> list[Row]:
        """Lists the rows of the device and variant in which it is loaded."""
        return [row for row in self.rows if (row.device, row.variant) == self.own]

    @property
    def title(self) -> str:
        """Its name and cost, in a line."""
        size = by(self.subject.size)
        return (
            f"{self.name}: {number(self.cost.params)} parameters, {number(self.cost.mult_adds)} "
            f"mult-adds of one {size} image"
        )


def write_report(model: ModelReport, folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes one model's files, and shows its table.

    Raises:
        UserError: The folder can't be written.
    """
    record, grid = _record(model, facts), _grid(model.rows)
    try:
        for name in (BENCHMARK, "benchmark.md"):
            keep(folder / name)
        write_atomically(folder / BENCHMARK, json.dumps(record, indent=2) + "\n")
        write_atomically(folder / "benchmark.md", _page(model, record, grid))
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}") from error
    log.info("%s", as_text(grid_table(grid, title=model.title), width=120))
    for line in _missing(model.rows):
        log.info("  %s", line)
    log.info(
        "%s/benchmark.md tells the method and the layers; %s holds it all",
        shown(folder),
        BENCHMARK,
    )


def keep(file: Path) -> None:
    """Renames files of an earlier measurement, since nothing is overwritten."""
    if not file.exists():
        return
    stamp = datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime("%Y-%m-%d_%H-%M-%S")
    kept, count = file.with_stem(f"{file.stem}-{stamp}"), 1
    while kept.exists():
        count += 1
        kept = file.with_stem(f"{file.stem}-{stamp}-{count}")
    file.rename(kept)
    log.info("The earlier %s is %s now", file.name, kept.name)


def cell(value: float | None) -> Cell:
    """Formats a number with at least three digits."""
    if value is None:
        return Cell("-")
    return Cell(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}", value)


def _record(model: ModelReport, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Makes `benchmark.json`: `latency_ms` and `device` for comparisons, and all the rest."""
    device, variant = model.own
    latency, subject = model.latency, model.subject
    return {
        "latency_ms": latency.p50_ms if latency else None,
        "device": f"{_device_name(device, facts)}, {by(subject.size)}",
        "latency_of": f"the median pass of one image on {device}, variant {variant}: "
        + VARIANTS[variant].title
        + ("" if latency else "; it wasn't measured"),
        "run": None if subject.run is None else str(subject.run.path),
        "model": dict(subject.model),
        "weights": model.weights,
        "size": list(subject.size),
        "params": model.cost.params,
        "mult_adds": model.cost.mult_adds,
        **facts,
        "rows": [_plain(row, facts, subject) for row in model.rows],
        "layers": model.cost.table.splitlines(),
    }


def _device_name(device: str, facts: Mapping[str, Any]) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    count = facts["threads"]
    cpu = f"{facts['cpu']}, {count} thread{'s' if count > 1 else ''}"
    return cpu if device == "cpu" else f"{device} of {facts['cpu']}"


def _plain(row: Row, facts: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    variant = VARIANTS[row.variant]
    size = subject.padded if variant.file else subject.size
    known = {key: value for key, value in asdict(row).items() if value is not None}
    return known | {
        "device_name": _device_name(row.device, facts),
        "what": variant.title,
        "input": [row.batch, subject.channels, *size],
        "missing": row.missing,
    }


def _grid(rows: Sequence[Row]) -> Grid:
    """Lays out the variants; `times eager` is the median of `eager` by that of the row."""
    eager = {(row.device, row.batch): row.p50_ms for row in rows if row.variant == "eager"}
    heads = [Column(title, numeric=False) for title in ("device", "variant")]
    heads += [Column(t) for t in ("batch", "min ms", "p50 ms", "p95 ms", "passes", "images/s")]
    heads += [Column(title) for title in ("times eager", "peak MB", "first pass s")]
    cells = []
    for row in rows:
        base = eager.get((row.device, row.batch))
        ratio = base / row.p50_ms if base and row.p50_ms else None
        passes = Cell("-") if row.passes is None else Cell(str(row.passes), row.passes)
        cells.append(
            [
                *(Cell(row.device), Cell(row.variant), Cell(str(row.batch), row.batch)),
                *map(cell, (row.min_ms, row.p50_ms, row.p95_ms)),
                passes,
                *map(cell, (row.images_per_second, ratio, row.peak_memory_mb, row.first_pass_s)),
            ]
        )
    return Grid(heads, cells)


def _missing(rows: Sequence[Row]) -> Iterator[str]:
    """Explains once for each variant without a number why it has none."""
    reasons = (f"{row.variant} on {row.device}: {row.missing}" for row in rows if row.missing)
    yield from dict.fromkeys(reasons)


def _page(model: ModelReport, record: Mapping[str, Any], grid: Grid) -> str:
    """Writes the Markdown of one model."""
    versions = ", ".join(f"{key} {value}" for key, value in record["versions"].items() if value)
    size = by(model.subject.size)
    devices = dict.fromkeys((row["device"], row["device_name"]) for row in record["rows"])
    lines = [
        f"parameters: {model.cost.params:,}",
        f"mult-adds of one {size} image: {model.cost.mult_adds:,}",
        f"weights: {model.weights}",
        f"CPU: {record['cpu']}, {record['threads']} threads; load before the measurement: "
        f"{record['load_before']}",
        *(f"{device}: {title}" for device, title in devices if device != "cpu"),
        f"versions: {versions}",
        f"measured: {record['measured']}, in {record['seconds']:.0f} s",
    ]
    variants = dict.fromkeys(row.variant for row in model.rows)
    below = [f"{name}: {VARIANTS[name].title}" for name in variants]
    below += [f"not measured: {reason}" for reason in _missing(model.rows)]
    parts = [
        f"# {markdown_text(model.name)}\n",
        *(f"- {markdown_text(line)}" for line in lines),
        "",
        as_markdown(grid),
        *(f"- {markdown_text(line)}" for line in below),
        "",
        markdown_text(record["method"]),
        f"\n## Layers\n\n```\n{model.cost.table}\n```\n",
    ]
    return "\n".join(parts)
