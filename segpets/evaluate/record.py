"""The record of an evaluation as plain data, with the protocol beside every value."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from segpets.build.seen import is_split
from segpets.data.source import STAGES
from segpets.evaluate.baselines import against, constants
from segpets.evaluate.measure import Measurements, Task
from segpets.evaluate.rows import (
    boundary_curves,
    calibration_of,
    interval,
    metrics_of,
    slice_report,
)
from segpets.inference.trained import Trained
from segpets.run.protocol import protocol
from segpets.run.versions import versions

_BOUNDARY: Final = {
    "boundary_iou": "Cheng et al. 2021, arXiv 2103.16562: pixels of the class that d erosions by "
    "3x3 take away; the image's edge is a contour",
    "boundary_f": "Csurka et al. 2013: contour pixels with the other contour within d, Euclidean; "
    "the image's edge is no contour",
    "widths": "parts of each image's diagonal, rounded to pixels, at least 1",
    "aggregation": "pixels summed over the split, then divided",
    "ignored": "pixels without a class are of none in truth and prediction",
}
_CALIBRATION: Final = {
    "ece": "of the most probable class: 15 bins of equal width, mean absolute gap weighted by "
    "pixels, as torchmetrics has it",
    "ece_by_class": "of each class against all others, in the same way",
    "nll": "mean negative log-likelihood of the true classes, natural logarithm",
}


def as_record(task: Task, measured: Measurements, data: Mapping[str, Any]) -> dict[str, Any]:
    """Turns the measurements into plain data."""
    options, classes = task.options, task.classes
    stage, width = options.stage, options.width
    plain = measured.plain
    named = metrics_of(plain, classes, width=width)
    if measured.loss is not None:
        named["loss"] = measured.loss
    confusion = plain.metrics.total
    rare, constant = constants(confusion, classes)
    absent = [name for name in classes if f"iou/{name}" not in named]
    return {
        "protocol": _protocol(task, measured, data, absent),
        "metrics": {f"{stage}/{name}": value for name, value in named.items()},
        "intervals": {
            "protocol": {
                "method": "percentile bootstrap over images, 95 %",
                "resamples": options.resamples,
                "seed": options.seed,
            },
            **{f"{stage}/{name}": interval(found) for name, found in measured.ends.items()},
        },
        "confusion": {"rows": "truth", "columns": "prediction", "pixels": confusion.tolist()},
        "boundary": {
            "protocol": _BOUNDARY | {"width of the metrics": options.widths[width]},
            "widths": options.widths,
            **boundary_curves(plain.boundary, classes),
        },
        "calibration": {
            "protocol": _CALIBRATION | {"temperature": measured.temperature.words},
            "temperature": measured.temperature.value,
            "temperatures_used": list(measured.temperature.used),
            "pixels_fitted": measured.temperature.pixels,
            **calibration_of(plain.calibration, plain.scaled, classes),
        },
        "slices": {
            "protocol": {
                "object_size": "terciles of the part of the truth that isn't background",
                "bounds": measured.sizes,
            },
            "slices": [slice_report(part) for part in measured.slices],
        },
        "constant_predictions": {
            "rarest_class": rare,
            "predictions": [asdict(one) for one in constant],
            "one_against_all": [asdict(one) for one in against(confusion, classes)],
        },
        "tta": _tta(measured, classes, task),
        "decision": _decision(measured, classes, task),
        "gains": {name: interval(found) for name, found in measured.gains.items()},
        "versions": versions(),
    }


def _tta(measured: Measurements, classes: Sequence[str], task: Task) -> dict[str, Any] | None:
    """Describes the average of several views, and its metrics."""
    if measured.with_tta is None:
        return None
    together = metrics_of(measured.with_tta, classes, width=task.options.width)
    return {
        "protocol": {
            "views": [{"scale": scale, "flip": flip} for scale, flip in task.options.views],
            "averaged": "probabilities, at the model's size",
        },
        "metrics": {f"{task.options.stage}/{name}": value for name, value in together.items()},
    }


def _decision(measured: Measurements, classes: Sequence[str], task: Task) -> dict[str, Any] | None:
    """Describes decision weights, and the metrics of predictions with them."""
    if measured.decision is None or not measured.decided:
        return None
    stage, width = task.options.stage, task.options.width
    named = [metrics_of(tally, classes, width=width) for tally in measured.decided]
    metrics = [{f"{stage}/{name}": value for name, value in one.items()} for one in named]
    return {
        "protocol": {
            "weights": measured.decision.words,
            "halves": measured.decision.halves,
            "decision": "the class of the largest weighted probability",
        },
        "weights": dict(zip(task.trained.classes, measured.decision.weights, strict=True)),
        "metrics": metrics[0],
        "tta": metrics[1] if len(metrics) > 1 else None,
    }


def _members(trained: Trained) -> dict[str, Any] | None:
    if not trained.members:
        return None
    return {
        "members": [str(member.path) for member in trained.members],
        "averaged": "probabilities, at the model's size",
    }


def _protocol(
    task: Task, measured: Measurements, data: Mapping[str, Any], absent: list[str]
) -> dict[str, Any]:
    """Describes what the numbers mean."""
    trained, datamodule, options = task.trained, task.datamodule, task.options
    meant = protocol(datamodule, dict(data), classes=list(task.classes), original=options.original)
    resized = "bilinear, then the largest" if options.original else "none"
    fingerprint = datamodule.pixels.fingerprint
    judged = [options.stage] if trained.members else STAGES  # members may be of several folds
    return meant | {
        "run": str(trained.path),
        "ensemble": _members(trained),
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
        "data_fingerprint": fingerprint,
        "data_of_the_training": all(
            fingerprint == one.summary.get("data_fingerprint")
            and is_split(datamodule.splits, one.summary, judged)
            for one in trained.members or (trained,)
        ),
        "stage": options.stage,
        "evaluated": len(measured.rows),
        "images_without_a_pixel_that_counts": measured.uncounted,
        "augmentation": "none",
        "seen_at": list(datamodule.size),
        "resize": meant["resize"] | {"logits": resized},
        "labels": task.labels,
        "trained_classes": list(trained.classes),
        "trained_labels": trained.config["data"].get("labels"),
        "prediction": task.merged.words,
        "absent": absent,
        "tta": "none; beside it under tta" if measured.with_tta else "none",
        "precision": trained.precision,
        "device": str(trained.device),
        "batch_size": datamodule.batch_size,
    }
