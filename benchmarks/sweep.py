"""What a sweep costs beside its jobs, and what two jobs at once gain.

    python benchmarks/sweep.py [--jobs 200] [--json FILE]

A grid of small jobs is run, and given again when it is complete; then a grid of six jobs, one
after the other and two at once by joblib. Everything happens in a temporary folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from facts import write_facts

SMALL = (
    "trainer=cpu trainer.precision=32 data.size=32 model=unet model.widths=[4,8] logger=[csv] "
    "trainer.max_epochs=1 trainer.limit_val_batches=1 trainer.limit_test_batches=1"
).split()


def sweep(folder: Path, name: str, *words: str) -> float:
    """Runs a sweep; gives its seconds."""
    command = [sys.executable, "-m", "segpets.train", "-m", *SMALL, *words]
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, f"sweep={name}", f"paths.log_dir={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout)
    return time.perf_counter() - begun


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200, help="of the grid")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        grid = [f"seed=range(0,{options.jobs})", "trainer.limit_train_batches=1"]
        started = time.time()
        found["grid"] = sweep(folder, "grid", *grid)
        jobs = [
            json.loads(file.read_text())
            for file in (folder / "multiruns" / "grid").glob("*/summary.json")
        ]
        begun = [datetime.fromisoformat(job["started"]).timestamp() for job in jobs]
        found["first job after"] = min(begun) - started
        found["in the jobs"] = sum(job["seconds"] for job in jobs)
        beside = found["grid"] - found["first job after"] - found["in the jobs"]
        found["beside, per job"] = beside / len(jobs)
        found["grid again, complete"] = sweep(folder, "grid", *grid)

        six = ["seed=range(0,6)", "data.size=64", "model.widths=[8,16,32]", "trainer.max_epochs=4"]
        two = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
        found["six jobs, one by one"] = sweep(folder, "one", *six)
        found["six jobs, two at once"] = sweep(folder, "two", *six, *two)
    print(f"{os.cpu_count()} cores, {options.jobs} jobs, load {os.getloadavg()[0]:.1f}; seconds")
    for name, value in found.items():
        print(f"{name:<26}{value:>10.2f}")
    write_facts(options.json, seconds=found)


if __name__ == "__main__":
    main()
