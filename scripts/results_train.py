"""Trains a row of docs/RESULTS.md in a process of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from results_page import RUNS, Row

from segpets.cli.suggest import quoted
from segpets.run.files import RunFiles


class RowError(Exception):
    """A row can't be trained, or judged; others may."""


def train(row: Row, seed: int, data: Path | None, until: float | None) -> Path | None:
    """Trains, or goes on; returns the run, or None if the time is over.

    Raises:
        RowError: It fails, or the run is another command's.
    """
    run = RUNS / f"{row.name}-{seed}"
    words = [word.replace("FOLDER", quoted(str(data))) for word in row.command]
    if (run / "summary.json").exists():
        check_command(row, seed)
        words = [f"resume={run}", *(word for word in words if word.startswith("data.root="))]
    else:
        words += [f"seed={seed}", f"hydra.run.dir={run}"]
    if until is not None and time.time() > until:
        return None
    # In a session of its own, so that it gets one signal, and not Ctrl-C a second time.
    command = [sys.executable, "-m", "segpets.train", *words]
    begun = subprocess.Popen(command, start_new_session=True)
    try:
        while begun.poll() is None and (until is None or time.time() <= until):
            time.sleep(1)
    finally:
        over = begun.poll() is None
        if over:
            begun.send_signal(signal.SIGTERM)  # it saves, and is continued the next time
            begun.wait()
    if over:
        return None
    if begun.returncode:
        log = f": see {run}/train.log" if (run / "train.log").exists() else ""
        raise RowError(f"{row.name}, seed {seed}, failed{log}")
    latency(run)
    return run


def check_command(row: Row, seed: int) -> None:
    """Refuses a run of another command than the row's, which may have been changed since.

    Raises:
        RowError: It is one.
    """
    run = RUNS / f"{row.name}-{seed}"
    summary = json.loads(RunFiles(run).summary.read_text(encoding="utf-8"))
    begun, now = (
        {key: value for key, _, value in (word.partition("=") for word in words)}
        for words in (summary.get("overrides", []), row.words(seed))
    )
    for key, value in now.items():
        if key in begun and (key == "data.root" or "$" in value):  # as this machine fills them in
            begun[key] = value
    if begun != now:
        words = " ".join(f"{key}={value}" for key, value in sorted(begun.items()))
        raise RowError(
            f"{run} was begun by another command than that of {row.name}, {words}: move it away, "
            "or delete it"
        )


def latency(run: Path) -> float | None:
    """Measures the milliseconds of an image, eager on the CPU, and leaves them beside the run."""
    measure = ["variants=[eager]", "batch_sizes=[1]", "devices=[cpu]", "seconds=3.0"]
    command = [sys.executable, "-m", "segpets.benchmark", f"run={run}", *measure]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
        print(f"{run}: its latency isn't measured", flush=True)
        return None
    return measured(RunFiles(run).benchmark)


def measured(benchmark: Path) -> float:
    """Reads the milliseconds of an image from what `segpets.benchmark` has written."""
    rows = json.loads(benchmark.read_text(encoding="utf-8"))["rows"]
    return next(float(row["p50_ms"]) for row in rows if row["variant"] == "eager")
