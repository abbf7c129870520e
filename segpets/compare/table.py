"""A group of configurations as a table: its columns and their headings."""

from typing import Final

from segpets.compare.ceiling import SHARE
from segpets.records.group import EPOCHS_TO_95, Configuration, Group, folds_of
from segpets.report.grid import Cell, Column, Grid, number

FEW: Final = 6
"""So many overrides stay where there is no room for all."""

FRONT: Final = (
    "* on the front of accuracy against cost: no other run is at least as accurate and as cheap"
)
_AT_95: Final = (
    "95 % at epoch: the first epoch whose val mean IoU reaches 95 % of the run's best, averaged "
    "over the seeds"
)
NAMES: Final = {
    "mean_iou": "mean IoU",
    SHARE: "of the ceiling",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice",
    "worst_class_iou": "worst class IoU",
    "worst_images_iou": "worst images IoU",
    "class_mean_iou": "class mean IoU",
    "params": "params",
    "mult_adds": "mult-adds",
    "latency_ms": "latency ms",
    "seconds": "seconds",
    EPOCHS_TO_95: "95 % at epoch",
}
"""What values of a summary are called, without their stage."""

_STAGES = ("best/val/", "val/", "test/")
_SCORES = ("mean_iou", "pixel_accuracy", "mean_dice")
_WORST = ("worst_class_iou", "worst_images_iou", "class_mean_iou")
_COSTS = ("params", "mult_adds", "latency_ms")
_TIME = ("seconds", EPOCHS_TO_95)


def stage_of(metric: str) -> str:
    """Returns the prefix of a metric's stage, such as `test/`."""
    return next((stage for stage in _STAGES if metric.startswith(stage)), "test/")


def table_of(group: Group, metric: str) -> Grid:
    """Makes a table with a row for each configuration, the best first.

    Args:
        group: The configurations.
        metric: The metric that ranks them. An interval follows it, if any has one.
    """
    stage = stage_of(metric)
    parts = _values(group, metric)
    several = any(c.values[metric].low is not None for c in group.configurations)
    heads = [Column("#")]
    heads += [
        Column(key, False, "overrides" if place < FEW else "more")
        for place, key in enumerate(group.keys)
    ]
    heads.append(Column("seeds"))
    for name, part in parts.items():
        heads.append(Column(_title(name, stage), part=part))
        if name == metric and several:
            heads.append(Column("95 % ±"))
    rows = []
    for c in group.configurations:
        row = [Cell(str(c.rank), c.rank, c.label)]
        row += [_choice_cell(c, key) for key in group.keys]
        row.append(_runs_cell(c))
        for name in parts:
            row.append(_value_cell(c, name))
            if name == metric and several:
                row.append(_interval_cell(c, name))
        rows.append(row)
    return Grid(heads, rows)


def notes_of(grid: Grid) -> list[str]:
    """Explains the signs and columns of a table of configurations."""
    titles = {column.title.replace("\n", " ") for column in grid.columns}
    return [FRONT, *([_AT_95] if NAMES[EPOCHS_TO_95] in titles else [])]


def _values(group: Group, metric: str) -> dict[str, str]:
    stage = stage_of(metric)
    wanted = {metric: "", SHARE: ""}
    for part, names in (
        ("scores", [f"{stage}{name}" for name in _SCORES]),
        ("classes", [f"{stage}iou/{name}" for name in group.classes]),
        ("worst", [f"{stage}{name}" for name in _WORST]),
        ("costs", _COSTS),
        ("time", _TIME),
    ):
        for name in names:
            wanted.setdefault(name, part)
    present = {name for c in group.configurations for name in c.values}
    return {name: part for name, part in wanted.items() if name in present}


def _title(name: str, stage: str) -> str:
    plain = name.removeprefix(stage)
    if plain.startswith("iou/"):
        return f"IoU {plain.removeprefix('iou/')}"
    if name.startswith(_STAGES) and not name.startswith(stage):
        plain = name
    return NAMES.get(plain, plain)


def _runs_cell(configuration: Configuration) -> Cell:
    runs = configuration.runs
    seeds = ", ".join(dict.fromkeys(str(run.seed) for run in runs))
    if not configuration.folds:
        return Cell(str(len(runs)), len(runs), f"seeds {seeds}")
    there, whole = len(configuration.folds), folds_of(runs)
    text = f"{there} of {whole} folds" if there < whole else f"{there} folds"
    if (several := len({run.seed for run in runs})) > 1:
        text += f", {several} seeds"
    folds = ", ".join(map(str, sorted(configuration.folds)))
    return Cell(text, len(runs), f"folds {folds}; seeds {seeds}")


def _choice_cell(configuration: Configuration, key: str) -> Cell:
    value = configuration.choices.get(key)
    return Cell("(default)", "") if value is None else Cell(value, value, f"{key}={value}")


def _value_cell(configuration: Configuration, name: str) -> Cell:
    estimate = configuration.values.get(name)
    if estimate is None:
        return Cell("-")
    if name in ("params", "mult_adds"):
        text = number(estimate.mean)
    elif name == SHARE:
        text = f"{estimate.mean:.1%}"
    elif name in (*_TIME, "latency_ms"):
        text = f"{estimate.mean:,.0f}" if estimate.mean >= 100 else f"{estimate.mean:.3g}"
    else:
        text = f"{estimate.mean:.4f}"
    hint = f"{estimate.mean!r}"
    if name in configuration.fronts:
        text += "*"
        hint += ", on the front: no other run is at least as accurate and as cheap"
    if estimate.low is not None:
        hint += f", 95 % interval {estimate.low:.6g} to {estimate.high:.6g}"
    return Cell(text, estimate.mean, hint)


def _interval_cell(configuration: Configuration, name: str) -> Cell:
    estimate = configuration.values[name]
    if estimate.low is None or estimate.high is None:
        return Cell("-", None, "one seed has no interval")
    half = (estimate.high - estimate.low) / 2
    return Cell(f"{half:.4f}", half, f"{estimate.low!r} to {estimate.high!r}")
