"""Compares runs: `python -m segpets.compare runs=logs/train/multiruns/first`."""

import logging
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from segpets.compare.ceiling import add_shares
from segpets.compare.files import tables
from segpets.compare.fit_width import fitted
from segpets.compare.page import page
from segpets.compare.paired import Comparison, compared
from segpets.compare.settings import CompareSettings
from segpets.compare.table import notes_of, table_of
from segpets.compare.words import run_notes, sentences, unranked_lines
from segpets.errors import UserError, did_you_mean
from segpets.reading import printable
from segpets.records.group import Group, grouped
from segpets.records.heading import heading
from segpets.records.record import Record, read_record
from segpets.report.grid import Grid
from segpets.report.page import encodable
from segpets.report.table import as_text, grid_table
from segpets.run.files import COMPARISON, OTHER_FOLDER, make_ready, shown, write_atomically
from segpets.run.find import Unranked, find_runs
from segpets.run.lock import check_new
from segpets.run.trust import Trust

log = logging.getLogger("segpets.compare")

_SHOWN_ROWS = 30
_SHOWN_LINES = 12
_WIDTH = 150  # of a table, where there is no terminal to ask
_WIDTHS = (60, 200)


@dataclass(frozen=True)
class Result:
    """The outcome of a comparison.

    Attributes:
        path: The folder with `compare.html`, `compare.csv`, `runs.csv`, `tests.csv`, `compare.md`
            and `compare.tex`.
        groups: The configurations of each protocol, the best first.
        comparisons: The paired tests of each group.
        unranked: The runs that aren't in any group, and why.
    """

    path: Path
    groups: list[Group]
    comparisons: list[list[Comparison]]
    unranked: list[Unranked]


def compare(cfg: DictConfig) -> Result:
    """Ranks runs, tests their differences, and writes tables and a page.

    Raises:
        UserError: There is no run that could be ranked.
    """
    settings = _checked(cfg)
    runs = settings.runs
    words = [str(word) for word in (runs if isinstance(runs, list) else [runs])]
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
    if settings.ceiling is not None:
        add_shares(groups, Path(settings.ceiling).expanduser())
    comparisons = []
    for group in groups:
        tests, notes = compared(
            group, against_each_other=cfg.pairs, resamples=cfg.resamples, seed=cfg.seed
        )
        comparisons.append(tests)
        group.notes += notes + run_notes(group)
    result = Result(Path(cfg.paths.output_dir), groups, comparisons, unranked)
    make_ready(result.path, OTHER_FOLDER)
    findings = (groups, comparisons, unranked)
    for name, text in tables(cfg.metric, *findings):
        write_atomically(result.path / name, encodable(text))
    write_atomically(result.path / COMPARISON, encodable(page(settings, *findings)))
    _say(cfg, result)
    return result


def _checked(cfg: DictConfig) -> CompareSettings:
    if cfg.runs in (None, []):
        raise UserError("runs names nothing: give a run directory, a sweep's folder, or a list")
    check_new(Path(cfg.paths.output_dir), "compare")
    return CompareSettings.of(cfg)


def _print(text: str) -> None:
    log.info("%s", printable(text))


def _nothing(cfg: DictConfig, records: Sequence[Record], unranked: Sequence[Unranked]) -> str:
    known = sorted({name for r in records if r.status == "completed" for name in r.values})
    if known and cfg.metric not in known:
        hint = did_you_mean(cfg.metric, known, "metric=")
        whole = [name for name in known if name.count("/") == 1] or known
        parts = [name for name in reversed(known) if name not in whole]
        more = f", and {len(parts)} more, such as {parts[0]}" if parts else ""
        return (
            f"no completed run has metric={cfg.metric}.{hint} They have: {', '.join(whole)}{more}"
        )
    first = unranked[0]
    others = f", and {len(unranked) - 1} more like it or worse" if unranked[1:] else ""
    return (
        f"no run can be compared: {shown(first.path)} is {first.status} ({first.reason}){others}. "
        "Compare completed runs"
    )


def _say(cfg: DictConfig, result: Result) -> None:
    least, most = _WIDTHS
    width = min(max(shutil.get_terminal_size((_WIDTH, 0)).columns, least), most)
    for index, group in enumerate(result.groups):
        full = table_of(group, cfg.metric)
        grid, left_out = fitted(Grid(full.columns, full.rows[:_SHOWN_ROWS]), width)
        title = f"{heading(result.groups, index)}: by {cfg.metric}"
        _print(as_text(grid_table(grid, title=title), width=width))
        if (left := len(group.configurations) - _SHOWN_ROWS) > 0:
            _print(f"  and {left} configurations more, in compare.csv")
        if left_out:
            _print(_wrapped(f"no room for {', '.join(left_out)}: see compare.csv", width))
        for note in notes_of(grid):
            _print(_wrapped(note, width))
        _some([_wrapped(line, width) for line in sentences(result.comparisons[index])], "tests.csv")
        _some([_wrapped(line, width) for line in group.notes], "compare.md")
        _print("")
    if (count := len(result.groups)) > 1:
        _print(f"{count} protocols: their metrics don't mean the same, so each is ranked by itself")
    if result.unranked:
        _print(f"{len(result.unranked)} not ranked:")
        _some([f"  {line}" for line in unranked_lines(result.unranked)], "runs.csv")
    folder = shown(result.path)
    _print(f"{folder}/compare.html shows all of it")
    _print("  compare.csv  runs.csv  tests.csv  compare.md  compare.tex")


def _wrapped(line: str, width: int) -> str:
    """Wraps a sentence to the terminal's width; words such as paths stay whole."""
    return textwrap.fill(
        line,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _some(lines: Sequence[str], file: str) -> None:
    """Prints the first lines, and says where the others are."""
    for line in lines[:_SHOWN_LINES]:
        _print(line)
    if len(lines) > _SHOWN_LINES:
        _print(f"  and {len(lines) - _SHOWN_LINES} more, in {file}")


def main(cfg: DictConfig, trust: Trust) -> Path:
    """Runs the command; returns the folder of the result."""
    return compare(cfg).path
