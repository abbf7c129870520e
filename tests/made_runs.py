"""Run directories as a training leaves them, with numbers that a test chooses."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

CLASSES = ("pet", "background", "border")


def edit(run: Path, key: str, value: Any) -> None:
    """Writes another value into a run's stored config."""
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, run / "config.yaml")


def summarised(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The test metrics of a confusion matrix in which each class occurs."""
    hit, true, pred = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    iou = hit / (true + pred - hit)
    named = {f"test/iou/{name}": float(v) for name, v in zip(classes, iou, strict=True)}
    return named | {
        "test/mean_iou": float(iou.mean()),
        "test/mean_dice": float((2 * hit / (true + pred)).mean()),
        "test/pixel_accuracy": float(hit.sum() / confusion.sum()),
    }


def drawn(right: float, *, images: int = 12, classes: int = 3, seed: int = 0) -> np.ndarray:
    """Counts of images of 300 pixels, of which about the part `right` is right in each class."""
    rng = np.random.default_rng([seed, round(right * 1e6)])
    counts = np.zeros((images, classes, classes), dtype=np.int64)
    for truth in range(classes):
        part = np.clip(rng.normal(right, 0.05, images), 0.02, 0.98)
        chances = np.repeat((1 - part[:, None]) / (classes - 1), classes, axis=1)
        chances[:, truth] = part
        counts[:, truth] = rng.multinomial(300 // classes, chances)
    return counts


def make_run(
    folder: Path,
    *overrides: str,
    counts: np.ndarray | None = None,
    seed: int = 1,
    names: Sequence[str] | None = None,
    breeds: Sequence[str] | None = None,
    classes: Sequence[str] = CLASSES,
    curve: Sequence[float] = (0.1, 0.5, 0.6),
    protocol: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **facts: Any,
) -> Path:
    """Writes a run directory.

    Args:
        folder: Which.
        *overrides: What was chosen; the config follows them where they set `model` or `optimizer`.
        counts: Pixels of each image, (N, C, C); None draws some.
        seed: The run's seed.
        names: Of the images.
        breeds: Of the images.
        classes: Their names.
        curve: val/mean_iou of each epoch.
        protocol: What differs from the usual one.
        config: Parts of the config.
        **facts: What stands in summary.json besides, or instead.
    """
    counts = drawn(0.7, seed=seed, classes=len(classes)) if counts is None else counts
    names = [f"image_{i:03d}" for i in range(len(counts))] if names is None else names
    breeds = [("beagle", "Bombay")[i % 2] for i in range(len(counts))] if breeds is None else breeds
    (folder / "predictions" / "test" / "masks").mkdir(parents=True)
    with (folder / "predictions/test/counts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "breed", *(f"{t}>{p}" for t in classes for p in classes)])
        for name, breed, row in zip(names, breeds, counts, strict=True):
            writer.writerow([name, breed, *row.ravel().tolist()])
    lines = ["step,epoch,train/loss,val/mean_iou"]
    for epoch, value in enumerate(curve):
        lines += [f"{2 * epoch},{epoch},1.5,", f"{2 * epoch + 1},{epoch},1.4,{value}"]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    words = [word for word in overrides if not word.startswith("seed=")]
    chosen = {key: value for key, _, value in (word.partition("=") for word in words)}
    stored = {"seed": seed, "paths": {"output_dir": str(folder)}, "model": chosen} | (config or {})
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(stored)))
    usual = {
        "data": "OxfordPets",
        "split": "holdout",
        "split_seed": 0,
        "images": {"train": 15, "val": 3, "test": len(counts)},
        "resolution": [64, 64],
        "classes": list(classes),
        "tested_weights": "best val/mean_iou",
    }
    summary = {
        "status": "completed",
        "started": "2026-01-01T00:00:00+00:00",
        "versions": {"git": "abc"},
        "overrides": [*words, f"seed={seed}"],
        "seed": seed,
        "protocol": usual | dict(protocol or {}),
        "data_fingerprint": "0123456789abcdef",
        "params": 1000,
        "mult_adds": 50_000,
        "seconds": 12.5,
        **summarised(counts.sum(0), classes),
        **facts,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return folder
