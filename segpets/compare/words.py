"""The findings of a comparison, in words and in rows of tables."""

from collections.abc import Iterator, Sequence
from typing import Final

from segpets.compare.paired import Comparison
from segpets.records.group import COSTS, Configuration, Group
from segpets.run.files import shown
from segpets.run.find import Unranked

_LETTERS: Final = 80
_NAMED: Final = 6  # runs with the same oddity


def configuration_rows(groups: Sequence[Group]) -> Iterator[dict[str, object]]:
    """Yields a row for each configuration, with its means and the ends of their intervals."""
    for index, group in enumerate(groups, 1):
        for c in group.configurations:
            row: dict[str, object] = {"group": index, "rank": c.rank, "configuration": c.label}
            row |= {f"override.{key}": c.choices.get(key) for key in group.keys}
            row |= {"seeds": len(c.runs), "runs": " ".join(run.path.name for run in c.runs)}
            for name, estimate in c.values.items():
                row.setdefault(name, estimate.mean)
                row.setdefault(f"{name} low", estimate.low)
                row.setdefault(f"{name} high", estimate.high)
            row |= {f"front {cost}": cost in c.fronts for cost in COSTS}
            row |= {f"protocol.{key}": value for key, value in group.peculiar.items()}
            yield row


def run_rows(groups: Sequence[Group], unranked: Sequence[Unranked]) -> Iterator[dict[str, object]]:
    """Yields a row for each run, with all numbers of its summary, and for each unranked one."""
    for index, group in enumerate(groups, 1):
        for c in group.configurations:
            for run in c.runs:
                facts: dict[str, object] = {"path": str(run.path), "status": run.status}
                facts |= {"reason": "", "group": index, "rank": c.rank, "seed": run.seed}
                facts |= {f"override.{key}": value for key, value in run.overrides.items()}
                yield facts | {k: v for k, v in run.values.items() if k not in facts}
    for one in unranked:
        yield {"path": str(one.path), "status": one.status, "reason": one.reason}


def comparison_rows(comparisons: Sequence[Sequence[Comparison]]) -> Iterator[dict[str, object]]:
    """Yields a row for each paired test of each group."""
    for index, tests in enumerate(comparisons, 1):
        for test in tests:
            yield {
                "group": index,
                "first rank": test.first.rank,
                "second rank": test.second.rank,
                "first": test.first.label,
                "second": test.second.label,
                "images": test.images,
                "difference": test.difference,
                "low": test.low,
                "high": test.high,
                "p": test.p,
                "p_holm": test.p_holm,
                "significant": test.significant,
                "over": test.over,
            }


def sentences(tests: Sequence[Comparison]) -> list[str]:
    """Says in words which differences are significant."""
    if not tests:
        return []
    found = [test for test in tests if test.significant]
    images = max(test.images for test in tests)
    by = [test.over for test in tests]
    kinds = [f"{by.count(one)} over {one}" for one in sorted(set(by), reverse=True)]
    over = f" over {by[0]}" if len(kinds) == 1 else f", {' and '.join(kinds)}"
    said = [
        f"{len(found)} of {len(tests)} differences between configurations "
        f"{'is' if len(found) == 1 else 'are'} significant: p < 0.05 after Holm's correction for "
        f"{len(tests)} paired test{'s' * (len(tests) != 1)}{over}, on {images:,} images"
    ]
    if "images" in by:
        said[0] += (
            ". Over images alone a test tells these nets apart; how much another training would "
            "differ, one seed can't say."
        )
    for test in found:
        better, worse = test.first, test.second
        difference, low, high = test.difference, test.low, test.high
        if difference < 0:  # the ranking uses another metric than the test
            better, worse = worse, better
            difference, low, high = -difference, -high, -low
        where = "" if test.seeds else " on these weights"
        said.append(
            f"{name_of(better)} is significantly better than {name_of(worse)}{where}: by "
            f"{difference:.4f} mean IoU of an image, averaged over {test.over} (95 % interval "
            f"{low:.4f} to {high:.4f}, p = {p_text(test.p_holm)})"
        )
    unclear = [test for test in tests if not test.significant and test.first.rank == 1]
    if unclear:
        others = ", ".join(name_of(test.second) for test in unclear)
        said.append(f"{name_of(unclear[0].first)} can't be told from {others}")
    return said


def run_notes(group: Group) -> list[str]:
    """Lists each oddity of a group's runs once."""
    told: dict[str, list[str]] = {}
    for c in group.configurations:
        for run in c.runs:
            for note in run.notes:
                told.setdefault(note, []).append(f"#{c.rank} seed {run.seed}")
    lines = []
    for note, runs in told.items():
        more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
        lines.append(f"{', '.join(runs[:_NAMED])}{more}: {note}")
    return lines


def unranked_lines(unranked: Sequence[Unranked]) -> list[str]:
    """Lists the runs that aren't ranked, and why."""
    return [f"{one.status}: {shown(one.path)}: {one.reason}" for one in unranked]


def name_of(configuration: Configuration) -> str:
    """Gives a configuration's rank and label in one short line."""
    label = configuration.label
    if len(label) > _LETTERS:
        # Whole overrides, if more than the first half of the line remains.
        end = label.rfind(", ", _LETTERS // 2, _LETTERS)
        label = f"{label[:end]}, …" if end > 0 else f"{label[:_LETTERS]}…"
    return f"#{configuration.rank} ({label})"


def p_text(value: float) -> str:
    """Formats a p-value to four decimal places, never as 0."""
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
