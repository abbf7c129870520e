"""How long comparing takes: 200 runs in a directory, as trainings would have left them.

    python benchmarks/compare.py [FOLDER] [--json FILE]

Makes 50 configurations of 4 seeds, each run with its summary, config, curves of 28 epochs at a row
every 10 steps, and for each of the 296 test images of pets_mini counts and a mask. Their truths are
the real ones, the predictions are drawn. Then runs `python -m segpets.compare` on them, three
times, and prints the seconds of wall clock, imports and start of the interpreter included. With a
FOLDER the runs stay there and are taken from there the next time.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from facts import write_facts
from omegaconf import OmegaConf
from PIL import Image

from segpets.build.objects import build_source
from segpets.config import compose
from segpets.data.decoded import read_sample
from segpets.data.reader import Reader

CONFIGURATIONS, SEEDS = 50, 4
EPOCHS, ROWS_PER_EPOCH = 28, 8
ROUNDS = 3
SIZE = 64
CLASSES = ("pet", "background", "border")


def truths() -> tuple[list[Any], np.ndarray, list[np.ndarray]]:
    """The test images of pets_mini: samples, pixels by class (N, C), masks."""
    source = build_source(compose().data)
    samples = list(source.splits().test)
    reader = Reader((SIZE, SIZE))
    masks = [read_sample(sample, source, reader).mask for sample in samples]
    pixels = np.stack([np.bincount(mask.ravel(), minlength=256)[: len(CLASSES)] for mask in masks])
    return samples, pixels, masks


def scores(confusion: np.ndarray) -> dict[str, float]:
    """The metrics of one matrix that a table shows, under `test/`."""
    hit, true, pred = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    iou, dice = hit / (true + pred - hit), 2 * hit / (true + pred)
    named = {f"test/iou/{name}": float(value) for name, value in zip(CLASSES, iou, strict=True)}
    means = {"mean_iou": iou.mean(), "mean_dice": dice.mean()}
    means["pixel_accuracy"] = hit.sum() / confusion.sum()
    return named | {f"test/{name}": float(value) for name, value in means.items()}


def write_run(folder: Path, index: int, seed: int, data: Any, rng: np.random.Generator) -> None:
    """Writes one run directory."""
    samples, pixels, _ = data
    overrides = [f"optimizer.lr={0.001 * (index + 1):.3f}", f"seed={seed}"]
    cfg = compose(["data.size=64", *overrides, f"hydra.run.dir={folder}"])
    (folder / "predictions" / "test").mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    right = 0.6 + 0.3 * index / CONFIGURATIONS + rng.normal(0, 0.01)
    confusion = np.zeros((len(samples), len(CLASSES), len(CLASSES)), dtype=np.int64)
    for truth in range(len(CLASSES)):
        part = np.clip(rng.normal(right, 0.08, len(samples)), 0.05, 0.98)
        chances = np.repeat((1 - part[:, None]) / 2, len(CLASSES), axis=1)
        chances[:, truth] = part
        confusion[:, truth] = rng.multinomial(pixels[:, truth], chances)
    keys = list(samples[0].attributes)
    with (folder / "predictions/test/counts.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", *keys, *(f"{t}>{p}" for t in CLASSES for p in CLASSES)])
        for sample, counts in zip(samples, confusion, strict=True):
            writer.writerow([sample.name, *sample.attributes.values(), *counts.ravel().tolist()])
    metrics = scores(confusion.sum(0))
    names = [name.replace("test/", "val/") for name in metrics]
    names += [
        f"{name}/{c}" for name in ("val/dice", "val/precision", "val/recall") for c in CLASSES
    ]
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "epoch", "lr-AdamW", *names, "train/loss"])
        for step in range(EPOCHS * ROWS_PER_EPOCH):
            epoch, last = divmod(step, ROWS_PER_EPOCH)
            rise = metrics["test/mean_iou"] * (1 - 0.7 * np.exp(-epoch / 5))
            row = [f"{rise:.9g}" if last == ROWS_PER_EPOCH - 1 else "" for _ in names]
            writer.writerow([step, epoch, 0.001, *row, f"{rng.uniform():.9g}"])
    protocol = {
        "data": "OxfordPets",
        "split": "holdout",
        "split_seed": 0,
        "images": {"train": 666, "val": 74, "test": len(samples)},
        "resolution": [SIZE, SIZE],
        "classes": list(CLASSES),
    }
    summary = {
        "status": "completed",
        "started": "2026-01-01T00:00:00+00:00",
        "overrides": overrides,
        "seed": seed,
        "protocol": protocol,
        "data_fingerprint": "c64cf785cc07769b",
        "params": 10_000 * (index + 1),
        "mult_adds": 900_000 * (CONFIGURATIONS - index % 7),
        "seconds": 200.0 + index,
        **metrics,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def make(sweep: Path) -> None:
    """Writes all runs; the masks are links to the truth's, since only their number matters."""
    data = truths()
    rng = np.random.default_rng(0)
    pool = sweep.parent / "masks"
    pool.mkdir(parents=True)
    for sample, mask in zip(data[0], data[2], strict=True):
        Image.fromarray(mask).save(pool / f"{sample.name}.png")
    for index in range(CONFIGURATIONS):
        for seed in range(1, SEEDS + 1):
            folder = sweep / f"optimizer.lr-{index}__seed-{seed}"
            write_run(folder, index, seed, data, rng)
            (folder / "predictions/test/masks").mkdir()
            for file in pool.iterdir():
                os.link(file, folder / "predictions/test/masks" / file.name)


def main() -> None:
    """Makes the runs, compares them, prints how long it took."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("folder", type=Path, nargs="?", help="where the runs stay")
    parser.add_argument("--json", type=Path, help="a file to write")
    asked = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)).absolute()
        sweep = folder / "sweep"
        if not sweep.exists():
            make(sweep)
        command = [sys.executable, "-m", "segpets.compare", f"runs={sweep}"]
        for _ in range(ROUNDS):
            before = os.times()
            since = time.perf_counter()
            subprocess.run(
                [*command, f"paths.log_dir={folder}/out"],
                check=True,
                cwd=Path(__file__).parents[1],
                stdout=subprocess.DEVNULL,
            )
            wall, after = time.perf_counter() - since, os.times()
            cpu = after.children_user + after.children_system
            cpu -= before.children_user + before.children_system
            print(f"{CONFIGURATIONS * SEEDS} runs: {wall:.1f} s, of the processor {cpu:.1f} s")
            rounds.append({"seconds": wall, "processor_seconds": cpu})
    write_facts(asked.json, runs=CONFIGURATIONS * SEEDS, rounds=rounds)


if __name__ == "__main__":
    main()
