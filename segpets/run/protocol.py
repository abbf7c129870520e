"""The protocol of a metric: everything that changes what the number means, from one function.

Only runs whose protocols are equal may be ranked together.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

from segpets.labels import IGNORE_INDEX

BORDER: Final = {
    "trimap": "a class of its own",
    "border_as_pet": "counts as pet, in truth and prediction",
    "border_ignored": "ignored: where the truth is border, no pixel counts",
    "species": "ignored: where the truth is border, no pixel counts",
}
"""What a border between pet and background counts as, by `data.labels`."""
SPLIT_NAMES: Final = "split_names"
"""The key of a summary that holds `split_names`."""


def labels_of(data: Mapping[str, Any]) -> str:
    """Returns what the keys of `data` make of the pets' three labels.

    Until 0.1.0 there was no such key.
    """
    return str(data.get("labels", "trimap"))


def bands_of(data: Mapping[str, Any]) -> list[str] | None:
    """Returns the files of an image's bands, in the order of the channels; None without any."""
    bands = data.get("bands")
    return [str(word) for word in bands] if bands else None


class Data(Protocol):
    """A DataModule; see `segpets.data.SegmentationDataModule`."""

    source: Any
    reader: Any
    window: tuple[int, int] | None
    size: tuple[int, int]
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
    fit, resolution = fit_words(data, original=original)
    window = data.window
    # Named where they aren't what earlier versions did, so that their runs can be ranked beside.
    special = {
        "fit": None if fit == "stretch" else fit,
        "window": window and list(window),
        "channels": None if data.reader.channels == 3 else data.reader.channels,
        "range": data.reader.range and list(data.reader.range),
        "exif": None if data.reader.exif == "auto" else data.reader.exif,
        "pages": data.reader.pages,
        "group": config.get("group"),
        "folds": _folds(data, config),
        "samples": _names(data.splits) if _by_lists(data, config) else None,
    }
    return {key: value for key, value in special.items() if value is not None} | {
        "data": type(data.source).__name__,
        "split": config.get("split") or getattr(data.source, "split", None),
        "split_seed": config.get("seed"),
        "overfit": data.overfit,
        "images": _images(data, config),
        "resolution": resolution,
        "resize": {
            "image": "none" if fit == "none" else "bilinear with antialiasing",
            "mask": "none" if original or fit == "none" else "nearest",
        },
        "classes": classes,
        "labels": config.get("labels"),
        "masks": data.source.rules,
        "border": BORDER.get(str(config.get("labels"))),
        "ignored_value": IGNORE_INDEX,
        "aggregation": "one confusion matrix over the split",
        "absent_classes": "left out of macro means",
    }


def fit_words(data: Data, *, original: bool = False) -> tuple[str, str | list[int]]:
    """Describes how pictures are fitted, and at what size they are judged."""
    fit, own = data.reader.fit, data.reader.fit in ("shorter", "none")
    if fit == "shorter":
        fit = f"shorter side to {min(data.size)}"
    return fit, "each image's own size" if original or own else list(data.size)


def _by_lists(data: Data, config: dict[str, Any]) -> bool:
    """Tells whether more than seed and names decides which stage an image is of, as a list does."""
    by_names = getattr(data.source, "splits_by_names", False)
    return config.get("folds") is None and bool(config.get("group") or not by_names)


def _folds(data: Data, config: dict[str, Any]) -> dict[str, Any] | None:
    """Describes folds; which of them is val is no part of it, as a seed isn't."""
    if config.get("folds") is None or data.overfit is not None:
        return None
    stages = data.splits.stages()
    pool = sorted(s.name for stage in ("train", "val") for s in stages[stage])
    test = sorted(s.name for s in stages["test"])
    return {"count": config["folds"], "images": _digest(repr([pool, test]))}


def _images(data: Data, config: dict[str, Any]) -> dict[str, int]:
    counts = {stage: len(samples) for stage, samples in data.splits.stages().items()}
    if config.get("folds") is None or data.overfit is not None:
        return counts
    return {"train and val": counts["train"] + counts["val"], "test": counts["test"]}


def _names(splits: Any) -> str:
    names = {stage: sorted(s.name for s in of) for stage, of in splits.stages().items()}
    return _digest("".join(f"{stage}: {of}\n" for stage, of in names.items()))


def split_names(splits: Any) -> dict[str, str]:
    """Hashes the names of each stage's images, by which a run finds its split changed."""
    stages = splits.stages().items()
    return {stage: _digest(repr(sorted(s.name for s in samples))) for stage, samples in stages}


def _digest(words: str) -> str:
    return hashlib.blake2b(words.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


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
