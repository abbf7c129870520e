"""A table of results, and its forms: Markdown, LaTeX and CSV. All of its content is escaped."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from segpets.reading import csv_cell


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The text that is shown.
        value: The value to sort by; None comes last.
        hint: Further information, shown where there is room.
    """

    text: str
    value: float | str | None = None
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        title: The title above it.
        numeric: Whether it holds numbers.
        part: The part of the table that it belongs to, such as `overrides`. Without room for
            all, whole parts are left out; columns of no part stay.
    """

    title: str
    numeric: bool = True
    part: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        columns: Its columns.
        rows: Rows with a cell for each column.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl isn't in the encoding that LaTeX begins with
    "±": r"$\pm$",
    "…": r"\ldots{}",
    "[": "{[}",  # after \\ it would start an optional argument
}
_SPACES = re.compile(r"[\s\x00-\x1f\x7f]+")
# What has a meaning within a line, a colon before a letter (http://, :smile:), and what has one at
# the beginning of a line.
_MARKS = re.compile(r"([\\`*_{}\[\]<>#!|~&$@]|:(?=\S)|^[-+=])")


def markdown_text(text: str) -> str:
    """Escapes a text for a line of Markdown: special characters get a backslash."""
    return _MARKS.sub(r"\\\1", _SPACES.sub(" ", text))


def latex_text(text: str) -> str:
    """Escapes a text for LaTeX; letters of other alphabets stay, for XeLaTeX or LuaLaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in _SPACES.sub(" ", text))


def as_markdown(grid: Grid) -> str:
    """Writes a table in GitHub's Markdown."""
    titles = (markdown_text(column.title) for column in grid.columns)
    rules = ("---:" if column.numeric else ":---" for column in grid.columns)
    rows = [titles, rules, *((markdown_text(cell.text) for cell in row) for row in grid.rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def as_latex(grid: Grid) -> str:
    """Writes a LaTeX tabular with the rules of the package booktabs."""
    places = "".join("r" if column.numeric else "l" for column in grid.columns)
    titles = " & ".join(latex_text(column.title) for column in grid.columns)
    rows = (" & ".join(latex_text(cell.text) for cell in row) for row in grid.rows)
    body = "".join(f"{row} \\\\\n" for row in rows)
    return (
        f"\\begin{{tabular}}{{{places}}}\n\\toprule\n{titles} \\\\\n\\midrule\n"
        f"{body}\\bottomrule\n\\end{{tabular}}\n"
    )


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Writes rows with all keys that any of them has; numbers in full, None as nothing."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: csv_cell(v) if isinstance(v, str) else v for k, v in row.items()})
    return text.getvalue()


def number(value: float) -> str:
    """Formats a number briefly: 12, 3.5 k, 1.94 M, 18.1 G."""
    for unit, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
