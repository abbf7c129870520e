"""An evaluation's record as files, and on the console: tables, figures and sentences."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segpets.evaluate.boundary import widths_in_pixels
from segpets.evaluate.figures import boundary_figure, reliability_figure
from segpets.report.figure import confusion_figure
from segpets.report.grid import Cell, Column, Grid, as_csv, as_markdown, markdown_text
from segpets.report.table import as_text, grid_table
from segpets.run.files import EVALUATION, shown, write_atomically
from segpets.stats import WORST_PART

log = logging.getLogger("segpets.evaluate")

Record = Mapping[str, Any]

_SHOWN = 10
_FEW = 10  # images; below, an interval of the percentile bootstrap is too narrow to say much
_MOST_COLUMNS = 6  # classes, whose scores stand side by side


def render(record: Record, rows: Sequence[Mapping[str, object]], folder: Path) -> None:
    """Writes the files of an evaluation, and shows its tables."""
    grids, said = tables(record), lines(record)
    _draw(record, folder)
    write_atomically(folder / "images.csv", as_csv(rows))
    parts = [_slice_row(part) for part in record["slices"]["slices"]]
    write_atomically(folder / "slices.csv", as_csv(parts))
    sections = [f"## {markdown_text(name)}\n\n{as_markdown(grid)}" for name, grid in grids.items()]
    listed = "".join(f"- {markdown_text(line)}\n" for line in said)
    write_atomically(folder / "evaluation.md", "\n".join([sections[0], listed, *sections[1:]]))
    text = json.dumps(record, indent=2, allow_nan=False)
    write_atomically(folder / EVALUATION, text + "\n")  # last: then all others exist
    for index, (title, grid) in enumerate(grids.items()):
        if index == 1:
            for line in said:
                log.info("%s", line)
        if len(grid.rows) <= _SHOWN or not index:
            log.info("%s", as_text(grid_table(grid, title=title)))
    log.info("Everything lies in %s:", shown(folder))
    log.info("  evaluation.json  evaluation.md  images.csv  slices.csv")
    log.info("  confusion.png  reliability.png  boundary.png")
    if (folder / "errors.html").exists():
        log.info("Look at the errors, image by image: %s/errors.html", shown(folder))


def tables(record: Record) -> dict[str, Grid]:
    """Lays out all tables, by their titles."""
    protocol = record["protocol"]
    stage, size = protocol["stage"], protocol["resolution"]
    where = size if isinstance(size, str) else "x".join(map(str, size))
    title = f"{stage}, {protocol['evaluated']:,} images at {where}"
    title += f", labels {protocol['labels']}" if protocol["labels"] else ""
    constant = record["constant_predictions"]
    grids = {
        title: _score_grid(record),
        **_predictions(record),
        "The same class everywhere": Grid(
            [
                Column("prediction", numeric=False),
                *(Column(c) for c in ("pixel accuracy", "mean IoU")),
                Column(f"IoU {constant['rarest_class']}"),
            ],
            [
                [Cell(one["prediction"]), *map(_cell, list(one.values())[1:])]
                for one in constant["predictions"]
            ],
        ),
    }
    parts = record["slices"]["slices"]
    for key in dict.fromkeys(part["by"] for part in parts):
        own = [part for part in parts if part["by"] == key]
        grids[f"By {key.replace('_', ' ')}"] = _slice_grid(own, key)
    return grids


def lines(record: Record) -> list[str]:
    """Says in sentences what the tables don't."""
    protocol, stage = record["protocol"], record["protocol"]["stage"]
    metrics, accuracy = record["metrics"], record["intervals"][f"{stage}/pixel_accuracy"]
    said = [
        _model(protocol),
        f"Pixel accuracy {accuracy['value']:.4f} (95 %: {accuracy['low']:.3f}-"
        f"{accuracy['high']:.3f}); intervals are over images",
    ]
    images = protocol["images"].get(stage, _FEW)
    if images < _FEW:
        said.append(
            f"Over {images} image{'s' if images > 1 else ''} an interval is too narrow: believe "
            f"those over {_FEW} and more"
        )
    if protocol["classes"] != protocol["trained_classes"]:
        said.append(f"Predicted is {protocol['prediction']}")
    calibration = record["calibration"]
    before, after = calibration["before"], calibration["after"]
    if (temperature := calibration["temperature"]) is not None:
        said.append(
            f"ECE {before['ece']:.4f} and NLL {before['nll']:.4f}; with a temperature of "
            f"{temperature:.3f} ({calibration['protocol']['temperature']}) {after['ece']:.4f} and "
            f"{after['nll']:.4f}"
        )
    if record["tta"]:
        together = record["tta"]["metrics"]
        parts = [
            f"{words} {metrics[f'{stage}/{name}']:.4f} -> {together[f'{stage}/{name}']:.4f}"
            for words, name in (
                ("mean IoU", "mean_iou"),
                ("pixel accuracy", "pixel_accuracy"),
                ("ECE", "ece"),
            )
        ]
        count = len(record["tta"]["protocol"]["views"])
        said.append(f"With the average of {count} views: {', '.join(parts)}")
    said += _decided(record)
    worst, images = (metrics.get(f"{stage}/worst_{one}_iou") for one in ("class", "images"))
    if worst is not None and images is not None:
        said.append(
            f"What goes worst: the worst class of an image has an IoU of {worst:.4f} on average, "
            f"the worst {WORST_PART:.0%} of the images a mean IoU of {images:.4f}"
        )
    rare = min(record["constant_predictions"]["one_against_all"], key=lambda one: one["share"])
    share, never, right = (
        f"{100 * rare[key]:.1f} %" for key in ("share", "never_accuracy", "accuracy")
    )
    said.append(
        f"{rare['name']}: {share} of the pixels. A model that never predicts it is right in "
        f"{never} of the pixels, with an IoU of 0; this one in {right}, with an IoU of "
        f"{rare['iou']:.3f}"
    )
    if absent := protocol["absent"]:
        said.append(f"Neither truth nor prediction has {', '.join(absent)}: left out of the means")
    if uncounted := protocol["images_without_a_pixel_that_counts"]:
        said.append(f"{uncounted} images have no pixel that counts")
    if not protocol["data_of_the_training"]:
        said.append("These data are not those of the training: other files, or changed ones")
    return said


def _model(protocol: Record) -> str:
    if protocol["ensemble"]:
        members = protocol["ensemble"]["members"]
        return (
            f"{len(members)} models, whose probabilities are averaged, at {len(members)} times the "
            f"cost: {', '.join(shown(Path(member)) for member in members)}"
        )
    run = shown(Path(protocol["run"]))
    return f"{run}, {protocol['checkpoint']}, after {protocol['epoch']} epochs"


def _decided(record: Record) -> list[str]:
    """Says what test-time augmentation and decision weights gain."""
    said = []
    titles = {
        "ensemble": "The ensemble changes the mean IoU of its members, averaged,",
        "tta": "Several views change the mean IoU",
        "decision": "Decision weights change the mean IoU",
        "decision and tta": "Decision weights and several views change the mean IoU",
    }
    for name, gain in record["gains"].items():
        if gain["low"] is None:
            ends = "no interval: most draws of images lack a class"
        else:
            ends = f"95 %: {gain['low']:+.4f} to {gain['high']:+.4f}"
        said.append(f"{titles[name]} by {gain['value']:+.4f} ({ends})")
    if decision := record["decision"]:
        weights = ",".join(f"{weight:g}" for weight in decision["weights"].values())
        words = f"Decision weights ({decision['protocol']['weights']})"
        if list(decision["weights"]) == list(record["protocol"]["classes"]):
            again = "; on these images they would flatter" if decision["protocol"]["halves"] else ""
            takes = "predict takes" if record["protocol"]["ensemble"] else "predict and export take"
            said.append(f"{words}: {takes} them as 'decide=[{weights}]'{again}")
        else:
            said.append(f"{words}: {weights}, for these merged classes only")
    return said


def _draw(record: Record, folder: Path) -> None:
    protocol, boundary = record["protocol"], record["boundary"]
    pixels = torch.tensor(record["confusion"]["pixels"])
    figure = confusion_figure(pixels, protocol["classes"], counts_too=True)
    figure.savefig(folder / "confusion.png")
    kinds = {"as trained": "before"}
    if (temperature := record["calibration"]["temperature"]) is not None:
        kinds[f"temperature {temperature:.3f}"] = "after"
    diagrams = {}
    for words, when in kinds.items():
        values = record["calibration"][when]
        bins = [tuple(one.values()) for one in values["bins"]]
        diagrams[f"{words}\nECE {values['ece']:.4f}, NLL {values['nll']:.4f}"] = bins
    reliability_figure(diagrams).savefig(folder / "reliability.png")
    widths, size = boundary["widths"], protocol["resolution"]
    in_pixels = None if isinstance(size, str) else widths_in_pixels(widths, tuple(size))
    boundary_figure(widths, boundary, pixels=in_pixels).savefig(folder / "boundary.png")


def _score_grid(record: Record) -> Grid:
    """Lays out the scores of each class, and their means."""
    titles = {
        "iou": "IoU",
        "dice": "Dice",
        "precision": "precision",
        "recall": "recall",
        "boundary_iou": "boundary IoU",
        "ece": "ECE",
    }
    stage, classes = record["protocol"]["stage"], record["protocol"]["classes"]
    heads = [Column("class", numeric=False)]
    for score, title in titles.items():
        heads += [Column(title)] + ([Column("95 %")] if score == "iou" else [])
    rows = []
    for label in [*classes, "mean"]:
        mean = label == "mean" and label not in classes
        row = [Cell(label)]
        for score in titles:
            name = f"{stage}/mean_{score}" if mean else f"{stage}/{score}/{label}"
            row.append(_cell(record["metrics"].get(name)))
            if score == "iou":
                row.append(_ends(record["intervals"].get(name)))
        rows.append(row)
    return Grid(heads, rows)


def _predictions(record: Record) -> dict[str, Grid]:
    """Lays out what several views and decision weights change; nothing without them."""
    stage, classes = record["protocol"]["stage"], record["protocol"]["classes"]
    decision = record["decision"] or {}
    found = {
        "as it is": record["metrics"],
        "average of views": (record["tta"] or {}).get("metrics"),
        "decision weights": decision.get("metrics"),
        "both": decision.get("tta"),
    }
    found = {name: metrics for name, metrics in found.items() if metrics}
    if len(found) == 1:
        return {}
    shown = classes if len(classes) <= _MOST_COLUMNS else []
    names = ["pixel_accuracy", "mean_iou", *(f"iou/{name}" for name in shown)]
    titles = ["pixel accuracy", "mean IoU", *(f"IoU {name}" for name in shown)]
    return {
        "Other predictions": Grid(
            [Column("prediction", numeric=False), *map(Column, titles)],
            [
                [Cell(what), *(_cell(metrics.get(f"{stage}/{name}")) for name in names)]
                for what, metrics in found.items()
            ],
        )
    }


def _slice_grid(parts: Sequence[Record], by: str) -> Grid:
    """Lays out slices: images, mean IoU with its interval, pixel accuracy."""
    heads = [Column(by.replace("_", " "), numeric=False), Column("images"), Column("mean IoU")]
    heads += [Column("95 %"), Column("pixel accuracy")]
    rows = []
    for part in parts:
        iou, accuracy = (part["metrics"][name] for name in ("mean_iou", "pixel_accuracy"))
        ends = _ends(iou if part["images"] > 1 else None)
        row = [Cell(part["value"]), Cell(f"{part['images']:,}"), _cell(iou["value"]), ends]
        rows.append([*row, _cell(accuracy["value"])])
    return Grid(heads, rows)


def _slice_row(part: Record) -> dict[str, object]:
    row: dict[str, object] = {key: part[key] for key in ("by", "value", "images")}
    for name, found in part["metrics"].items():
        row |= {name: found["value"], f"{name} low": found["low"], f"{name} high": found["high"]}
    return row


def _cell(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:.4f}", value)


def _ends(interval: Record | None) -> Cell:
    if interval is None or interval["low"] is None:
        return Cell("-")
    return Cell(f"{interval['low']:.3f}-{interval['high']:.3f}")
