"""The comparison as one page of HTML."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from markupsafe import Markup

from segpets.compare.chart import chart, colour
from segpets.compare.disputed import disputed
from segpets.compare.paired import Comparison
from segpets.compare.settings import CompareSettings
from segpets.compare.table import NAMES, notes_of, stage_of, table_of
from segpets.compare.words import name_of, p_text, sentences
from segpets.records.group import COSTS, Configuration, Group, cost_points
from segpets.records.heading import heading
from segpets.report.page import embedded, render
from segpets.report.paint import painted
from segpets.report.palette import palette
from segpets.run.files import shown
from segpets.run.find import Unranked

_LABELS: Final = 60  # beside the points of a chart; the others have names under the pointer


def page(
    asked: CompareSettings,
    groups: Sequence[Group],
    comparisons: Sequence[Sequence[Comparison]],
    unranked: Sequence[Unranked],
) -> str:
    """Writes the page: it needs no other file and no network."""
    sections = []
    for index, (group, tests) in enumerate(zip(groups, comparisons, strict=True)):
        sections.append({"title": heading(groups, index), **_section(asked, group, tests)})
    return render(
        "segpets.compare",
        "compare.html.j2",
        asked=asked,
        sections=sections,
        unranked=[(one.status, shown(one.path), one.reason) for one in unranked],
    )


def _section(asked: CompareSettings, group: Group, tests: Sequence[Comparison]) -> dict[str, Any]:
    best = group.configurations[: asked.shown]
    able, strips, notes = _pictures(asked, group)
    grid = table_of(group, asked.metric)
    return {
        "protocol": {k: v for k, v in group.protocol.items() if k != "classes"},
        "classes": list(zip(group.classes, _class_colours(group), strict=True)),
        "grid": grid,
        "below": notes_of(grid),
        "said": sentences(tests),
        "notes": group.notes,
        "tests": [
            (name_of(t.first), name_of(t.second), t, p_text(t.p), p_text(t.p_holm)) for t in tests
        ],
        "curves": _curves(group),
        "fronts": _fronts(group, asked.metric),
        "names": [(name_of(c), colour(c.rank - 1)) for c in group.configurations],
        "labels": [name_of(c) for c in best],
        "colours": [colour(c.rank - 1) for c in best],
        "bars": dict(_bars(group, asked.metric, best)),
        "pictured": [name_of(c) for c in able],
        "strips": strips,
        "picture_notes": notes,
    }


def _class_colours(group: Group) -> list[str]:
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(group.classes)]


def _curves(group: Group) -> Markup | None:
    """Draws val/mean_iou over epochs, the mean of the seeds that reached an epoch."""
    series = {name_of(c): c.curve() for c in group.configurations}
    return chart(series, x_label="epoch", y_label="val/mean_iou")


def _fronts(group: Group, metric: str) -> list[tuple[str, Markup]]:
    """Draws accuracy against each known cost."""
    charts = []
    for cost in COSTS:
        points = cost_points(group, cost, metric)
        front = [c for c in group.configurations if cost in c.fronts]
        named = [*front, *(c for c in group.configurations if c not in front)][:_LABELS]
        drawn = chart(
            {
                name_of(c): [points[str(c.rank)]] if str(c.rank) in points else []
                for c in group.configurations
            },
            x_label=f"{NAMES[cost]} (logarithmic)",
            y_label=metric,
            logarithmic=True,
            front=[points[str(c.rank)] for c in front],
            joined=False,
            labels={name_of(c): f"#{c.rank}" for c in named},
        )
        if drawn:
            charts.append((NAMES[cost], drawn))
    return charts


def _bars(
    group: Group, metric: str, best: Sequence[Configuration]
) -> Iterator[tuple[str, dict[str, list[float | None]]]]:
    """Yields IoU by class, and mean IoU by each attribute of the images, for each of the best."""
    stage = stage_of(metric)
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


def _pictures(
    asked: CompareSettings, group: Group
) -> tuple[list[Configuration], list[tuple[str, list[tuple[str, str]]]], list[str]]:
    count, metric = asked.images, asked.metric
    able, images, notes = disputed(group, count=count, among=asked.shown, metric=metric)
    strips = []
    for one in images:
        tiles = []
        if one.image is not None and one.truth is not None:
            truth = painted(one.truth, group.classes)
            tiles += [("image", embedded(one.image)), ("truth", embedded(truth))]
        for c, mask, iou in zip(able, one.masks, one.iou, strict=True):
            picture = embedded(painted(mask, group.classes)) if mask is not None else ""
            tiles.append((f"#{c.rank}: {iou:.3f}", picture))
        strips.append((one.name, tiles))
    return able, strips, notes
