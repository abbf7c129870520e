"""Compares runs: `python -m segpets.compare runs=logs/train/multiruns/first`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.comparison import Comparison, Configuration, Group, Record, Unranked
    from segpets.report.chart import Chart
    from segpets.report.grid import Cell, Grid

log = logging.getLogger("segpets.compare")

_STAGES = ("best/val/", "val/", "test/")
_SHOWN_ROWS = 30
_SHOWN_LINES = 12
_FRONT = "* none costs as little and is as good: on the front of accuracy against cost"
_NAMES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice",
    "params": "params",
    "mult_adds": "mult-adds",
    "latency_ms": "latency ms",
    "seconds": "seconds",
    "epochs_to_95": "95 % at epoch",
}


@dataclass(frozen=True)
class Result:
    """What comparing gives.

    Attributes:
        path: The folder with `compare.html`, `compare.csv`, `runs.csv`, `tests.csv`, `compare.md`
            and `compare.tex`.
        groups: The configurations of each protocol, the best first.
        comparisons: The paired tests of each group.
        unranked: The runs that are in no group, and why.
    """

    path: Path
    groups: list[Group]
    comparisons: list[list[Comparison]]
    unranked: list[Unranked]


def compare(cfg: DictConfig) -> Result:
    """Ranks runs, tests their differences, and writes tables and a page.

    Args:
        cfg: The composed config of `conf/compare.yaml`; see `segpets.config.compose`.

    Raises:
        UserError: There is no run that could be ranked.
    """
    _check(cfg)
    from segpets.comparison import Unranked, compared, find_runs, grouped, read_record
    from segpets.run import write_atomically

    words = [str(word) for word in (cfg.runs if OmegaConf.is_list(cfg.runs) else [cfg.runs])]
    paths, unranked = find_runs(words, log_dir=Path(cfg.train_log_dir))
    records: list[Record] = []
    for path in paths:
        try:
            records.append(read_record(path))
        except UserError as error:
            unranked.append(Unranked(path, "unreadable", str(error)))
    groups, others = grouped(records, metric=cfg.metric)
    unranked += others
    if not groups:
        raise UserError(_nothing(cfg, records, unranked))
    comparisons = []
    for group in groups:
        tests, notes = compared(
            group, against_each_other=cfg.pairs, resamples=cfg.resamples, seed=cfg.seed
        )
        comparisons.append(tests)
        group.notes += notes
        group.notes += [
            f"#{c.rank}, seed {run.seed}: {note}"
            for c in group.configurations
            for run in c.runs
            for note in run.notes
        ]
    result = Result(Path(cfg.paths.output_dir), groups, comparisons, unranked)
    result.path.mkdir(parents=True, exist_ok=True)
    for name, text in _files(cfg, result):
        write_atomically(result.path / name, _encodable(text))
    _say(cfg, result)
    return result


def _encodable(text: str) -> str:
    """A text without the halves of letters that names of files and JSON may hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _print(text: str) -> None:
    """Shows a text that may hold anything; what would steer the terminal is replaced."""
    log.info("%s", re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "?", _encodable(text)))


def _check(cfg: DictConfig) -> None:
    for key, least in (("seed", 0), ("images", 0), ("pairs", 0), ("shown", 1), ("resamples", 99)):
        value = cfg[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{key}={value} must be a whole number of at least {least}")
    if cfg.runs is None or (OmegaConf.is_list(cfg.runs) and not cfg.runs):
        raise UserError("runs names nothing: give a run directory, a sweep's folder, or a list")
    if not isinstance(cfg.metric, str):
        raise UserError(f"metric={cfg.metric} is no name: choose one such as test/mean_iou")
    if (Path(cfg.paths.output_dir) / "compare.html").exists():
        raise UserError(
            f"{cfg.paths.output_dir} already holds a compare.html: choose another hydra.run.dir"
        )


def _nothing(cfg: DictConfig, records: Sequence[Record], unranked: Sequence[Unranked]) -> str:
    """Why no run can be ranked."""
    from segpets.run import shown

    known = sorted({name for r in records if r.status == "completed" for name in r.values})
    if known and cfg.metric not in known:
        near = difflib.get_close_matches(cfg.metric, known, n=1, cutoff=0.5)
        hint = f" Did you mean metric={near[0]}?" if near else ""
        return f"no completed run has metric={cfg.metric}.{hint} They have: {', '.join(known)}"
    first = unranked[0]
    others = f", and {len(unranked) - 1} more like it or worse" if unranked[1:] else ""
    return (
        f"no run can be compared: {shown(first.path)} is {first.status} ({first.reason}){others}. "
        "Compare completed runs"
    )


def _files(cfg: DictConfig, result: Result) -> Iterator[tuple[str, str]]:
    """The names of all files, and what goes into them."""
    from segpets.comparison.words import comparison_rows, configuration_rows, run_rows, sentences
    from segpets.report.grid import as_csv, as_latex, as_markdown, latex_text, markdown_text

    grids = [_grid(cfg, group) for group in result.groups]
    yield "compare.csv", as_csv(list(configuration_rows(result.groups)))
    yield "runs.csv", as_csv(list(run_rows(result.groups, result.unranked)))
    yield "tests.csv", as_csv(list(comparison_rows(result.comparisons)))
    markdown, latex = [], []
    for index, (group, grid) in enumerate(zip(result.groups, grids, strict=True)):
        heading = _heading(result, index)
        lines = [_FRONT, *sentences(result.comparisons[index]), *group.notes]
        listed = "".join(f"- {markdown_text(line)}\n" for line in lines)
        markdown.append(f"## {markdown_text(heading)}\n\n{as_markdown(grid)}\n{listed}")
        latex.append(f"% {latex_text(heading)}\n{as_latex(grid)}% {_FRONT}\n")
    if result.unranked:
        listed = "".join(f"- {markdown_text(line)}\n" for line in _unranked_lines(result))
        markdown.append(f"## Not ranked\n\n{listed}")
    yield "compare.md", "\n".join(markdown)
    yield "compare.tex", "\n".join(latex)
    yield "compare.html", _page(cfg, result, grids)


def _heading(result: Result, index: int) -> str:
    """What a group's metrics mean, as far as that tells it from the others."""
    group = result.groups[index]
    if group.peculiar:
        told = "; ".join(f"{key}: {value}" for key, value in group.peculiar.items())
        return f"Protocol {index + 1} of {len(result.groups)}: {told}"
    size = "x".join(map(str, _as_list(group.protocol.get("resolution"))))
    return (
        f"{group.protocol.get('data')}, split {group.protocol.get('split')}, {size}, "
        f"classes {', '.join(group.classes)}"
    )


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _stage(metric: str) -> str:
    return next((stage for stage in _STAGES if metric.startswith(stage)), "test/")


def _columns(cfg: DictConfig, group: Group) -> list[str]:
    """The values that a table shows, by their names in the summary."""
    stage = _stage(cfg.metric)
    scores = [f"{stage}{name}" for name in ("mean_iou", "pixel_accuracy", "mean_dice")]
    scores += [f"{stage}iou/{name}" for name in group.classes]
    costs = ["params", "mult_adds", "latency_ms", "seconds", "epochs_to_95"]
    wanted = dict.fromkeys([cfg.metric, *scores, *costs])
    return [name for name in wanted if any(name in c.values for c in group.configurations)]


def _title(name: str, stage: str) -> str:
    plain = name.removeprefix(stage)
    if plain.startswith("iou/"):
        return f"IoU {plain.removeprefix('iou/')}"
    if name.startswith(_STAGES) and not name.startswith(stage):
        plain = name
    return _NAMES.get(plain, plain)


def _grid(cfg: DictConfig, group: Group) -> Grid:
    from segpets.report.grid import Cell, Column, Grid

    stage, names = _stage(cfg.metric), _columns(cfg, group)
    heads = [Column("#"), *(Column(key, numeric=False) for key in group.keys), Column("seeds")]
    for name in names:
        heads.append(Column(_title(name, stage)))
        if name == cfg.metric:
            heads.append(Column("95 % ±"))
    rows = []
    for c in group.configurations:
        row = [Cell(str(c.rank), c.rank)]
        row += [Cell(c.choices.get(key, "(default)"), c.choices.get(key, "")) for key in group.keys]
        seeds = ", ".join(str(run.seed) for run in c.runs)
        row.append(Cell(str(len(c.runs)), len(c.runs), f"seeds {seeds}"))
        for name in names:
            row.append(_value_cell(c, name))
            if name == cfg.metric:
                row.append(_interval_cell(c, name))
        rows.append(row)
    return Grid(heads, rows)


def _value_cell(configuration: Configuration, name: str) -> Cell:
    from segpets.report.chart import number
    from segpets.report.grid import Cell

    estimate = configuration.values.get(name)
    if estimate is None:
        return Cell("-")
    if name in ("params", "mult_adds"):
        text = number(estimate.mean)
    elif name in ("seconds", "epochs_to_95", "latency_ms"):
        text = f"{estimate.mean:,.0f}" if estimate.mean >= 100 else f"{estimate.mean:.3g}"
    else:
        text = f"{estimate.mean:.4f}"
    hint = f"{estimate.mean!r}"
    if name in configuration.fronts:
        text += "*"
        hint += ", on the front: none costs as little and is as good"
    if estimate.low is not None:
        hint += f", 95 % interval {estimate.low:.6g} to {estimate.high:.6g}"
    return Cell(text, estimate.mean, hint)


def _interval_cell(configuration: Configuration, name: str) -> Cell:
    from segpets.report.grid import Cell

    estimate = configuration.values[name]
    if estimate.low is None or estimate.high is None:
        return Cell("-", None, "one seed has no interval")
    half = (estimate.high - estimate.low) / 2
    return Cell(f"{half:.4f}", half, f"{estimate.low!r} to {estimate.high!r}")


def _unranked_lines(result: Result) -> list[str]:
    from segpets.run import shown

    return [f"{one.status}: {shown(one.path)}: {one.reason}" for one in result.unranked]


def _page(cfg: DictConfig, result: Result, grids: Sequence[Grid]) -> str:
    from segpets.comparison.words import name_of, p_text, sentences
    from segpets.report.chart import colour
    from segpets.report.page import render
    from segpets.run import shown

    sections = []
    for index, (group, grid) in enumerate(zip(result.groups, grids, strict=True)):
        best = group.configurations[: cfg.shown]
        able, strips, notes = _pictures(cfg, group)
        tests = result.comparisons[index]
        sections.append(
            {
                "title": _heading(result, index),
                "protocol": {k: v for k, v in group.protocol.items() if k != "classes"},
                "classes": list(zip(group.classes, _class_colours(group), strict=True)),
                "grid": grid,
                "said": sentences(tests),
                "notes": group.notes,
                "tests": [
                    (name_of(t.first), name_of(t.second), t, p_text(t.p), p_text(t.p_holm))
                    for t in tests
                ],
                "curves": _curves(group),
                "fronts": _fronts(cfg, group),
                "labels": [name_of(c) for c in best],
                "colours": [colour(c.rank - 1) for c in best],
                "bars": dict(_bars(cfg, group, best)),
                "pictured": [name_of(c) for c in able],
                "strips": strips,
                "picture_notes": notes,
            }
        )
    return render(
        "compare.html.j2",
        metric=cfg.metric,
        sections=sections,
        unranked=[(one.status, shown(one.path), one.reason) for one in result.unranked],
        pairs=cfg.pairs,
        resamples=cfg.resamples,
        seed=cfg.seed,
    )


def _curves(group: Group) -> Chart | None:
    """val/mean_iou over epochs, the mean of the seeds that reached an epoch."""
    from segpets.comparison.words import name_of
    from segpets.report.chart import chart

    series = {name_of(c): c.curve() for c in group.configurations}
    return chart(series, x_label="epoch", y_label="val/mean_iou", whole=True)


def _fronts(cfg: DictConfig, group: Group) -> list[tuple[str, Chart]]:
    """Accuracy against each cost that is known."""
    from segpets.comparison.group import COSTS, cost_points
    from segpets.comparison.words import name_of
    from segpets.report.chart import chart

    found = []
    for cost in COSTS:
        points = cost_points(group, cost, cfg.metric)
        front = [points[str(c.rank)] for c in group.configurations if cost in c.fronts]
        series = {
            name_of(c): [points[str(c.rank)]] if str(c.rank) in points else []
            for c in group.configurations
        }
        drawn = chart(
            series,
            x_label=f"{_NAMES[cost]} (logarithmic)",
            y_label=cfg.metric,
            logarithmic=True,
            front=front,
            joined=False,
        )
        if drawn:
            found.append((_NAMES[cost], drawn))
    return found


def _bars(
    cfg: DictConfig, group: Group, best: Sequence[Configuration]
) -> Iterator[tuple[str, dict[str, list[float | None]]]]:
    """IoU by class, and mean IoU by what is known of the images, for each of the best."""
    stage = _stage(cfg.metric)
    yield (
        "IoU by class",
        {name: [c.mean(f"{stage}iou/{name}") for c in best] for name in group.classes},
    )
    attributes = dict.fromkeys(
        key for c in best for run in c.runs if run.counts for key in run.counts.parts
    )
    for key in attributes:
        columns = [c.mean_iou_by(key) for c in best]
        values = sorted({value for column in columns for value in column})
        yield (
            f"Mean IoU by {key}, of the test",
            {value: [column.get(value) for column in columns] for value in values},
        )


def _class_colours(group: Group) -> list[str]:
    from segpets.labels import palette

    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(len(group.classes))]


def _pictures(
    cfg: DictConfig, group: Group
) -> tuple[list[Configuration], list[tuple[str, list[tuple[str, str]]]], list[str]]:
    """The images on which the best disagree most: for each the pictures, with their captions."""
    from segpets.comparison import disputed
    from segpets.report.page import embedded
    from segpets.report.paint import painted

    able, images, notes = disputed(group, count=cfg.images, among=cfg.shown, metric=cfg.metric)
    strips = []
    for one in images:
        tiles = []
        if one.image is not None and one.truth is not None:
            truth = painted(one.truth, len(group.classes))
            tiles += [("image", embedded(one.image)), ("truth", embedded(truth))]
        for c, mask, iou in zip(able, one.masks, one.iou, strict=True):
            shown = ""
            if mask is not None:
                shown = embedded(painted(mask, len(group.classes)))
            tiles.append((f"#{c.rank}: {iou:.3f}", shown))
        strips.append((one.name, tiles))
    return able, strips, notes


def _say(cfg: DictConfig, result: Result) -> None:
    from segpets.comparison.words import sentences
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown

    for index, group in enumerate(result.groups):
        grid = _short(_grid(cfg, group))
        title = f"{_heading(result, index)}: by {cfg.metric}"
        _print(as_text(grid_table(grid, title=title), width=150))
        if (left := len(group.configurations) - _SHOWN_ROWS) > 0:
            _print(f"  and {left} configurations more, in compare.csv")
        _print(f"  {_FRONT}")
        _some(sentences(result.comparisons[index]), "tests.csv")
        _some(group.notes, "compare.md")
        _print("")
    if (count := len(result.groups)) > 1:
        _print(f"{count} protocols: their metrics don't mean the same, so each is ranked by itself")
    if result.unranked:
        _print(f"{len(result.unranked)} not ranked:")
        _some(_unranked_lines(result), "runs.csv")
    folder = shown(result.path)
    _print(f"{folder}/compare.html shows all of it")
    _print("  compare.csv  runs.csv  tests.csv  compare.md  compare.tex")


def _some(lines: Sequence[str], file: str) -> None:
    """Prints the first lines, and where the others are."""
    for line in lines[:_SHOWN_LINES]:
        _print(f"  {line}")
    if len(lines) > _SHOWN_LINES:
        _print(f"  and {len(lines) - _SHOWN_LINES} more, in {file}")


def _short(grid: Grid) -> Grid:
    """The part of a table that a terminal holds: the first rows, and few classes."""
    from segpets.report.grid import Grid

    classes = [i for i, column in enumerate(grid.columns) if column.title.startswith("IoU ")]
    left_out = set(classes) if len(classes) > 3 else set()
    kept = [i for i in range(len(grid.columns)) if i not in left_out]
    rows = [[row[i] for i in kept] for row in grid.rows[:_SHOWN_ROWS]]
    return Grid([grid.columns[i] for i in kept], rows)


def _task(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import point

    result = compare(cfg)
    latest = Path(cfg.paths.log_dir) / "latest"
    latest.parent.mkdir(parents=True, exist_ok=True)
    point(latest, result.path)


def main() -> None:
    """The command."""
    run_command(
        _task,
        name="compare",
        example="python -m segpets.compare runs=logs/train/multiruns/first",
    )


if __name__ == "__main__":
    main()
