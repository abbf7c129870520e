"""Trains the rows of docs/RESULTS.md that are missing, and writes it from their summaries.

    python scripts/results.py --root FOLDER --budget 3h
    python scripts/results.py --root FOLDER --row efficient
    python scripts/results.py --latency
    python scripts/results.py --write

A training that the time ends is continued the next time. --row trains a row here even if its
results are stored, and shows both; what is stored stays.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_page import (
    CEILING,
    RUNS,
    Change,
    Judged,
    Listed,
    Row,
    lines_of,
    listed,
    page,
    stored,
    stored_json,
)
from results_train import RowError, check_command, latency, measured, train

from segpets.compare.paired import compared
from segpets.hardware import cpu_name
from segpets.reading import read_csv
from segpets.records.counts import read_counts
from segpets.records.group import Configuration, Group
from segpets.records.record import read_record
from segpets.run.files import RunFiles
from segpets.stats import bootstrap_of_sums, iou, mean_over_classes, parts_of

ROOT = Path(__file__).resolve().parents[1]
STORE, PAGE = ROOT / "docs" / "results", "RESULTS.md"
KEPT = re.compile(r"test/|best/|(params|mult_adds|seconds|images_per_second|epochs|seed)$")
UNITS = {"s": 1, "m": 60, "h": 3600}
OF_TRAINING = ("images", "samples", "data_fingerprint", "tested_weights")  # not of the test
SHOWN = r"test/(mean_iou|pixel_accuracy|iou/.*)$"


def missing(chosen: Sequence[Row], store: Path, *, gpu: bool) -> Iterator[tuple[Row, int]]:
    """Yields what isn't there, a first seed of each row before any second one.

    On a GPU each row has three seeds at least.
    """
    wanted = {row.name: max(row.seeds, 3) if gpu else row.seeds for row in chosen}
    here = {row.name: stored(row, store).keys() for row in chosen}
    for seed in range(1, max(wanted.values(), default=0) + 1):
        for row in chosen:
            there = seed in here[row.name]
            if seed <= wanted[row.name] and not there and (gpu or row.device != "gpu"):
                yield row, seed


def not_here(asked: str, known: Listed, store: Path) -> Iterator[tuple[Row, int]]:
    """Yields the trainings of a row, or of those that it is made of, without a run here."""
    one = next((one for one in known.further if one.name == asked), None)
    names = [asked] if one is None else one.of
    for row in known.rows:
        for seed in seeds_of(one, row) if row.name in names else []:
            there = RunFiles(RUNS / f"{row.name}-{seed}").counts.exists()
            if not (there and seed in stored(row, store)):
                yield row, seed


def seeds_of(one: Judged | Change | None, row: Row) -> Sequence[int]:
    """Lists the seeds of a row that something is made of."""
    return one.seeds if isinstance(one, Judged) else range(1, row.seeds + 1)


def measure_latencies(known: Listed, store: Path) -> None:
    """Measures the latency of all rows anew that this device trained, where their runs are here."""
    for row in known.rows:
        files = [(run, store / f"{row.name}.{seed}.json") for seed, run in enumerate(row.runs(), 1)]
        there = [
            (run, file)
            for run, file in files
            if RunFiles(run).counts.exists() and file.exists() and _is_of_here(stored_json(file))
        ]
        if there and (found := latency(there[0][0])) is not None:
            print(f"{row.name}: {found:.1f} ms", flush=True)
            for _, file in there:
                _write(file, stored_json(file) | {"latency_ms": found})


def _here() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return {"device": device, "cores": os.cpu_count()}


def _is_of_here(stored: Mapping[str, Any]) -> bool:
    return _here().items() <= stored.items()


def ready(row: Row, known: Listed, data: Path | None, until: float | None) -> bool:
    """Trains what the row's command names, where it isn't there; returns False if the time ends."""
    for other in (one for one in known.rows if one.name == row.needs):
        for seed, run in enumerate(other.runs(), 1):
            if not RunFiles(run).counts.exists() and train(other, seed, data, until) is None:
                return False
    return True


def keep(row: Row, seed: int, run: Path, store: Path) -> None:
    """Stores what a row's numbers need, from the run's own files."""
    files = RunFiles(run)
    summary = json.loads(files.summary.read_text(encoding="utf-8"))
    kept = {key: value for key, value in summary.items() if KEPT.match(key)}
    if files.benchmark.exists():
        kept["latency_ms"] = measured(files.benchmark)
    kept["overrides"] = row.words(seed)
    kept["interval"] = interval_over_images(files.counts, summary["protocol"]["classes"])
    kept |= _here()
    kept |= {key: summary.get(key) for key in ("protocol", "precision", "versions", "started")}
    _write(store / f"{row.name}.{seed}.json", kept)


def judge(one: Judged) -> dict[str, Any]:
    """Evaluates further predictions on the official test images; returns what they reach.

    Raises:
        RowError: They can't be.
    """
    folder = RUNS / one.name
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was cut off
    runs = ",".join(str(RUNS / f"{one.of[0]}-{seed}") for seed in one.seeds)
    words = [f"run=[{runs}]", "errors=0", f"hydra.run.dir={folder}", *one.words]
    if subprocess.run([sys.executable, "-m", "segpets.evaluate", *words], check=False).returncode:
        raise RowError(f"{one.name} can't be judged")
    record = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    decision = record["decision"] or {}
    found = {"plain": record["metrics"], "tta": (record["tta"] or {}).get("metrics")}
    found |= {"decision": decision.get("metrics"), "decision and tta": decision.get("tta")}
    return {
        "lines": {
            name: {key: value for key, value in metrics.items() if re.match(SHOWN, key)}
            for name, metrics in found.items()
            if metrics
        },
        "gains": record["gains"],
        "interval": record["intervals"]["test/mean_iou"],
        "overrides": one.words,
    }


def compare(one: Change, runs: Sequence[Sequence[Path]]) -> dict[str, Any] | None:
    """Tests how far the trainings of two rows differ; None if they were judged by other images.

    Their training images may differ, for which segpets.compare would rank them apart.
    """
    sides = [Configuration([read_record(run) for run in side]) for side in runs]
    records = [record for side in sides for record in side.runs]
    protocols = [record.protocol | dict.fromkeys(OF_TRAINING) for record in records]
    if any(protocol != protocols[0] for protocol in protocols):
        print(f"{one.name}: left out, as its rows were judged by other rules")
        return None
    group = Group(records[0].protocol, {}, [], sides)
    tests, _ = compared(group, against_each_other=2, resamples=9999, seed=1)
    judged = {len(record.counts.names) for record in records if record.counts}
    if judged != {test.images for test in tests}:
        print(f"{one.name}: left out, as its rows were judged by other images")
        return None
    (test,) = tests
    kept: dict[str, Any] = {
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p": test.p,
    }
    kept |= {"significant": test.significant, "images": test.images}
    means = [[record.values["test/mean_iou"] for record in side.runs] for side in sides]
    kept["means"] = [float(np.mean(values)) for values in means]
    return kept | {"seeds": [len(values) for values in means]}


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


def further(known: Listed, asked: str | None, store: Path) -> None:
    """Judges and compares what is trained: what was asked for, or all that isn't stored.

    Raises:
        RowError: One of them can't be; it is raised after the others.
    """
    rows = {row.name: row for row in known.rows}
    failed = list[str]()
    for one in known.further:
        file = store / f"{one.name}.json"
        if asked != one.name and (asked or file.exists()):
            continue
        sides = [[RUNS / f"{name}-{seed}" for seed in seeds_of(one, rows[name])] for name in one.of]
        absent = [run.name for side in sides for run in side if not RunFiles(run).counts.exists()]
        if absent:
            print(
                f"{one.name}: left out, as {', '.join(absent)} aren't in {RUNS}: --row {one.name}"
            )
            continue
        try:
            for row in (rows[name] for name in one.of):
                for seed in seeds_of(one, row):
                    check_command(row, seed)
            found = judge(one) if isinstance(one, Judged) else compare(one, sides)
        except RowError as error:
            failed.append(str(error))
            continue
        if found is None:
            continue
        if file.exists():
            ceiling = stored_json(store / CEILING)
            for where, what in {"here": found, "stored": stored_json(file)}.items():
                print(f"{where}:", *lines_of(one, what, ceiling), sep="\n")
        else:
            _write(file, found)
    if failed:
        raise RowError("\n".join(failed))


def shown(row: Row, store: Path) -> Iterator[str]:
    """Yields a line for each training of a row that is here and stored: both numbers."""
    for seed, run in enumerate(row.runs(), 1):
        noted = stored(row, store).get(seed)
        if RunFiles(run).counts.exists() and noted:
            here = json.loads(RunFiles(run).summary.read_text(encoding="utf-8"))["test/mean_iou"]
            yield (
                f"{row.name}, seed {seed}: mean IoU {here:.4f} here, "
                f"{noted['test/mean_iou']:.4f} stored"
            )


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
    parser.add_argument("--latency", action="store_true", help="measure latencies anew, quietly")
    parser.add_argument("--write", action="store_true", help="only write the page")
    parser.add_argument("--store", type=Path, default=STORE, help="the folder of rows.yaml")
    asked = parser.parse_args()
    store: Path = asked.store
    known = listed(store)
    names = [row.name for row in known.rows] + [one.name for one in known.further]
    if asked.row is not None and asked.row not in names:
        raise SystemExit(f"there is no row {asked.row}: choose one of {', '.join(names)}")
    if asked.latency:
        measure_latencies(known, store)
    until = None if asked.budget is None else time.time() + asked.budget
    if asked.row is None:
        todo = [*missing(known.rows, store, gpu=torch.cuda.is_available())]
    else:
        todo = [*not_here(asked.row, known, store)]
    if asked.write or asked.latency:
        todo = []
    for row, _ in todo:
        if asked.root is None and any("FOLDER" in word for word in row.command):
            raise SystemExit(f"{row.name} needs the data set: --root FOLDER")
    root = None if asked.root is None else asked.root.resolve()
    failed = list[str]()
    for row, seed in todo:
        print(f"{row.name}, seed {seed}: {row.shown()}", flush=True)
        try:
            run = train(row, seed, root, until) if ready(row, known, root, until) else None
        except RowError as error:
            print(error, flush=True)
            failed.append(str(error))
            continue
        if run is None:
            print("The time is over; the next call goes on")
            break
        if seed not in stored(row, store):
            keep(row, seed, run, store)
    for row in known.rows if asked.row else []:
        if row.name == asked.row:
            print("\n".join(shown(row, store)))
    if not (asked.write or asked.latency) and (until is None or time.time() <= until):
        try:
            further(known, asked.row, store)
        except RowError as error:
            failed.append(str(error))
    target = store.parent / PAGE
    target.write_text(page(store), encoding="utf-8")
    print(f"{target} is written")
    if failed:
        raise SystemExit("\n".join(["Not all went well:", *failed]))


def stopped(number: int, frame: object) -> None:
    """Ends as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stopped)
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("Stopped; the next call goes on") from None
