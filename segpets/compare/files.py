"""The comparison as tables for other programs: CSV, Markdown and LaTeX."""

from collections.abc import Iterator, Sequence

from segpets.compare.paired import Comparison
from segpets.compare.table import notes_of, table_of
from segpets.compare.words import (
    comparison_rows,
    configuration_rows,
    run_rows,
    sentences,
    unranked_lines,
)
from segpets.records.group import Group
from segpets.records.heading import heading
from segpets.report.grid import as_csv, as_latex, as_markdown, latex_text, markdown_text
from segpets.run.find import Unranked


def tables(
    metric: str,
    groups: Sequence[Group],
    comparisons: Sequence[Sequence[Comparison]],
    unranked: Sequence[Unranked],
) -> Iterator[tuple[str, str]]:
    """Yields the name and the content of each file."""
    yield "compare.csv", as_csv(list(configuration_rows(groups)))
    yield "runs.csv", as_csv(list(run_rows(groups, unranked)))
    yield "tests.csv", as_csv(list(comparison_rows(comparisons)))
    markdown = ["# Runs by " + markdown_text(metric) + "\n"]
    latex = ["% \\usepackage{booktabs} in the preamble\n"]
    for index, (group, tests) in enumerate(zip(groups, comparisons, strict=True)):
        title, grid = heading(groups, index), table_of(group, metric)
        listed = _listed([*notes_of(grid), *sentences(tests), *group.notes])
        markdown.append(f"## {markdown_text(title)}\n\n{as_markdown(grid)}\n{listed}")
        below = "".join(f"% {latex_text(note)}\n" for note in notes_of(grid))
        latex.append(f"% {latex_text(title)}\n{as_latex(grid)}{below}")
    if unranked:
        markdown.append(f"## Not ranked\n\n{_listed(unranked_lines(unranked))}")
    yield "compare.md", "\n".join(markdown)
    yield "compare.tex", "\n".join(latex)


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"- {markdown_text(line)}\n" for line in lines)
