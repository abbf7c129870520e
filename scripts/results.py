"""Trains the rows of docs/RESULTS.md that are missing, and writes it from their summaries.

    python scripts/results.py --root FOLDER --budget 3h
    python scripts/results.py --root FOLDER --row efficient
    python scripts/results.py --write

A training that the time ends is continued the next time.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from segpets.hardware import cpu_name
from segpets.reading import read_csv
from segpets.records.counts import read_counts
from segpets.run.files import RunFiles
from segpets.stats import Estimate, bootstrap_of_sums, iou, mean_over_classes, over_seeds, parts_of

ROOT = Path(__file__).resolve().parents[1]
STORE, TEMPLATE = ROOT / "docs" / "results", ROOT / "scripts" / "results.template.md"
ROWS, PAGE = "rows.yaml", "RESULTS.md"
RUNS = Path("logs/results")
KEPT = re.compile(r"test/|best/|(params|mult_adds|seconds|images_per_second|epochs|seed)$")
UNITS = {"s": 1, "m": 60, "h": 3600}
CEILING = "ceiling.json"
SHOWN = r"test/(mean_iou|pixel_accuracy|iou/.*)$"
WAYS = {
    "tta": "... and mirrored, averaged",
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

    def shown(self) -> str:
        """The command as one gives it."""
        words = [f"'{word}'" if "$" in word else word for word in self.command]
        return " ".join(["python -m segpets.train", *words])


@dataclass(frozen=True)
class Judged:
    """Further predictions of trainings: averaged, mirrored, with decision weights."""

    name: str
    title: str
    of: str
    seeds: list[int]
    words: list[str]

    def runs(self) -> list[Path]:
        """The runs of the trainings."""
        return [RUNS / f"{self.of}-{seed}" for seed in self.seeds]


@dataclass(frozen=True)
class Listed:
    """What rows.yaml lists."""

    rows: list[Row]
    judged: list[Judged]
    published: list[dict[str, str]]


def listed(store: Path) -> Listed:
    """Reads the rows, and what others have published."""
    found = yaml.safe_load((store / ROWS).read_text(encoding="utf-8"))
    judged = [Judged(**one) for one in found.get("judged", [])]
    return Listed([Row(**row) for row in found["rows"]], judged, found["published"])


def stored(row: Row, store: Path) -> list[dict[str, Any]]:
    """Reads the summaries of a row's trainings, by their seeds."""
    files = sorted(store.glob(f"{row.name}.*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def missing(chosen: Sequence[Row], store: Path, *, gpu: bool) -> Iterator[tuple[Row, int]]:
    """Yields what isn't there, a first seed of each row before any second one."""
    seeds = max((row.seeds for row in chosen), default=0)
    for seed in range(1, seeds + 1):
        for row in chosen:
            there = (store / f"{row.name}.{seed}.json").exists()
            if seed <= row.seeds and not there and (gpu or row.device != "gpu"):
                yield row, seed


def train(row: Row, seed: int, data: Path | None, until: float | None) -> Path | None:
    """Trains, or goes on; returns the run, or None if the time is over."""
    run = RUNS / f"{row.name}-{seed}"
    words = [word.replace("FOLDER", str(data)) for word in row.command]
    if (run / "summary.json").exists():
        words = [f"resume={run}"]
    else:
        words += [f"seed={seed}", f"hydra.run.dir={run}"]
    begun = subprocess.Popen([sys.executable, "-m", "segpets.train", *words], cwd=Path.cwd())
    while begun.poll() is None:
        time.sleep(1)
        if until is not None and time.time() > until:
            begun.send_signal(signal.SIGTERM)  # it saves, and is continued the next time
            begun.wait()
            return None
    if begun.returncode:
        raise SystemExit(f"{row.name}, seed {seed}, failed: see {run}/train.log")
    measure = ["variants=[eager]", "batch_sizes=[1]", "devices=[cpu]"]
    command = [sys.executable, "-m", "segpets.benchmark", f"run={run}", *measure]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run


def keep(row: Row, seed: int, run: Path, store: Path) -> None:
    """Stores what a row's numbers need, from the run's own files."""
    files = RunFiles(run)
    summary = json.loads(files.summary.read_text(encoding="utf-8"))
    kept = {key: value for key, value in summary.items() if KEPT.match(key)}
    if files.benchmark.exists():
        measured = json.loads(files.benchmark.read_text(encoding="utf-8"))["rows"]
        kept["latency_ms"] = next(one["p50_ms"] for one in measured if one["variant"] == "eager")
    kept["overrides"] = [*row.command, f"seed={seed}"]  # whose FOLDER names no machine's folder
    kept["interval"] = interval_over_images(files.counts, summary["protocol"]["classes"])
    kept["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    kept["cores"] = os.cpu_count()
    kept |= {key: summary.get(key) for key in ("protocol", "precision", "versions", "started")}
    _write(store / f"{row.name}.{seed}.json", kept)


def judge(one: Judged, store: Path) -> None:
    """Evaluates further predictions on the official test images, and stores what they reach."""
    folder = RUNS / one.name
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was cut off
    runs = ",".join(str(run) for run in one.runs())
    words = [f"run=[{runs}]", "errors=0", f"hydra.run.dir={folder}", *one.words]
    subprocess.run([sys.executable, "-m", "segpets.evaluate", *words], check=True)
    record = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    decision = record["decision"] or {}
    found = {"plain": record["metrics"], "tta": (record["tta"] or {}).get("metrics")}
    found |= {"decision": decision.get("metrics"), "decision and tta": decision.get("tta")}
    kept = {
        "lines": {
            name: {key: value for key, value in metrics.items() if re.match(SHOWN, key)}
            for name, metrics in found.items()
            if metrics
        },
        "gains": record["gains"],
        "interval": record["intervals"]["test/mean_iou"],
        "overrides": one.words,
    }
    _write(store / f"{one.name}.json", kept)


def _write(file: Path, kept: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def interval_over_images(file: Path, classes: Sequence[str]) -> list[float]:
    """Returns the ends of the 95 % bootstrap interval of mean IoU over the test images."""
    read_counts(file, classes)  # which checks it
    cells = [row[-(len(classes) ** 2) :] for row in read_csv(file)][1:]
    counts = np.array(cells, dtype=np.float64)

    def statistic(sums: np.ndarray) -> np.ndarray:
        confusion = sums.reshape(-1, len(classes), len(classes))
        return mean_over_classes(iou(parts_of(confusion)))[:, None]

    ends = bootstrap_of_sums(counts, statistic, resamples=2000, seed=0)
    return [round(float(end), 4) for end in ends[:, 0]]


def page(store: Path) -> str:
    """Writes the page."""
    known = listed(store)
    ceiling = json.loads((store / CEILING).read_text(encoding="utf-8"))
    head = [
        *("row", "epochs", "parameters", "mult-adds", "ms an image", "seconds", "seeds"),
        *("pixel accuracy", "mean IoU", "95 %", *ceiling["protocol"]["classes"], "of the ceiling"),
    ]
    table, absent, commands = [head, ["---"] * len(head)], list[str](), list[str]()
    devices: dict[str, None] = {}
    for row in known.rows:
        found = stored(row, store)
        if not found:
            absent.append(
                f"| {row.title} | {'needs a GPU' if row.device == 'gpu' else 'not yet'} |"
            )
            continue
        table.append(_cells(row, found, ceiling))
        commands.append(f"| {row.title} | `make reproduce ROW={row.name}` | `{row.shown()}` |")
        devices |= {f"{one['device']}, {one['cores']} cores": None for one in found}
    lines = ["| " + " | ".join(line) + " |" for line in table]
    numbers = [
        f"| {one['what']} | {one['accuracy']} | {one['mean_iou']} | {one['protocol']} |"
        for one in known.published
    ]
    judged = [line for one in known.judged for line in _judged(one, store, ceiling)]
    mean = ceiling["mean_iou"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        table="\n".join(lines),
        judged="\n".join(judged) or "| none yet | | | | | | | |",
        absent="\n".join(absent) or "| none | |",
        commands="\n".join(commands),
        published="\n".join(numbers),
        ceiling=f"{mean['mean']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})",
        pairs=ceiling["pairs"],
        devices="; ".join(devices) or "none yet",
    )


def _cells(row: Row, found: Sequence[Mapping[str, Any]], ceiling: Mapping[str, Any]) -> list[str]:
    def over(key: str) -> Estimate:
        return over_seeds([float(one[key]) for one in found])

    first, mean = found[0], over("test/mean_iou")
    low, high = (mean.low, mean.high) if len(found) > 1 else first["interval"]
    whole = first["protocol"]["images"]["test"] > 3000  # those of pets_mini are a few of them
    kind = "seeds" if len(found) > 1 else "images"
    latency = [one["latency_ms"] for one in found if one.get("latency_ms")]
    classes = [over(f"test/iou/{name}").mean for name in ceiling["protocol"]["classes"]]
    return [
        row.title,
        str(first["epochs"]),
        f"{first['params'] / 1e6:.2f} M",
        f"{first['mult_adds'] / 1e9:.2f} G",
        f"{min(latency):.1f}" if latency else "-",
        f"{min(one['seconds'] for one in found):,.0f}",
        f"{len(found)} of {row.seeds}",
        f"{over('test/pixel_accuracy').mean:.4f}",
        f"**{mean.mean:.4f}**",
        f"{low:.3f} to {high:.3f}, {kind}",
        *(f"{value:.3f}" for value in classes),
        f"{mean.mean / ceiling['mean_iou']['mean']:.1%}" if whole else "-",
    ]


def _judged(one: Judged, store: Path, ceiling: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a table for further predictions, if they are stored."""
    file = store / f"{one.name}.json"
    if not file.exists():
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    for name in ("plain", *WAYS):
        if (metrics := found["lines"].get(name)) is None:
            continue
        gain = found["gains"].get("ensemble" if name == "plain" else name)
        change = (
            f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})" if gain else "-"
        )
        mean = metrics["test/mean_iou"]
        cells = [
            one.title if name == "plain" else WAYS[name],
            f"**{mean:.4f}**",
            change,
            f"{metrics['test/pixel_accuracy']:.4f}",
            *(f"{metrics[f'test/iou/{n}']:.3f}" for n in ceiling["protocol"]["classes"]),
            f"{mean / ceiling['mean_iou']['mean']:.1%}",
        ]
        yield f"| {' | '.join(cells)} |"


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text} is no time: give 90m or 3h")
    return float(match[1]) * UNITS[match[2]]


def main() -> None:
    """Does what is asked for."""
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--row", help="train this row only")
    parser.add_argument("--root", type=Path, help="the folder of the Oxford-IIIT Pet data set")
    parser.add_argument("--budget", type=_seconds, help="stop after this time, such as 3h")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--store", type=Path, default=STORE, help="the folder of rows.yaml")
    asked = parser.parse_args()
    store: Path = asked.store
    known = listed(store)
    names = [row.name for row in known.rows] + [one.name for one in known.judged]
    if asked.row is not None and asked.row not in names:
        raise SystemExit(f"there is no row {asked.row}: choose one of {', '.join(names)}")
    until = None if asked.budget is None else time.time() + asked.budget
    chosen = [row for row in known.rows if asked.row in (None, row.name)]
    gpu = torch.cuda.is_available() or asked.row is not None
    for row, seed in [] if asked.write else [*missing(chosen, store, gpu=gpu)]:
        if asked.root is None and any("FOLDER" in word for word in row.command):
            raise SystemExit(f"{row.name} needs the data set: --root FOLDER")
        print(f"{row.name}, seed {seed}: {row.shown()}", flush=True)
        root = None if asked.root is None else asked.root.resolve()
        if (run := train(row, seed, root, until)) is None:
            print("The time is over; the next call goes on")
            break
        keep(row, seed, run, store)
    over = asked.write or (until is not None and time.time() > until)
    for one in [] if over else known.judged:
        there = all((run / "predictions").exists() for run in one.runs())
        if asked.row == one.name and not there:
            raise SystemExit(f"{one.name} needs the trainings of {one.of}: --row {one.of}")
        missing_one = asked.row is None and there and not (store / f"{one.name}.json").exists()
        if asked.row == one.name or missing_one:
            judge(one, store)
    target = store.parent / PAGE
    target.write_text(page(store), encoding="utf-8")
    print(f"{target} is written")


if __name__ == "__main__":
    main()
