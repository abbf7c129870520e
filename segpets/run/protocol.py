"""The protocol of a metric: everything that changes what the number means, from one function.

Only runs whose protocols are equal may be ranked together.
"""

from typing import Any, Final, Protocol

from segpets.labels import IGNORE_INDEX

BORDER: Final = {
    "trimap": "a class of its own",
    "border_as_pet": "counts as pet, in truth and prediction",
    "border_ignored": "ignored: where the truth is border, no pixel counts",
    "species": "ignored: where the truth is border, no pixel counts",
}
"""What a border between pet and background counts as, by `data.labels`."""


class Data(Protocol):
    """A DataModule; see `segpets.data.SegmentationDataModule`."""

    source: Any
    size: int
    overfit: int | None
    splits: Any


def protocol(
    data: Data, config: dict[str, Any], *, classes: list[str], original: bool = False
) -> dict[str, Any]:
    """Describes what metrics on some data mean.

    Args:
        data: The data, set up.
        config: The keys of `data`.
        classes: The classes of the truth, in the order of their ids.
        original: Whether an image is judged at its own size, else at the model's.
    """
    size = [data.size, data.size]
    return {
        "data": type(data.source).__name__,
        "split": config.get("split"),
        "split_seed": config.get("seed"),
        "overfit": data.overfit,
        "images": {stage: len(samples) for stage, samples in data.splits.stages().items()},
        "resolution": "each image's own size" if original else size,
        "resize": {
            "image": "bilinear with antialiasing",
            "mask": "none" if original else "nearest",
        },
        "classes": classes,
        "labels": config.get("labels"),
        "masks": data.source.rules,
        "border": BORDER.get(str(config.get("labels"))),
        "ignored_value": IGNORE_INDEX,
        "aggregation": "one confusion matrix over the split",
        "absent_classes": "left out of macro means",
    }


def pet_rules(labels: object) -> str:
    """Says what a trimap's values mean."""
    return f"trimap as {labels}"


def tested_weights(summary: dict[str, Any]) -> dict[str, Any]:
    """Reads which weights a run's test reports: `checkpoint` and `monitor`, or `init_from`.

    Earlier versions wrote a sentence: `best val/mean_iou`, `last epoch` or `init_from=RUN`.
    """
    noted = summary.get("protocol")
    weights = noted.get("tested_weights") if isinstance(noted, dict) else None
    if isinstance(weights, dict):
        return weights
    words = str(weights or "")
    if words == "last epoch":
        return {"checkpoint": "last"}
    if words.startswith("init_from="):
        return {"init_from": words.removeprefix("init_from=")}
    return {"checkpoint": "best", "monitor": words.removeprefix("best ") or "val/mean_iou"}
