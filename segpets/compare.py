"""Compares runs: `python -m segpets.compare runs=logs/train/multiruns/first`.

Nothing heavy is imported before the config stands, so `--help` and typos are answered at once.
"""

from __future__ import annotations

import difflib
import logging
import re
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from segpets.cli import run_command
from segpets.errors import UserError

if TYPE_CHECKING:
    from segpets.comparison import Comparison, Group, Record, Unranked

log = logging.getLogger("segpets.compare")

_SHOWN_ROWS = 30
_SHOWN_LINES = 12
_WIDTH = 150  # of a table, where there is no terminal to ask
_WIDTHS = (60, 200)


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
    from segpets.comparison.files import tables
    from segpets.comparison.page import Asked, page
    from segpets.comparison.words import run_notes
    from segpets.run import OTHER_FOLDER, make_ready, write_atomically

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
        group.notes += notes + run_notes(group)
    result = Result(Path(cfg.paths.output_dir), groups, comparisons, unranked)
    make_ready(result.path, OTHER_FOLDER)
    findings = (groups, comparisons, unranked)
    for name, text in tables(cfg.metric, *findings):
        write_atomically(result.path / name, _encodable(text))
    asked = Asked(
        metric=cfg.metric,
        pairs=cfg.pairs,
        resamples=cfg.resamples,
        seed=cfg.seed,
        images=cfg.images,
        best=cfg.shown,
    )
    write_atomically(result.path / "compare.html", _encodable(page(asked, *findings)))
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


def _say(cfg: DictConfig, result: Result) -> None:
    from segpets.comparison.table import heading, notes_of, table_of
    from segpets.comparison.words import sentences, unranked_lines
    from segpets.report.fit import fitted
    from segpets.report.grid import Grid
    from segpets.report.table import as_text, grid_table
    from segpets.run import shown

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
    """A sentence in lines of a terminal; words such as paths stay whole."""
    return textwrap.fill(
        line,
        width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _some(lines: Sequence[str], file: str) -> None:
    """Prints the first lines, and where the others are."""
    for line in lines[:_SHOWN_LINES]:
        _print(line)
    if len(lines) > _SHOWN_LINES:
        _print(f"  and {len(lines) - _SHOWN_LINES} more, in {file}")


def _task(cfg: DictConfig) -> None:
    """What Hydra calls."""
    from segpets.run import point

    result = compare(cfg)
    point(Path(cfg.paths.log_dir) / "latest", result.path)


def main() -> None:
    """The command."""
    run_command(
        _task,
        name="compare",
        example="python -m segpets.compare runs=logs/train/multiruns/first",
    )


if __name__ == "__main__":
    main()
