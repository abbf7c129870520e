"""Tables in Markdown, LaTeX and CSV, read back."""

import csv
import io
import re

import pytest

from segpets.report.grid import Cell, Column, Grid, as_csv, as_latex, as_markdown, markdown_text

HOSTILE = [
    "plain",
    "a|b",
    "back\\slash|",
    "<script>alert(1)</script>",
    "![x](http://example.org/x.png) [y](z)",
    "*stars* _lines_ `code` ~~gone~~ $x$",
    "two\nlines\ttab",
    "50 % & #1_{2} ^ ~ \\\\ \\input{/etc/passwd}",
    "http://example.org www.example.org a@example.org",
    "läufe 犬 “quotes” 'and' \"more\"",
    "[1] first in a row",
]


def grid(words: list[str]) -> Grid:
    rows = [[Cell(word), Cell(f"{i:.4f}", i)] for i, word in enumerate(words)]
    return Grid([Column("name | <b>", numeric=False), Column("value")], rows)


def unescaped(cell: str) -> str:
    return re.sub(r"\\(.)", r"\1", cell.strip())


def one_line(word: str) -> str:
    return re.sub(r"\s+", " ", word)


def test_markdown_reads_back() -> None:
    lines = as_markdown(grid(HOSTILE)).splitlines()
    rows = [re.findall(r"((?:\\.|[^|\\])+)(?=\|)", line) for line in lines]
    assert [len(row) for row in rows] == [2] * (len(HOSTILE) + 2)
    assert rows[1] == [" :--- ", " ---: "]
    assert [unescaped(row[0]) for row in rows[2:]] == [one_line(word) for word in HOSTILE]


def test_markdown_has_no_mark_that_means_something() -> None:
    for line in as_markdown(grid(HOSTILE)).splitlines()[2:]:
        for cell in re.findall(r"((?:\\.|[^|\\])+)(?=\|)", line):
            assert not re.search(r"[<>`*_\[\]!$@#|~&]|:\S", re.sub(r"\\.", "", cell))


def test_plain_words_of_markdown_can_be_read_as_they_stand() -> None:
    assert markdown_text("is better: 1e-4 (p = 0.2)") == "is better: 1e-4 (p = 0.2)"
    assert markdown_text("- no list") == r"\- no list"


LATEX = {
    r"\textbackslash{}": "\\",
    r"\textasciicircum{}": "^",
    r"\textasciitilde{}": "~",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"{\char34}": '"',
    "{[}": "[",
    **{f"\\{sign}": sign for sign in "{}$&#%_"},
}


def test_latex_reads_back() -> None:
    text = as_latex(grid(HOSTILE))
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    rows = [line for line in text.splitlines() if line.endswith(" \\\\")][1:]
    token = re.compile("|".join(map(re.escape, sorted(LATEX, key=len, reverse=True))))
    found = []
    for row in rows:
        first, _ = re.split(r"(?<!\\) & ", row.removesuffix(" \\\\"))
        assert not set(token.sub("", first)) & set("\\{}$&#%_^~"), first
        found.append(token.sub(lambda match: LATEX[match[0]], first))
    assert found == [one_line(word) for word in HOSTILE]


def test_csv_reads_back_in_full_precision() -> None:
    rows = [{"name": word, "value": 1 / (i + 3)} for i, word in enumerate(HOSTILE)]
    text = as_csv([*rows, {"other": None, "name": "last"}])
    back = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["name"] for row in back] == [*HOSTILE, "last"]
    assert [float(row["value"]) for row in back[:-1]] == [row["value"] for row in rows]
    assert back[-1] == {"name": "last", "value": "", "other": ""}


@pytest.mark.parametrize("write", [as_markdown, as_latex])
def test_a_table_without_rows_is_one(write: object) -> None:
    assert "value" in write(grid([]))  # type: ignore[operator]
