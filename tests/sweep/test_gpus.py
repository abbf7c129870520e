"""Jobs that run at the same time never share a GPU by accident. What they see is looked at."""

import json
import multiprocessing
import os
import re
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fixture_types import Command, Tiny

from segpets.errors import UserError
from segpets.run.gpus import check_places, name_gpus, take_gpu, visible_gpus

ROOT = Path(__file__).parents[2]
ONE = SimpleNamespace(accelerator="gpu", devices=1)
SEES = """
import json
import os
import re
import time
from pathlib import Path

from lightning.pytorch import Callback


class Sees(Callback):
    \"\"\"Writes down the GPUs that a job sees, and from when to when.\"\"\"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer, pl_module):
        self.began = time.time()
        time.sleep(1)

    def on_train_end(self, trainer, pl_module):
        seen = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "time": [self.began, time.time()]}
        (self.folder / "sees.json").write_text(json.dumps(seen))
"""


def work(trainer: SimpleNamespace, shared: int, pipe: Connection) -> None:
    """What a worker process does: it takes a place, and keeps it for a second job."""
    for _ in range(2):
        take_gpu(trainer, jobs_per_gpu=shared)
        pipe.send(os.environ["CUDA_VISIBLE_DEVICES"])
    pipe.recv()


class Worker:
    """Such a process."""

    def __init__(self, trainer: SimpleNamespace = ONE, shared: int = 1) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(trainer, shared, theirs))
        self.process.start()

    def sees(self) -> str:
        assert self.pipe.poll(20), "it still waits"
        first, second = self.pipe.recv(), self.pipe.recv()
        assert first == second
        return str(first)

    def end(self) -> None:
        self.pipe.send("end")
        self.process.join()


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize("shared", [1, 2])
def test_each_worker_has_its_own_and_one_too_many_waits(shared: int) -> None:
    workers = [Worker(shared=shared) for _ in range(2 * shared)]
    seen = [worker.sees() for worker in workers]
    assert sorted(seen) == sorted(["3", "GPU-5a/b"] * shared)
    late = Worker(shared=shared)
    assert not late.pipe.poll(1.5)
    workers[0].end()
    assert late.sees() == seen[0]
    for worker in [*workers[1:], late]:
        worker.end()


def test_where_no_place_can_be_taken_a_job_runs_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    worker = Worker()
    assert worker.sees() == "3, GPU-5a/b"
    worker.end()


@pytest.mark.parametrize(
    "trainer",
    [SimpleNamespace(accelerator="cpu", devices=1), SimpleNamespace(accelerator="gpu", devices=2)],
)
def test_a_job_that_wants_none_or_several_sees_all(trainer: SimpleNamespace) -> None:
    worker = Worker(trainer)
    assert worker.sees() == "3, GPU-5a/b"
    worker.end()


def test_the_process_that_runs_jobs_itself_sees_all() -> None:
    take_gpu(ONE, jobs_per_gpu=1)
    assert visible_gpus() == ["3", "GPU-5a/b"]


@pytest.mark.parametrize(
    ("given", "seen"),
    [("0,1", ["0", "1"]), ("0,-1,1", ["0"]), ("", []), ("-1", []), ("2,2", ["2"])],
)
def test_what_cuda_hides_is_no_place(
    monkeypatch: pytest.MonkeyPatch, given: str, seen: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == seen


def test_gpus_are_counted_once_before_there_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who counts may have to start CUDA, which sees from then on what it saw first."""
    name_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3, GPU-5a/b", "the user's own words"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    name_gpus()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    name_gpus()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_jobs_that_choose_their_gpus_run_one_at_a_time() -> None:
    """Beside others, they would get GPUs that these have."""
    two = SimpleNamespace(accelerator="gpu", devices=2)
    for trainers in ([ONE, two], [two, two]):
        with pytest.raises(UserError, match=r"choose themselves \(trainer.devices=2\): say"):
            check_places(trainers, n_jobs=2, jobs_per_gpu=1)
        check_places(trainers, n_jobs=1, jobs_per_gpu=1)
    on_cpu = SimpleNamespace(accelerator="cpu", devices=2)
    check_places([on_cpu] * 9, n_jobs=9, jobs_per_gpu=1)


def test_as_many_as_the_launcher_chooses_wait_for_their_places() -> None:
    check_places([ONE] * 9, n_jobs=-1, jobs_per_gpu=1)
    with pytest.raises(UserError, match="there is room for 2 on 2 GPUs"):
        check_places([ONE] * 9, n_jobs=3, jobs_per_gpu=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["hydra.launcher.n_jobs=3"], r"3 jobs at a time, .* for 2 on 2 GPUs: .* jobs_per_gpu=2$"),
        (["hydra.launcher.n_jobs=5", "jobs_per_gpu=2"], r"room for 4 on 2 .* jobs_per_gpu=3$"),
        (["hydra.launcher.n_jobs=2", "jobs_per_gpu=0"], "jobs_per_gpu=0 must be a number from 1"),
        (
            ["hydra.launcher.n_jobs=2", "trainer.devices=2"],
            r"2 jobs at a time, some of them on GPUs that they choose .*devices=2\)",
        ),
        (["hydra.launcher.n_jobs=2", "trainer.devices=-1"], "say hydra.launcher.n_jobs=1, or"),
    ],
)
def test_more_jobs_than_places_are_refused(
    command: Command, tiny: Tiny, options: list[str], told: str
) -> None:
    words = ["-m", *tiny("trainer=auto", "trainer.max_epochs=1"), "hydra/launcher=joblib"]
    done = command(*words, *options, "seed=1,2,3,4,5", CUDA_VISIBLE_DEVICES="3,5")
    assert done.returncode == 1
    assert re.search(told, done.stdout, re.MULTILINE) and "Traceback" not in done.stdout
    for n_jobs, seeds in ((2, "1,2,3"), (8, "1,2")):
        dry = [f"hydra.launcher.n_jobs={n_jobs}", f"seed={seeds}", "dry_run=true"]
        fits = command(*words, *dry, CUDA_VISIBLE_DEVICES="3,5")
        assert fits.returncode == 0, fits.stdout


@pytest.mark.slow
def test_jobs_of_a_sweep_that_run_at_once_see_different_gpus(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sees.py").write_text(SEES)
    words = ["-m", "sweep=s", *tiny("trainer=auto", "trainer.max_epochs=1"), "seed=1,2,3,4"]
    words += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    words += ["+callback.sees._target_=sees.Sees", "+callback.sees.folder=${paths.output_dir}"]
    path = os.pathsep.join([str(tmp_path / "own"), str(ROOT)])
    done = command(*words, CUDA_VISIBLE_DEVICES="3,5", PYTHONPATH=path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout
    files = (tmp_path / "logs/train/multiruns/s").glob("*/sees.json")
    jobs = [json.loads(file.read_text()) for file in files]
    assert {job["gpu"] for job in jobs} == {"3", "5"} and len(jobs) == 4
    for one in jobs:
        for other in jobs:
            apart = one["time"][1] <= other["time"][0] or other["time"][1] <= one["time"][0]
            assert one is other or apart or one["gpu"] != other["gpu"]
