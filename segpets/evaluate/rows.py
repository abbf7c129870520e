"""Counts under the names of metrics and as rows of tables; None for what is unknown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segpets.evaluate.boundary import BoundaryCounts
from segpets.evaluate.calibration import Calibration
from segpets.evaluate.one_pass import JudgedImage
from segpets.evaluate.slices import SIZE, Interval, Slice
from segpets.evaluate.tally import Tally
from segpets.stats import worst_cases


def metrics_of(tally: Tally, classes: Sequence[str], *, width: int) -> dict[str, float]:
    """Collects all metrics of a stage by name, as in a run's summary, and more.

    Returns:
        Those of `SegmentationMetrics.compute`, and `boundary_iou/<class>`, `boundary_f/<class>`,
        `mean_boundary_iou`, `mean_boundary_f`, `ece`, `ece/<class>`, `nll` and those of
        `worst_cases`. Empty without a pixel that counts.
    """
    named: dict[str, float] = dict(tally.metrics.compute())  # which keeps its own
    if not named:
        return {}
    by_class = {
        "boundary_iou": tally.boundary.iou()[:, width],
        "boundary_f": tally.boundary.f()[:, width],
        "ece": tally.calibration.errors()[:-1],
    }
    for score, values in by_class.items():
        known = {
            name: float(value)
            for name, value in zip(classes, values, strict=True)
            if not math.isnan(value)
        }
        named |= {f"{score}/{name}": value for name, value in known.items()}
        if known and score != "ece":
            named[f"mean_{score}"] = sum(known.values()) / len(known)
    named |= worst_cases(np.stack(tally.parts), classes)
    named["ece"] = float(tally.calibration.errors()[-1])
    named["nll"] = tally.calibration.nll
    return named


def boundary_curves(
    counts: BoundaryCounts, classes: Sequence[str]
) -> dict[str, dict[str, list[float | None]]]:
    """Computes boundary IoU and F of each class at all widths."""
    return {
        score: {
            name: [unknown(value) for value in values]
            for name, values in zip(classes, found.tolist(), strict=True)
        }
        for score, found in (("boundary_iou", counts.iou()), ("boundary_f", counts.f()))
    }


def calibration_of(
    plain: Calibration, scaled: Calibration, classes: Sequence[str]
) -> dict[str, Any]:
    """Describes calibration before and after the temperature, with the diagram's points."""
    kinds = {"before": plain, "after": scaled}
    return {
        when: {
            "ece": unknown(float(sums.errors()[-1])),
            "ece_by_class": {
                name: unknown(value)
                for name, value in zip(classes, sums.errors()[:-1].tolist(), strict=True)
            },
            "nll": unknown(sums.nll),
            "bins": [
                {"confidence": sure, "accuracy": right, "pixels": pixels}
                for sure, right, pixels in sums.reliability()
            ],
        }
        for when, sums in kinds.items()
    }


def image_row(entry: JudgedImage, classes: Sequence[str], *, width: int) -> dict[str, object]:
    """Makes one image's row of a table: name, attributes, scores, and where its pixels are."""
    judged, boundary = entry.judged, entry.judged.boundary
    pixels = int(judged.parts[1].sum())
    row: dict[str, object] = {"name": entry.sample.name, **entry.sample.attributes}
    row |= {SIZE: "", "pixels": pixels}  # the size is known once all images are
    row |= {"pixel_accuracy": judged.pixel_accuracy(), "mean_iou": judged.mean_iou()}
    if entry.tta is not None:
        row["tta_mean_iou"] = entry.tta.mean_iou()
    columns: dict[str, Sequence[float | None]] = {
        "iou": judged.iou(),
        "boundary_iou": boundary.iou()[:, width].tolist(),
        "boundary_f": boundary.f()[:, width].tolist(),
        "area": [true / pixels if pixels else None for true in judged.parts[1].tolist()],
    }
    for score, values in columns.items():
        row |= {
            f"{score}/{name}": unknown(value) for name, value in zip(classes, values, strict=True)
        }
    return row


def interval(found: Interval) -> dict[str, float | None]:
    """Lists a value and the ends of its interval; None where it has none."""
    return {"value": found.value, "low": unknown(found.low), "high": unknown(found.high)}


def slice_report(part: Slice) -> dict[str, object]:
    """Describes a slice as a table of names and values."""
    metrics: Mapping[str, object] = {k: interval(found) for k, found in part.metrics.items()}
    return {"by": part.key, "value": part.value, "images": part.images, "metrics": metrics}


def unknown(value: float | None) -> float | None:
    """Replaces NaN, which JSON doesn't know, by None."""
    return None if value is None or math.isnan(value) else value
