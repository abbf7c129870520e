"""The page of docs/RESULTS.md, from what is stored of trainings."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segpets.stats import Estimate, over_seeds

TEMPLATE = Path(__file__).with_name("results.template.md")
ROWS, CEILING = "rows.yaml", "ceiling.json"
RUNS = Path("logs/results")
WAYS = {
    "tta": "... and {views}, averaged",
    "decision": "... with decision weights of val",
    "decision and tta": "... with both",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: what is trained, with how many seeds, and on what."""

    name: str
    title: str
    command: list[str]
    seeds: int
    minutes: float
    device: str = "any"
    needs: str | None = None  # the row whose runs its command names

    def runs(self) -> list[Path]:
        """The runs of all its seeds."""
        return [RUNS / f"{self.name}-{seed}" for seed in range(1, self.seeds + 1)]

    def words(self, seed: int) -> list[str]:
        """The overrides of a training, which name no folder of a machine."""
        return [*self.command, f"seed={seed}"]

    def shown(self) -> str:
        """The command as one gives it."""
        words = [f"'{word}'" if set(word) & set("$[") else word for word in self.command]
        return " ".join(["python -m segpets.train", *words])


@dataclass(frozen=True)
class Judged:
    """Further predictions of trainings: averaged, mirrored, with decision weights."""

    name: str
    title: str
    of: list[str]
    seeds: list[int]
    words: list[str]


@dataclass(frozen=True)
class Change:
    """Two rows whose trainings differ in one thing, the changed one first."""

    name: str
    title: str
    of: list[str]


@dataclass(frozen=True)
class Listed:
    """What rows.yaml lists."""

    rows: list[Row]
    judged: list[Judged]
    changes: list[Change]
    published: list[dict[str, str]]

    @property
    def further(self) -> list[Judged | Change]:
        """What is made of trainings that are there."""
        return [*self.judged, *self.changes]


def listed(store: Path) -> Listed:
    """Reads the rows, and what others have published."""
    found = yaml.safe_load((store / ROWS).read_text(encoding="utf-8"))
    rows = [Row(**row) for row in found["rows"]]
    judged = [Judged(**one) for one in found.get("judged", [])]
    changes = [Change(**one) for one in found.get("changes", [])]
    return Listed(rows, judged, changes, found["published"])


def stored(row: Row, store: Path) -> dict[int, dict[str, Any]]:
    """Reads the summaries of a row's trainings by their seeds; not those of another command."""
    found = {}
    for file in sorted(store.glob(f"{row.name}.*.json")):
        seed, summary = int(file.name.split(".")[1]), stored_json(file)
        if summary.get("overrides") == row.words(seed):
            found[seed] = summary
    return found


def stored_json(file: Path) -> dict[str, Any]:
    """Reads a stored file.

    Raises:
        SystemExit: It can't be read.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{file} can't be read ({error}): restore it, or delete it") from error
    assert isinstance(found, dict)
    return found


def page(store: Path) -> str:
    """Writes the page."""
    known = listed(store)
    ceiling = stored_json(store / CEILING)
    head = [
        *("row", "epochs", "parameters", "mult-adds", "ms an image", "seconds", "device", "seeds"),
        *("pixel accuracy", "mean IoU", "95 %", *ceiling["protocol"]["classes"], "of the ceiling"),
    ]
    table, absent, commands = [head, ["---"] * len(head)], list[str](), list[str]()
    devices: dict[str, None] = {}
    several: list[str] = []
    for row in known.rows:
        found = [*stored(row, store).values()]
        if not found:
            absent.append(
                f"| {row.title} | {'needs a GPU' if row.device == 'gpu' else 'not yet'} |"
            )
            continue
        devices |= dict.fromkeys(map(_device, found))
        table.append(_cells(row, found, ceiling, [*devices]))
        if (count := len({_revision(one) for one in found})) > 1:
            several.append(f"{row.title} ({count})")
        root = ' ARGS="--root FOLDER"' if "FOLDER" in row.shown() else ""
        again = f"make reproduce ROW={row.name}{root}"
        commands.append(f"| {row.title} | `{again}` | `{row.shown()}` |")
    numbers = [
        f"| {one['what']} | {one['accuracy']} | {one['mean_iou']} | {one['protocol']} |"
        for one in known.published
    ]
    judged, changes = list[str](), list[str]()
    for one in known.further:
        if (file := store / f"{one.name}.json").exists():
            lines = judged if isinstance(one, Judged) else changes
            lines += lines_of(one, stored_json(file), ceiling)
    mean = ceiling["mean_iou"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        table="\n".join("| " + " | ".join(line) + " |" for line in table),
        judged="\n".join(judged) or "| none yet | | | | | | | |",
        changes="\n".join(changes) or "| none yet | | | | | |",
        absent="\n".join(absent) or "| none | |",
        commands="\n".join(commands),
        published="\n".join(numbers),
        ceiling=f"{mean['mean']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})",
        share_low=f"{mean['mean'] / mean['high'] - 1:+.1%}",
        share_high=f"{mean['mean'] / mean['low'] - 1:+.1%}",
        pairs=ceiling["pairs"],
        photographs=ceiling["photographs"],
        several="; ".join(several) or "none",
        devices="; ".join(f"({n}) {name}" for n, name in enumerate(devices, 1)) or "none yet",
    )


def _revision(summary: Mapping[str, Any]) -> object:
    return summary.get("versions", {}).get("code")


def _device(summary: Mapping[str, Any]) -> str:
    return f"{summary['device']}, {summary['cores']} cores"


def _cells(
    row: Row,
    found: Sequence[Mapping[str, Any]],
    ceiling: Mapping[str, Any],
    devices: Sequence[str],
) -> list[str]:
    def over(key: str) -> Estimate:
        return over_seeds([float(one[key]) for one in found])

    first, mean = found[0], over("test/mean_iou")
    low, high = (mean.low, mean.high) if len(found) > 1 else first["interval"]
    whole = first["protocol"]["images"]["test"] > 3000  # those of pets_mini are a few of them
    kind = "seeds" if len(found) > 1 else "images"
    on_first = [one for one in found if _device(one) == _device(first)]
    latency = [one["latency_ms"] for one in on_first if one.get("latency_ms")]
    classes = [over(f"test/iou/{name}").mean for name in ceiling["protocol"]["classes"]]
    return [
        row.title,
        str(first["epochs"]),
        f"{first['params'] / 1e6:.2f} M",
        f"{first['mult_adds'] / 1e9:.2f} G",
        f"{min(latency):.1f}" if latency else "-",
        f"{min(one['seconds'] for one in on_first):,.0f}",
        ", ".join(str(devices.index(name) + 1) for name in dict.fromkeys(map(_device, found))),
        f"{len(found)} of {max(row.seeds, len(found))}",
        f"{over('test/pixel_accuracy').mean:.4f}",
        f"**{mean.mean:.4f}**",
        f"{low:.3f} to {high:.3f}, {kind}",
        *(f"{value:.3f}" for value in classes),
        f"{mean.mean / ceiling['mean_iou']['mean']:.1%}" if whole else "-",
    ]


def lines_of(
    one: Judged | Change, found: Mapping[str, Any], ceiling: Mapping[str, Any]
) -> Iterator[str]:
    """Yields the lines of a table for further predictions, or for what a change brings."""
    if isinstance(one, Judged):
        yield from _judged(one, found, ceiling)
        return
    cells = [
        one.title,
        *(f"{mean:.4f}" for mean in reversed(found["means"])),
        f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})",
        f"{found['seeds'][0]} and {found['seeds'][1]}",
        "yes" if found["significant"] else "no",
    ]
    yield f"| {' | '.join(cells)} |"


def _views(words: Sequence[str]) -> str:
    """Describes what `tta=[flip,1.25]` adds to the plain image."""
    given = next((word for word in words if word.startswith("tta=")), "tta=[]")
    names = given.removeprefix("tta=").strip("[]").split(",")
    scales = " and ".join(name for name in names if name != "flip")
    parts = [
        *(["mirrored"] if "flip" in names else []),
        *([f"at {scales} times the size"] if scales else []),
    ]
    return " and ".join(parts)


def _judged(one: Judged, found: Mapping[str, Any], ceiling: Mapping[str, Any]) -> Iterator[str]:
    for name in ("plain", *WAYS):
        if (metrics := found["lines"].get(name)) is None:
            continue
        gain = found["gains"].get("ensemble" if name == "plain" else name)
        change = (
            f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})" if gain else "-"
        )
        mean = metrics["test/mean_iou"]
        cells = [
            one.title if name == "plain" else WAYS[name].format(views=_views(one.words)),
            f"**{mean:.4f}**",
            change,
            f"{metrics['test/pixel_accuracy']:.4f}",
            *(f"{metrics[f'test/iou/{n}']:.3f}" for n in ceiling["protocol"]["classes"]),
            f"{mean / ceiling['mean_iou']['mean']:.1%}",
        ]
        yield f"| {' | '.join(cells)} |"
