"""Kills trainings at random moments, resumes them, and compares their end with an undisturbed one.

    python scripts/prove_resume.py --kills 30 --signal KILL --seed 1
    python scripts/prove_resume.py --full-disk 12    # as root: it mounts small disks
    python scripts/prove_resume.py --ranks 2 --kills 10    # of processes that torchrun has started

Each training is a process of its own, of six epochs, and saves after every optimizer step. A third
of the signals arrive while a checkpoint is being written, the others at any moment after the start.
Weights, optimizer, schedule, averages, random states, counts and metrics must be equal to the last
bit, and so must the rows of metrics.csv and the points of TensorBoard.
"""

import argparse
import csv
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

COMMON: Final = (
    *("data=pets_mini", "data.size=32", "data.batch_size=8", "trainer=cpu", "seed=3"),
    *("trainer.precision=32", "trainer.max_epochs=6", "trainer.limit_train_batches=9"),
    *("trainer.limit_val_batches=2", "trainer.limit_test_batches=2"),
    *("trainer.log_every_n_steps=1", "callback.best_and_last.every_n_steps=1"),
)
TRAININGS: Final = {
    "unet": ("model.widths=[8,16]", "callback=ema", "scheduler=onecycle", "data.num_workers=2"),
    "vit_tiny": ("model=vit_tiny", "model.dropout=0.1", "+trainer.accumulate_grad_batches=2"),
}
MEASURED_ANEW: Final = ("images_per_second", "peak_memory", "seconds", "lr-")
"""Of the machine and not of the training; the learning rate is logged once more by a resume."""


def begin(words: tuple[str, ...], log: Path, *, by: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Starts a training."""
    with log.open("ab") as output:
        command = [sys.executable, *by, "-m", "segpets.train", *words]
        return subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)


def end(process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a training has ended well."""
    if process.wait():
        sys.exit(f"a training failed: see {log}")


def moment(run: Path, chance: random.Random, args: argparse.Namespace) -> Iterator[None]:
    """Waits for a random moment: of the steps, of a write of theirs, or of the start."""
    folder, now, began = run / "checkpoints", time.time(), time.monotonic()
    if chance.random() < 0.8:
        while _written(folder / "last.ckpt") < now:
            yield
        began = time.monotonic()
    after, in_a_write = chance.uniform(0, args.longest), chance.random() < 1 / 3
    while time.monotonic() - began < after:
        yield
    while in_a_write and _written(folder / ".last.ckpt") < time.time() - 1:
        yield


def _written(file: Path) -> float:
    """Returns when a file was written; 0 if it isn't there."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def disturb(run: Path, words: tuple[str, ...], kills: int, args: argparse.Namespace) -> int:
    """Trains with interruptions.

    Returns:
        How many signals arrived before the training had ended.
    """
    chance = random.Random(f"{args.seed} {run}")
    log, first = run.with_suffix(".log"), (*words, f"hydra.run.dir={run}")
    arrived = 0
    while arrived < kills:
        go_on = (f"resume={run}",) if (run / "summary.json").exists() else first
        process = begin(go_on, log)
        for _ in moment(run, chance, args):
            time.sleep(0.0005)
            if process.poll() is not None:
                break
        if process.poll() is not None:
            break
        process.send_signal(signal.Signals[f"SIG{args.signal}"])
        process.wait()
        arrived += 1
        print(f"  {args.signal} {arrived}: {state_of(run)}", flush=True)
    if process.returncode != 0:
        end(begin((f"resume={run}",) if (run / "summary.json").exists() else first, log), log)
    return arrived


def disturb_ranks(run: Path, words: tuple[str, ...], kills: int, args: argparse.Namespace) -> int:
    """Trains with several processes, of which random ones are killed; torchrun starts them again.

    Returns:
        How many were killed before the training had ended.
    """
    chance, log = random.Random(f"{args.seed} {run}"), run.with_suffix(".log")
    process = begin((*words, f"hydra.run.dir={run}"), log, by=torchrun(args.ranks, kills))
    arrived = 0
    while arrived < kills and process.poll() is None:
        for _ in moment(run, chance, args):
            time.sleep(0.0005)
            if process.poll() is not None:
                break
        if not (ranks := children(process.pid)):
            continue
        os.kill(chance.choice(ranks), signal.SIGKILL)
        arrived += 1
        print(f"  KILL {arrived}: {state_of(run)}", flush=True)
        while process.poll() is None and set(ranks) & set(children(process.pid)):
            time.sleep(0.05)
    end(process, log)
    return arrived


def torchrun(ranks: int, restarts: int) -> list[str]:
    """The words that start so many processes, and start them again so often."""
    options = ["--standalone", f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    return ["-m", "torch.distributed.run", *options]


def children(process: int) -> list[int]:
    """The processes that one has started."""
    try:
        return [
            int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    except OSError:
        return []


def fill(name: str, folder: Path, sizes: int) -> int:
    """Trains on disks of memory that become full, each at another moment, and makes room.

    Returns:
        The number of trainings that failed in other words, or ended otherwise.
    """
    words, whole, bad = COMMON + TRAININGS[name], folder / "undisturbed", 0
    end(begin((*words, f"hydra.run.dir={whole}"), folder / "undisturbed.log"), folder)
    expected = left_by(whole)
    everything = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    for number in range(sizes):
        size = int(everything * 1.1 * (number + 0.5) / sizes) // 1024
        disk, log = folder / "disk", folder / f"disk-{number}.log"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
        try:
            run = disk / "run"
            code = begin((*words, f"hydra.run.dir={run}"), log).wait()
            said = log.read_text(errors="replace").strip().splitlines()[-1]
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            if code:
                there = (run / "summary.json").exists()
                go_on = (f"resume={run}",) if there else (*words, f"hydra.run.dir={run}")
                end(begin(go_on, log), log)
            found = list(differences(expected, left_by(run)))
            wrong = bool(code) and not said.startswith("error: ")
            bad += bool(found) or wrong
            result = ", ".join(found[:5]) or "equal to the last bit"
            print(f"{name}, disk of {size} kB: {said[:100]}; {result}", flush=True)
        finally:
            subprocess.run(["umount", disk], check=True)
            disk.rmdir()
    return bad


def state_of(run: Path) -> str:
    """Says what a killed training has left."""
    file = run / "checkpoints" / "last.ckpt"
    if not file.exists():
        return "no checkpoint yet"
    saved = torch.load(file, weights_only=True)
    partial = ", beside half of one" if (file.with_name(".last.ckpt")).exists() else ""
    return f"last checkpoint: epoch {saved['epoch']}, batch {saved.get('batches', 0)}{partial}"


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Names what isn't equal to the last bit."""
    if any(word in place for word in MEASURED_ANEW):
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{place}/{key}")
    elif isinstance(one, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}/{index}")
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        if not torch.equal(one, other):
            yield place
    elif one != other and not (one != one and other != other):
        yield f"{place}: {one} and {other}"


def left_by(run: Path) -> dict[str, Any]:
    """Reads what a training leaves: checkpoints, rows and points."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["step"]: dict(row) for row in csv.DictReader(file)}
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    points = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith(("train/", "val/", "test/"))  # others are of the HPARAMS tab
    }
    saved = {
        name: torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("best", "last")
    }
    return {"metrics.csv": rows, "tensorboard": points, **saved}


def main() -> None:
    """Runs it."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it says what it leaves out
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="signals for each training")
    parser.add_argument("--each", type=int, default=6, help="signals until a training may end")
    parser.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "USR1", "INT"))
    parser.add_argument("--full-disk", type=int, metavar="N", help="N full disks instead")
    parser.add_argument("--ranks", type=int, default=1, help="processes, started by torchrun")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--only", choices=TRAININGS, help="one training; else both")
    args = parser.parse_args()
    bad = 0
    for name in [args.only] if args.only else TRAININGS:
        folder = Path(tempfile.mkdtemp(prefix="prove-resume-"))
        if args.full_disk is not None:
            odd = fill(name, folder, args.full_disk)
        else:
            odd = prove(name, folder, args)
        if not odd:  # else, or if it fails, it is left to be looked at
            shutil.rmtree(folder)
        bad += odd
    sys.exit(bad > 0)


def prove(name: str, folder: Path, args: argparse.Namespace) -> int:
    """Trains undisturbed and disturbed; returns the number of trainings that differ."""
    words = COMMON + TRAININGS[name]
    whole = folder / "undisturbed"
    by, interrupted = list[str](), disturb
    if args.ranks > 1:
        words, by, interrupted = (*words, "trainer=ddp_sim"), torchrun(args.ranks, 0), disturb_ranks
    process = begin((*words, f"hydra.run.dir={whole}"), folder / "undisturbed.log", by=by)
    while process.poll() is None and not (whole / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
    began = time.monotonic()
    end(process, folder / "undisturbed.log")
    args.longest = time.monotonic() - began
    expected = left_by(whole)
    print(f"{name}: {args.longest:.0f} s from the first checkpoint on, undisturbed", flush=True)
    arrived = bad = count = 0
    while arrived < args.kills:
        count += 1
        run = folder / f"disturbed-{count}"
        arrived += interrupted(run, words, min(args.each, args.kills - arrived), args)
        found = list(differences(expected, left_by(run)))
        bad += bool(found)
        print(f"{name} {count}: {', '.join(found[:5]) or 'equal to the last bit'}", flush=True)
    print(
        f"{name}: {arrived} times SIG{args.signal}, {bad} of {count} trainings differ", flush=True
    )
    return bad


if __name__ == "__main__":
    main()
