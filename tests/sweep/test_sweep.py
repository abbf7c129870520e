"""Sweeps: what is complete stays, what was stopped goes on, what failed is tried again."""

import json
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
from typing import Any

import pytest
import torch
from fixture_types import Command, Start, Tiny
from fork_server import Forked

ROOT = Path(__file__).parents[2]
LOSS = """
import os
import sys
import time

import torch
from torch import Tensor

from segpets.loss import CrossEntropyLoss


class Moody(CrossEntropyLoss):
    def __init__(self, *, num_classes: int, mood: str) -> None:
        super().__init__(num_classes=num_classes)
        self.mood = mood

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.is_leaf:  # it is tried before the training
            return super().forward(logits, target)
        if self.mood == "raise":
            raise RuntimeError("what a bad mood")
        if self.mood == "exit":
            sys.exit(0)
        if self.mood == "die":
            os._exit(1)
        if self.mood == "slow":
            time.sleep(0.1)
        return super().forward(logits, target)
"""
CONFIG = "_target_: moody.Moody\nnum_classes: ${len:${data.classes}}\nmood: good\n"
NAMES = """
from pathlib import Path

from lightning.pytorch import Callback


class Names(Callback):
    \"\"\"Writes down which images each step of a training sees.\"\"\"

    def __init__(self, folder: str) -> None:
        self.file = Path(folder, "names.txt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with self.file.open("a") as file:
            file.write(f"{trainer.global_step} {' '.join(batch['name'])}\\n")
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the user's own code: a loss with moods, and a callback that notes names."""
    folder = tmp_path / "own"
    for group, text in {"loss": CONFIG, "experiment": "# @package _global_\nseed: 7\n"}.items():
        (folder / "conf" / group).mkdir(parents=True)
        name = {"loss": "moody", "experiment": "mine"}[group]
        (folder / "conf" / group / f"{name}.yaml").write_text(text)
    (folder / "moody.py").write_text(LOSS)
    (folder / "names.py").write_text(NAMES)
    return folder


@pytest.fixture
def words(tiny: Tiny, own: Path) -> list[str]:
    """What the sweeps here have in common: one epoch of four steps."""
    conf = ["--config-dir", str(own / "conf"), "-m", "sweep=s"]
    return [*conf, *tiny("trainer.max_epochs=1", "loss=moody", "data.size=32")]


def environment(own: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(own), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    """The summaries of a sweep's jobs, by the mood or the seed that tells them apart."""
    found = {}
    for file in (folder / "logs" / "train" / "multiruns" / "s").glob("*/summary.json"):
        if "failed-" not in file.parent.name and "replaced-" not in file.parent.name:
            summary = json.loads(file.read_text()) | {"path": file.parent}
            told = [w for w in summary["overrides"] if w.startswith(("loss.mood", "seed", "tags"))]
            found[" ".join(sorted(told))] = summary
    return found


def metrics(summary: dict[str, Any]) -> dict[str, float]:
    measured = ("images_per_second", "peak_memory_mb")
    return {k: v for k, v in summary.items() if "/" in k and not k.endswith(measured)}


def weights(summary: dict[str, Any]) -> dict[str, torch.Tensor]:
    file = summary["path"] / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def names_of_steps(summary: dict[str, Any]) -> dict[str, set[str]]:
    """The images of each step; a step that was done again must have had the same ones."""
    seen: dict[str, set[str]] = {}
    for line in (summary["path"] / "names.txt").read_text().splitlines():
        step, _, listed = line.partition(" ")
        seen.setdefault(step, set()).add(listed)
    return seen


def test_a_failing_job_stops_no_other_and_is_tried_again(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    moods = "loss.mood=raise,exit,good"
    done = command(*words, moods, **environment(own))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "failed: RuntimeError: what a bad mood" in done.stdout
    assert "2 of 3 jobs failed" in done.stdout
    assert re.search(r"error: 2 of 3 jobs failed\. The first, .*RuntimeError: what a", done.stdout)
    first = jobs(tmp_path)
    assert {k: v["status"] for k, v in first.items()} == {
        "loss.mood=raise": "failed",
        "loss.mood=exit": "failed",
        "loss.mood=good": "completed",
    }
    failed = first["loss.mood=raise"]
    assert failed["error"] == "RuntimeError: what a bad mood"
    assert "moody.py" in failed["traceback"]
    assert "moody.py" in (failed["path"] / "train.log").read_text()
    good = first["loss.mood=good"]["path"] / "checkpoints" / "last.ckpt"
    before = good.stat().st_mtime_ns

    listed = command(*words, moods, "dry_run=true", **environment(own))
    assert listed.returncode == 0
    assert "dry_run=true: nothing is run. 2 would be" in listed.stdout
    assert jobs(tmp_path) == first

    status = command(
        "status=logs/train/multiruns/s", module="segpets.sweep", **environment(own)
    ).stdout
    assert "1 of 3 done, 0 running, 2 failed, 0 left" in status
    assert "best val/mean_iou" in status

    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"').replace('"exit"', '"never"'))
    again = command(*words, moods, **environment(own))
    assert again.returncode == 0, again.stdout
    assert "2 to try again, 1 complete" in again.stdout
    second = jobs(tmp_path)
    assert {summary["status"] for summary in second.values()} == {"completed"}
    assert good.stat().st_mtime_ns == before
    kept = [path.name for path in failed["path"].parent.glob("*.failed-1")]
    assert sorted(kept) == sorted(
        f"{first[f'loss.mood={mood}']['path'].name}.failed-1" for mood in ("raise", "exit")
    )


@pytest.mark.slow
def test_fail_fast_starts_no_further_job(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    done = command(*words, "loss.mood=raise,good", "fail_fast=true", **environment(own))
    assert done.returncode == 1
    assert "doesn't start, as another job failed" in done.stdout
    assert "1 of 2 jobs failed, and 1 didn't start" in done.stdout
    assert list(jobs(tmp_path)) == ["loss.mood=raise"]
    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"'))
    again = command(*words, "loss.mood=raise,good", "fail_fast=true", **environment(own))
    assert again.returncode == 0, again.stdout


@pytest.mark.slow
def test_another_base_config_is_noticed(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "experiment=mine", "loss.mood=good"]
    assert command(*words, **environment(own)).returncode == 0
    (before,) = jobs(tmp_path).values()
    (own / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 8\n")
    refused = command(*words, **environment(own))
    assert refused.returncode == 1
    assert "1 of 1 jobs of this sweep were begun otherwise" in refused.stdout
    assert "another base config" in refused.stdout
    assert list(jobs(tmp_path).values()) == [before]
    accepted = command(*words, "sweep_mismatch=accept", **environment(own))
    assert accepted.returncode == 0
    assert list(jobs(tmp_path).values()) == [before]
    restarted = command(*words, "sweep_mismatch=restart", **environment(own))
    assert restarted.returncode == 0, restarted.stdout
    (after,) = jobs(tmp_path).values()
    assert (before["seed"], after["seed"]) == (7, 8)
    old = before["path"].with_name(f"{before['path'].name}.replaced-1")
    assert json.loads((old / "summary.json").read_text())["seed"] == 7


@pytest.mark.slow
def test_damage_and_growth(command: Command, words: list[str], own: Path, tmp_path: Path) -> None:
    words = [word for word in words if not word.startswith("trainer.max_epochs")]
    words += ["trainer.max_epochs=3", "+callback.names._target_=names.Names"]
    words += ["+callback.names.folder=${paths.output_dir}"]
    assert command(*words, "seed=1,2,3", **environment(own)).returncode == 0
    whole = jobs(tmp_path)
    undisturbed = {seed: weights(summary) for seed, summary in whole.items()}

    summary = whole["seed=1"]["path"] / "summary.json"
    summary.write_text(summary.read_text()[:100])
    checkpoints = whole["seed=2"]["path"] / "checkpoints"
    for name in ("last", "best"):  # one file where the last epoch was the best
        content = (checkpoints / f"{name}.ckpt").read_bytes()
        (checkpoints / f"{name}.ckpt").write_bytes(content[: len(content) // 2])
    note = whole["seed=2"]["path"] / "summary.json"
    note.write_text(note.read_text().replace('"completed"', '"interrupted"'))
    shutil.rmtree(whole["seed=3"]["path"])

    lost = command(*words, "seed=1,2,3,4", **environment(own))
    assert "2 new, 2 to go on" in lost.stdout
    assert lost.returncode == 1
    assert re.search(r"(best|last)\.ckpt can't be read", lost.stdout), lost.stdout
    again = command(*words, "seed=1,2,3,4", **environment(own))
    assert again.returncode == 0, again.stdout
    failed = whole["seed=2"]["path"].with_name(f"{whole['seed=2']['path'].name}.failed-1")
    assert (failed / "checkpoints" / "previous.ckpt").is_file(), "what was sound is kept"
    mended = jobs(tmp_path)
    assert set(mended) == {"seed=1", "seed=2", "seed=3", "seed=4"}
    for seed, before in whole.items():
        assert metrics(mended[seed]) == metrics(before)
        torch.testing.assert_close(weights(mended[seed]), undisturbed[seed], rtol=0, atol=0)
    assert len(names_of_steps(mended["seed=1"])) == len(names_of_steps(mended["seed=4"]))
    assert (mended["seed=1"]["path"] / "damaged-summary.json").is_file()
    for key in ("config_fingerprint", "threads", "overrides"):
        assert mended["seed=1"][key] == whole["seed=1"][key]


@pytest.mark.slow
def test_two_commands_share_a_sweep(
    start: Start, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "loss.mood=slow", "seed=1,2,3"]
    both = [start(*words, **environment(own)) for _ in range(2)]
    ended = [process.wait() for process in both]
    told = "".join(process.stdout for process in ended)
    assert [process.returncode for process in ended] == [0, 0], told
    assert told.count("Everything lies in") == 3, told
    assert {summary["status"] for summary in jobs(tmp_path).values()} == {"completed"}
    assert all("resumed" not in summary for summary in jobs(tmp_path).values())


@pytest.mark.slow
def test_names_of_folders_are_short_and_safe_whatever_the_overrides(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    odd = ["a b", "c/d", "../../up", "é,ü", "x" * 500, "y=z"]
    values = ",".join(f"['{value}']" for value in odd)
    done = command(*words, f"tags={values}", "trainer.limit_train_batches=1", **environment(own))
    assert done.returncode == 0, done.stdout
    found = jobs(tmp_path)
    assert [summary["tags"] for summary in found.values()].sort() == [[v] for v in odd].sort()
    assert len(found) == len(odd)
    for summary in found.values():
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", summary["path"].name)


def test_a_combination_that_gives_no_config_is_named(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [word for word in words if not word.startswith("model.widths=")]
    words += ["model.widths=[4,8],[8,16]", "model=unet,vit", "seed=1"]
    done = command(*words, **environment(own))
    assert done.returncode == 1
    assert (
        "error: the job model.widths=[4,8] model=vit can't be composed, so none was started. "
        "model.widths is no key of the config. Did you mean model.width?"
    ) in done.stdout, done.stdout
    assert "seed=1" not in done.stdout  # all jobs have it
    assert not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_errors_of_failed_jobs_take_a_line_each(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    text = r'"\n\n  first\033[2J line " + "y" * 3000 + "\nsecond line\n" * 50'
    (own / "moody.py").write_text(LOSS.replace('"what a bad mood"', text))
    long = "x" * 500
    done = command(*words, "loss.mood=raise", f"seed=1,2,{long}", **environment(own))
    assert done.returncode == 1
    status = command("status=logs/train/multiruns/s", module="segpets.sweep").stdout
    assert command("status=s", module="segpets.sweep").stdout == status
    failed = jobs(tmp_path)
    for told in (done.stdout, status):
        assert "3 failed. The whole texts are in summary.json and train.log of the" in told
        for key in ("seed=1", "seed=2"):
            name = failed[f"loss.mood=raise {key}"]["path"].name
            reason = rf"^  {re.escape(name)}: RuntimeError: first \[2J line y{{50,}} \.\.\.$"
            assert len(re.findall(reason, told, flags=re.MULTILINE)) == 1, told
        assert re.search(r"^  \S+: UserError: seed=xxx.* \.\.\.$", told, flags=re.MULTILINE)
        assert "second line" not in told and "\033" not in told
    assert "x" * 200 not in status
    assert failed["loss.mood=raise seed=1"]["error"].count("second line") == 50
    log = failed["loss.mood=raise seed=1"]["path"] / "train.log"
    assert log.read_text().count("second line") >= 50


def test_a_typo_costs_nothing(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    done = command(*words, "optimizer=adam,adamv", **environment(own))
    assert done.returncode == 1
    assert "Did you mean optimizer=adam" in done.stdout
    assert not (tmp_path / "logs" / "train" / "multiruns" / "s" / "sweep.json").exists()
    wrong = command(*words, "sweep_mismatch=yes", **environment(own))
    assert wrong.returncode == 1
    assert "sweep_mismatch=yes is unknown: choose refuse, restart, accept" in wrong.stdout


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
def test_a_job_whose_process_dies_takes_no_other_with_it(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    words = [*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = command(*words, "loss.mood=good,die,raise", **environment(own))
    assert done.returncode == 1
    assert "2 of 3 jobs failed" in done.stdout, done.stdout
    assert "takes its process down: it has failed" in done.stdout
    states = {told: summary["status"] for told, summary in jobs(tmp_path).items()}
    assert states == {
        "loss.mood=good": "completed",
        "loss.mood=die": "failed",
        "loss.mood=raise": "failed",
    }


@pytest.mark.slow
def test_a_file_in_the_place_of_a_job_is_put_aside(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    assert command(*words, "seed=1", **environment(own)).returncode == 0
    (path,) = (summary["path"] for summary in jobs(tmp_path).values())
    shutil.rmtree(path)
    path.write_text("mine")
    again = command(*words, "seed=1,2", **environment(own))
    assert again.returncode == 0, again.stdout
    assert len(jobs(tmp_path)) == 2
    assert path.with_name(f"{path.name}.replaced-1").read_text() == "mine"


@pytest.mark.slow
def test_an_extended_job_is_not_what_the_sweep_began(
    command: Command, words: list[str], own: Path, tmp_path: Path
) -> None:
    assert command(*words, "seed=1", **environment(own)).returncode == 0
    (path,) = (summary["path"] for summary in jobs(tmp_path).values())
    conf = words[:2]
    longer = command(*conf, f"resume={path}", "trainer.max_epochs=2", **environment(own))
    assert longer.returncode == 0, longer.stdout
    again = command(*words, "seed=1", **environment(own))
    assert again.returncode == 1
    assert "1 of 1 jobs of this sweep were begun otherwise" in again.stdout


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


LAUNCHERS = {
    "submitit_local": ["hydra.launcher.timeout_min=5"],  # real processes, as SLURM would start them
    "ray": ["+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.remote.num_cpus=0.5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_keeps_the_promises(
    command: Command, words: list[str], own: Path, tmp_path: Path, launcher: str
) -> None:
    words = [*words, f"hydra/launcher={launcher}", *LAUNCHERS[launcher]]
    done = command(*words, "loss.mood=raise,exit,good", **environment(own))
    assert done.returncode == 1, done.stdout
    assert "2 of 3 jobs failed" in done.stdout
    first = jobs(tmp_path)
    assert first["loss.mood=good"]["status"] == "completed"
    assert "moody.py" in first["loss.mood=raise"]["traceback"]
    (own / "moody.py").write_text(LOSS.replace('"raise"', '"never"').replace('"exit"', '"never"'))
    again = command(*words, "loss.mood=raise,exit,good", **environment(own))
    assert again.returncode == 0, again.stdout
    assert "2 to try again, 1 complete" in again.stdout
    assert jobs(tmp_path)["loss.mood=good"] == first["loss.mood=good"]
