"""Kills, full disks and files that can't be written: a sweep ends as if there had been none."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from fixture_types import Start
from fork_server import Forked
from made_sweep import environment, jobs, metrics, names_of_steps, weights


def killed(
    start: Callable[[], Forked], words: list[str], folder: Path, *, kills: int, longest: float
) -> subprocess.CompletedProcess[str]:
    """Kills a sweep, with all its processes, at random moments, and lets it end at last."""
    moments = random.Random(f"{words}")
    for _ in range(kills):
        process = start()
        until = time.monotonic() + 60
        sweep = folder / "logs" / "train" / "multiruns" / "s" / "sweep.json"
        while not sweep.exists() and time.monotonic() < until:  # not while it composes
            time.sleep(0.1)
        time.sleep(moments.uniform(0.5, longest))
        process.kill()
        process.wait()
    return start().wait()


@pytest.mark.parametrize(
    ("launcher", "seeds", "kills", "longest"),
    [
        pytest.param("basic", "1,2", 2, 3.0),
        pytest.param("basic", "1,2,3,4,5,6,7,8", 10, 10.0, marks=pytest.mark.slow),
        pytest.param("joblib", "1,2,3,4,5,6,7,8", 10, 12.0, marks=pytest.mark.slow),
    ],
)
def test_a_sweep_that_was_killed_ends_as_if_it_had_not_been(
    start: Start,
    words: list[str],
    own: Path,
    tmp_path: Path,
    launcher: str,
    seeds: str,
    kills: int,
    longest: float,
) -> None:
    words = [word for word in words if not word.startswith("trainer.max_epochs")]
    words += ["trainer.max_epochs=4", f"seed={seeds}", "loss.mood=slow"]
    words += ["+callback.names._target_=names.Names"]
    words += ["+callback.names.folder=${paths.output_dir}", f"hydra/launcher={launcher}"]
    words += ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    for name, count in {"straight": 0, "killed": kills}.items():
        folder = tmp_path / name
        folder.mkdir()
        begin = partial(start, *words, folder=folder, **environment(own))
        done = killed(begin, words, folder, kills=count, longest=longest)
        assert done.returncode == 0, done.stdout

    expected, found = jobs(tmp_path / "straight"), jobs(tmp_path / "killed")
    assert set(found) == set(expected)
    assert len(found) == len(seeds.split(","))
    for seed, summary in expected.items():
        assert names_of_steps(found[seed]) == names_of_steps(summary)
        assert metrics(found[seed]) == metrics(summary)
        torch.testing.assert_close(weights(found[seed]), weights(summary), rtol=0, atol=0)


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_costs_no_epoch_before(
    start: Start, words: list[str], own: Path, tmp_path: Path
) -> None:
    # 12 M parameters and their moments: 145 MB, which take a part of a second to write.
    out = ("model.widths=", "trainer.max_epochs=")
    words = [word for word in words if not word.startswith(out)]
    words += ["model.widths=[32,64,128,1024]", "trainer.max_epochs=6", "seed=1"]
    words += ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
    begin: dict[str, Callable[[], Forked]] = {}
    for name in ("killed", "straight"):
        (tmp_path / name).mkdir()
        begin[name] = partial(start, *words, folder=tmp_path / name, **environment(own))
    straight = begin["straight"]().wait()
    assert straight.returncode == 0, straight.stdout
    process = begin["killed"]()
    sweep = tmp_path / "killed" / "logs" / "train" / "multiruns" / "s"
    caught = False
    while not caught and process.poll() is None:
        if list(sweep.glob("*/checkpoints/.last.ckpt")):  # stopped, so that it can be looked at
            process.kill(signal.SIGSTOP)
            writing = list(sweep.glob("*/checkpoints/.last.ckpt"))
            caught = bool(writing) and bool(list(sweep.glob("*/checkpoints/last.ckpt")))
            process.kill(signal.SIGKILL if caught else signal.SIGCONT)
    process.wait()
    assert caught
    (last,) = sweep.glob("*/checkpoints/last.ckpt")
    assert writing[0].stat().st_size <= last.stat().st_size
    done = torch.load(last, weights_only=True, mmap=True)["epoch"] + 1
    again = begin["killed"]().wait()
    assert again.returncode == 0, again.stdout
    assert "1 to go on" in again.stdout
    assert f"epoch {done + 1} of 6" in again.stdout and f"epoch {done} of 6" not in again.stdout
    (expected,), (found,) = (jobs(tmp_path / name).values() for name in ("straight", "killed"))
    assert metrics(found) == metrics(expected)
    torch.testing.assert_close(weights(found), weights(expected), rtol=0, atol=0)
    assert not list(sweep.glob("*/checkpoints/.*"))


SMALL_DISK = """
cd "$1" && mount -t tmpfs -o size="$2" none logs || exit 1
shift 2
"$@" > first.txt 2>&1; echo $? >> first.txt
"$@" > still_full.txt 2>&1; echo $? >> still_full.txt
cp -r logs full
mount -o remount,size=1g logs
"$@" > roomy.txt 2>&1; echo $? >> roomy.txt
cp -r logs roomy
"""  # what lies in the disk is gone with the namespace


def lists_of_jobs(told: str) -> list[list[str]]:
    """The rows of the table in which a sweep ends: job, state, score."""
    rows = [line for line in told.splitlines() if line.startswith("│ model.widths=")]
    return [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["300k", "1000k"])  # for no job, and for one of two
def test_a_full_disk_ends_a_sweep_and_loses_nothing(
    words: list[str], own: Path, tmp_path: Path, size: str
) -> None:
    """On a real disk of that size, in a namespace of its own, where anyone may mount."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("this system lets users have no namespaces, so none can mount a small disk")
    words = [word for word in words if not word.startswith("model.widths=")]
    line = [sys.executable, "-m", "segpets.train", *words, "model.widths=[4,8],[64,128]"]
    (tmp_path / "logs").mkdir()
    small = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(tmp_path), size, *line]
    subprocess.run(small, env=os.environ | environment(own), timeout=500)
    first, still_full, roomy = (
        (tmp_path / f"{name}.txt").read_text() for name in ("first", "still_full", "roomy")
    )
    for told in (first, still_full):
        assert told.endswith("\n1\n"), told
        assert "Traceback" not in told
        assert len(re.findall(r"^error: .*", told, flags=re.MULTILINE)) == 1, told
        assert re.search(r"^error: .*No space left on device.*[Tt]he same command", told, re.M)
    assert [row[0] for row in lists_of_jobs(first)] == [
        "model.widths=[4,8]",
        "model.widths=[64,128]",
    ]
    assert roomy.endswith("\n0\n"), roomy
    assert [row[1] for row in lists_of_jobs(roomy)] == ["completed"] * 2
    before, after = (
        {file.relative_to(tmp_path / name): file for file in (tmp_path / name).rglob("*")}
        for name in ("full", "roomy")
    )
    if size == "1000k":
        assert "completed" in [row[1] for row in lists_of_jobs(first)]
        kept = [path for path in before if "widths-4-8" in str(path) or "wi-4-8" in str(path)]
        assert len(kept) > 10
        for path in kept:
            assert before[path].is_dir() or before[path].read_bytes() == after[path].read_bytes()


@pytest.mark.slow
def test_a_file_that_can_not_be_written_fails_its_job_only(
    start: Start, words: list[str], own: Path
) -> None:
    # Files may have 300 kB, as under `ulimit -f`: the wider net's checkpoint has a megabyte.
    words = [word for word in words if not word.startswith("model.widths=")]
    words = [*words, "model.widths=[32,64],[4,8]"]
    done = start(*words, largest_file=300_000, **environment(own)).wait()
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert len(re.findall(r"^error: 1 of 2 jobs failed.*", done.stdout, re.M)) == 1, done.stdout
    assert {row[0]: row[1] for row in lists_of_jobs(done.stdout)} == {
        "model.widths=[4,8]": "completed",
        "model.widths=[32,64]": "failed",
    }
    again = start(*words, **environment(own)).wait()
    assert again.returncode == 0, again.stdout
    assert "1 to try again, 1 complete" in again.stdout
