"""Findings of the doctor, and the lists that it writes."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from segpets.reading import csv_cell


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or looks wrong.

    Attributes:
        serious: Whether a training would refuse to start, or its numbers would be wrong. What
            isn't serious deserves a look.
        file: The file, or the key of the config, that it is about.
        problem: What is wrong with it, as a sentence without its subject.
        remedy: What to do.
        name: The sample that is better left out, as `data.exclude` lists it; None if leaving
            something out is no remedy.
        leave_out: Whether the list for `data.exclude` names it, or only offers to.
    """

    serious: bool
    file: str
    problem: str
    remedy: str
    name: str | None = None
    leave_out: bool = True


def as_csv(findings: Sequence[Finding]) -> str:
    """Writes a table of all findings: severity, file, problem, remedy, name."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["severity", "file", "problem", "remedy", "name"])
    for found in findings:
        severity = "error" if found.serious else "warning"
        cells = [severity, found.file, found.problem, found.remedy, found.name or ""]
        table.writerow(map(csv_cell, cells))
    return text.getvalue()


def exclusions(findings: Sequence[Finding], *, before: str = "") -> str:
    """Writes the list for `data.exclude`; optional exclusions are commented out.

    Args:
        findings: The findings.
        before: The list by which images were excluded already; it is continued.
    """
    lines = before.splitlines() or [
        "# Images that a training is better off without: data.exclude=THIS_FILE",
        "# Remove the # before a name to leave that image out, too.",
    ]
    chosen = {found.name for found in findings if found.name and found.leave_out}
    listed: set[str] = set()
    for found in findings:
        if found.name is None or found.name in listed:
            continue
        if found.name in chosen and not found.leave_out:
            continue
        listed.add(found.name)
        reason = " ".join(found.problem.split())
        lines.append(f"{'' if found.leave_out else '# '}{found.name}  # {reason}")
    return "\n".join(lines) + "\n"
