"""Fits a table of results to a terminal's width: parts are left out before words break."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from segpets.report.grid import Cell, Column, Grid

_HEAD: Final = 9  # letters in a line of a head, about as many as numbers have
_KEY: Final = 12  # and in that of an override
_WORD: Final = 20  # letters in a line of any other cell
_EDGE: Final = 2  # letters beside a table; 2 between its columns
_AT_ONCE: Final = ("classes", "time", "scores")
_ONE_BY_ONE: Final = ("more", "costs", "overrides")


def fitted(grid: Grid, width: int) -> tuple[Grid, list[str]]:
    """Folds long words at their punctuation, and leaves out columns until the others fit.

    Those of the parts `classes`, `time` and `scores` go first, each at once; then those of `more`
    (further overrides), `costs`, and `overrides`, from the right, but for the first override.

    Returns:
        The table, and the titles of what is left out.
    """
    cells = [[Cell(folded(cell.text, _WORD), cell.value) for cell in row] for row in grid.rows]
    columns, widths = [], []
    for index, column in enumerate(grid.columns):
        wide = max((_width(row[index].text) for row in cells), default=0)
        title = _head(column, max(wide, _KEY))
        columns.append(Column(title, column.numeric, column.part))
        widths.append(max(wide, _width(title)))
    room = width - _EDGE - sum(wide + 2 for wide in widths)
    out: list[set[int]] = []
    for leaving in _in_order(grid.columns):
        if room >= 0:
            break
        room += sum(widths[i] + 2 for i in leaving)
        out.append(leaving)
    for back in reversed(list(out)):  # those that were too little to help
        if (needed := sum(widths[i] + 2 for i in back)) <= room:
            room -= needed
            out.remove(back)
    kept = [i for i in range(len(columns)) if not any(i in leaving for leaving in out)]
    rows = [[row[i] for i in kept] for row in cells]
    left_out = [column.title for i, column in enumerate(grid.columns) if i not in kept]
    return Grid([columns[i] for i in kept], rows), left_out


def folded(text: str, width: int) -> str:
    """Breaks a text into lines after spaces and punctuation; longer pieces break anywhere."""
    lines = [""]
    for piece in re.findall(r"[^\s_/.,:=+-]*[\s_/.,:=+-]|[^\s_/.,:=+-]+", text):
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    parts = (line.strip() for line in lines)
    return "\n".join(part[i : i + width] for part in parts for i in range(0, len(part), width))


def _head(column: Column, width: int) -> str:
    if not column.numeric:
        return folded(column.title, width)
    return textwrap.fill(column.title, _HEAD, break_long_words=False, break_on_hyphens=False)


def _width(text: str) -> int:
    return max((len(line) for line in text.splitlines()), default=0)


def _in_order(columns: Sequence[Column]) -> Iterator[set[int]]:
    parts: dict[str, list[int]] = {}
    for index, column in enumerate(columns):
        parts.setdefault(column.part, []).append(index)
    for name in _AT_ONCE:
        yield set(parts.get(name, []))
    for name in _ONE_BY_ONE:
        first = 1 if name == "overrides" else 0
        yield from ({index} for index in reversed(parts.get(name, [])[first:]))
