"""Several processes that torchrun or srun has started are one training."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Start, Tiny

from segpets.build.objects import build_trainer
from segpets.config import compose
from segpets.errors import UserError
from segpets.run.checkpoint import read_checkpoint
from segpets.run.trust import Trust
from segpets.train.parts import seeded_parts
from segpets.train.together import check_shares

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TORCHRUN = "torch.distributed.run"


def by_torchrun(*words: str, processes: int = 2, options: tuple[str, ...] = ()) -> list[str]:
    """The words behind `python -m` that start so many processes of a training."""
    where = ["--standalone", f"--nproc-per-node={processes}", *options]
    return [*where, "-m", "segpets.train", *words]


def trained(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run has in the end."""
    weights: dict[str, torch.Tensor] = read_checkpoint(run / "checkpoints" / "last.ckpt")[
        "state_dict"
    ]
    return weights


def summary(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return read


def errors(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error: ")]


def the_only_run(folder: Path) -> Path:
    (run,) = [path for path in (folder / "logs/train/runs").iterdir() if path.is_dir()]
    return run


@pytest.mark.parametrize("loss", ["loss=combined", "loss=cross_entropy loss.class_weights=null"])
def test_two_processes_are_one_training_and_end_as_one_process_does(
    start: Start, tmp_path: Path, loss: str
) -> None:
    # A set of which rounding isn't magnified by the training, as the number of threads shows.
    words = ["data=pets_mini", "data.size=32", "model.widths=[4,8]", "optimizer=sgd", *loss.split()]
    words += ["trainer.limit_train_batches=3", "trainer.max_epochs=2", "trainer.precision=32"]
    two = start(
        *by_torchrun(*words, "trainer=ddp_sim", "data.batch_size=2"), module=TORCHRUN
    ).wait()
    assert two.returncode == 0, two.stdout
    assert two.stdout.count("epoch 2 of 2") == 1
    run = the_only_run(tmp_path)
    assert (tmp_path / "logs/train/latest").resolve() == run
    assert "x 2" in two.stdout

    one = start(*words, "trainer=cpu", "data.batch_size=4", "hydra.run.dir=one").wait()
    assert one.returncode == 0, one.stdout
    for name, expected in trained(tmp_path / "one").items():
        torch.testing.assert_close(trained(run)[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    ours, theirs = summary(run), summary(tmp_path / "one")
    names = [name for name in theirs if name.startswith(("test/", "val/"))]
    assert len(names) > 20
    if loss == "loss=combined":  # of whole batches, and no mean over their images
        names = [name for name in names if not name.endswith("/loss")]
    for name in names:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name
    with (run / "predictions/test/counts.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 296


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_goes_on_from_the_last_checkpoint(
    start: Start, tiny: Tiny, tmp_path: Path, killed: int
) -> None:
    words = tiny(
        *("trainer=ddp_sim", "data.batch_size=2", "trainer.max_epochs=4", "callback=ema"),
        "callback.best_and_last.every_n_steps=2",
    )
    undisturbed = start(*by_torchrun(*words, "hydra.run.dir=a"), module=TORCHRUN).wait()
    assert undisturbed.returncode == 0, undisturbed.stdout

    options = ("--max-restarts=1",)
    training = start(*by_torchrun(*words, options=options), module=TORCHRUN)
    log = wait_for(tmp_path / "logs/train/runs", "*/metrics.csv")
    run = log.parent
    while "epoch 2" not in (run / "train.log").read_text():
        time.sleep(0.05)
    os.kill(of_rank(killed, tmp_path), signal.SIGKILL)
    done = training.wait()
    assert done.returncode == 0, done.stdout
    assert the_only_run(tmp_path) == run
    assert "Continuing from" in done.stdout
    assert errors(done.stdout) == []
    for name, expected in trained(tmp_path / "a").items():
        assert torch.equal(trained(run)[name], expected), name
    assert summary(run)["status"] == "completed"
    assert summary(run)["test/mean_iou"] == summary(tmp_path / "a")["test/mean_iou"]


def test_a_killed_process_without_restarts_interrupts_the_run(
    start: Start, tiny: Tiny, tmp_path: Path
) -> None:
    words = tiny("trainer=ddp_sim", "data.batch_size=2", "trainer.max_epochs=40")
    training = start(*by_torchrun(*words), module=TORCHRUN)
    run = wait_for(tmp_path / "logs/train/runs", "*/metrics.csv").parent
    while "epoch 2" not in (run / "train.log").read_text():
        time.sleep(0.05)
    os.kill(of_rank(1, tmp_path), signal.SIGKILL)
    done = training.wait()
    assert done.returncode == 1
    assert summary(run)["status"] == "interrupted"
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("Interrupted. ")]
    assert f"resume={run.relative_to(tmp_path)} goes on from" in told


FAILS = """
from lightning.pytorch import Callback


class FailsLater(Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise ValueError("out of luck")
"""


def test_an_error_in_one_process_is_told_with_its_rank(
    start: Start, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "own_callback.py").write_text(FAILS)
    own = ["+callback.own._target_=own_callback.FailsLater", "allow=[own_callback.FailsLater]"]
    words = tiny("trainer=ddp_sim", "data.batch_size=2", *own)
    done = start(*by_torchrun(*words), module=TORCHRUN, PYTHONPATH=f"{tmp_path}:{ROOT}").wait()
    assert done.returncode == 1
    told = f"rank 1 of 2 processes, on {socket.gethostname()}: ValueError: out of luck"
    assert errors(done.stdout) == [f"error: {told}"]
    run = summary(the_only_run(tmp_path))
    assert (run["status"], run["error"]) == ("failed", f"UserError: {told}")


def test_one_process_by_torchrun_trains_as_if_started_by_itself(
    start: Start, tiny: Tiny, tmp_path: Path
) -> None:
    words = tiny("data.batch_size=4", "hydra.run.dir=RUN")
    by_itself = [word.replace("RUN", "alone") for word in words]
    assert start("trainer=cpu", *by_itself).wait().returncode == 0
    started = [word.replace("RUN", "started") for word in words]
    torchrun = by_torchrun("trainer=ddp", "trainer.accelerator=cpu", *started, processes=1)
    done = start(*torchrun, module=TORCHRUN).wait()
    assert done.returncode == 0, done.stdout
    for name, expected in trained(tmp_path / "alone").items():
        assert torch.equal(trained(tmp_path / "started")[name], expected), name


@pytest.mark.parametrize("to", ["torchrun", "rank 1", "all ranks"])
def test_signals_end_all_processes_at_one_step_which_is_saved(
    start: Start, tiny: Tiny, tmp_path: Path, to: str
) -> None:
    words = tiny("trainer=ddp_sim", "data.batch_size=1", "trainer.max_epochs=40", "callback=ema")
    training = start(*by_torchrun(*words), module=TORCHRUN)
    run = wait_for(tmp_path / "logs/train/runs", "*/metrics.csv").parent
    while "epoch 2" not in (run / "train.log").read_text():
        time.sleep(0.05)
    ranks = {"torchrun": [], "rank 1": [1], "all ranks": [0, 1]}[to]
    for process in [of_rank(rank, tmp_path) for rank in ranks] or [training.pid]:
        os.kill(process, signal.SIGTERM)
    done = training.wait()
    assert done.returncode != 0
    assert summary(run)["status"] == "interrupted", done.stdout
    assert "forcefully exiting" not in done.stdout and "Traceback (most recent" not in (
        (run / "train.log").read_text()
    )
    saved = read_checkpoint(run / "checkpoints" / "last.ckpt")
    resumed = start(
        *by_torchrun(f"resume={run}", f"trainer.max_epochs={saved['epoch'] + 2}"), module=TORCHRUN
    ).wait()
    assert resumed.returncode == 0, resumed.stdout
    assert summary(run)["epochs"] == saved["epoch"] + 2


def wait_for(folder: Path, pattern: str) -> Path:
    for _ in range(600):
        if found := sorted(folder.glob(pattern)):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {pattern} in {folder}")


def of_rank(rank: int, folder: Path) -> int:
    """The process id of a rank that works in a folder."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environ = (place / "environ").read_bytes().split(b"\0")
            here = (place / "cwd").resolve() == folder
        except OSError:
            continue
        if here and f"RANK={rank}".encode() in environ:
            return int(place.name)
    raise AssertionError(f"there is no process of rank {rank}")


def test_an_error_in_all_processes_is_told_once(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    words = ["trainer=ddp_sim", "data.batch_size=2"]
    done = start(*by_torchrun(*tiny(*words, "model=unt")), module=TORCHRUN).wait()
    assert done.returncode == 1
    assert len(errors(done.stdout)) == 1, done.stdout
    assert "unet" in errors(done.stdout)[0]
    assert not (tmp_path / "logs").exists()

    words += ["optimizer=sgd", "optimizer.lr=1e30"]
    done = start(*by_torchrun(*tiny(*words)), module=TORCHRUN).wait()
    assert done.returncode == 1
    assert len(errors(done.stdout)) == 1, done.stdout
    assert "Try a lower optimizer.lr" in errors(done.stdout)[0]
    run = the_only_run(tmp_path)
    assert summary(run)["status"] == "failed"
    assert "loss is" in summary(run)["error"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trainer=cpu",), r"torchrun started 2 processes of one training.*add trainer=ddp$"),
        (("trainer=ddp_sim", "-m"), "start the processes of one training, and this is a sweep"),
        (
            ("trainer=ddp_sim", "data.batch_size=8"),
            "larger than the 7 training images of each of the",
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    start: Start, tiny: Tiny, words: tuple[str, ...], told: str
) -> None:
    done = start(*by_torchrun(*tiny(*words)), module=TORCHRUN).wait()
    assert done.returncode == 1
    (error,) = errors(done.stdout)
    assert re.search(told, error), error


@pytest.mark.parametrize(
    ("words", "processes", "images"),
    [(("data.overfit=2",), 3, "2 training"), ((), 4, "3 val")],
)
def test_more_processes_than_images_are_refused(
    start: Start, tiny: Tiny, words: tuple[str, ...], processes: int, images: str
) -> None:
    given = tiny("trainer=ddp_sim", "data.batch_size=2", *words)
    done = start(*by_torchrun(*given, processes=processes), module=TORCHRUN).wait()
    assert done.returncode == 1
    (error,) = errors(done.stdout)
    told = f"{processes} processes would share {images} images: start fewer processes"
    assert told in error


@pytest.mark.parametrize("fewer", [["test=false"], []])
def test_a_test_of_fewer_images_than_processes_is_refused_before_the_training(
    tiny: Tiny, tmp_path: Path, fewer: list[str]
) -> None:
    cfg = compose([*tiny("trainer=ddp_sim", *fewer), f"hydra.run.dir={tmp_path / 'run'}"])
    datamodule, *_ = seeded_parts(cfg, Trust())
    object.__setattr__(datamodule.splits, "test", datamodule.splits.test[:1])
    trainer = build_trainer(cfg)
    assert trainer.world_size == 2
    if fewer:
        check_shares(cfg, datamodule, trainer)
        return
    with pytest.raises(UserError, match=r"2 processes would share 1 test image: .*test=false"):
        check_shares(cfg, datamodule, trainer)


@pytest.mark.parametrize(
    "words", [["trainer.devices=2"], ["trainer.devices=2", "+trainer.strategy=ddp"]]
)
def test_several_devices_without_a_way_to_start_them_are_refused(
    start: Start, tiny: Tiny, words: list[str]
) -> None:
    done = start(*tiny("trainer=cpu", *words)).wait()
    assert done.returncode == 1, done.stdout
    (error,) = errors(done.stdout)
    assert "would start this command several times: add trainer=ddp" in error


def test_the_cores_of_a_tpu_are_spawned(start: Start, tiny: Tiny) -> None:
    done = start(*tiny("trainer=tpu", "trainer.devices=8")).wait()
    (error,) = errors(done.stdout)
    assert "several times" not in error and "trainer=auto takes what this machine has" in error


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def of_srun(rank: int, port: int) -> dict[str, str]:
    """What srun says to a process of a step of two on two machines."""
    return {
        **{"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank)},
        **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"},
        **{"SLURM_STEP_NODELIST": "localhost,other", "SLURM_STEP_NUM_NODES": "2"},
        **{"SLURM_NODEID": str(rank), "SLURM_JOB_NAME": "train", "SLURM_NNODES": "2"},
        "MASTER_PORT": str(port),
    }


def test_what_srun_starts_is_one_training(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    words, port = tiny("trainer=ddp_sim", "data.batch_size=2"), free_port()
    both = [start(*words, **of_srun(rank, port)) for rank in (1, 0)]
    follower, leader = [process.wait() for process in both]
    assert leader.returncode == follower.returncode == 0, leader.stdout + follower.stdout
    assert follower.stdout == ""
    run = the_only_run(tmp_path)
    assert summary(run)["status"] == "completed"
    again, port = [f"resume={run}", "trainer.max_epochs=3"], free_port()
    both = [start(*again, **of_srun(rank, port)) for rank in (1, 0)]
    follower, leader = [process.wait() for process in both]
    assert leader.returncode == follower.returncode == 0, leader.stdout + follower.stdout
    assert follower.stdout == "" and "epoch 3 of 3" in leader.stdout


def test_a_trainer_for_several_that_the_command_does_not_name_is_refused_by_srun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = compose(["trainer=ddp_sim"])  # or by an experiment, which the words don't show
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match=r"srun started 2 processes, .*add trainer=ddp to it"):
        build_trainer(cfg)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert build_trainer(cfg).world_size == 2


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("trainer.max_epochs=3", "has another config than rank 0, trainer.max_epochs=3 and not"),
        ("data.root=FOLDER", "FOLDER"),
        ("paths.log_dir=elsewhere", None),
    ],
)
def test_processes_that_differ_are_refused_before_the_first_step(
    start: Start, tiny: Tiny, tmp_path: Path, other: str, told: str | None
) -> None:
    words, port = tiny("trainer=ddp_sim", "data.batch_size=2"), free_port()
    other = other.replace("FOLDER", str(tmp_path / "nowhere"))
    follower = start(*words, other, **of_srun(1, port))
    leader = start(*words, **of_srun(0, port)).wait()
    if told is None:
        assert leader.returncode == 0, leader.stdout
        return
    assert (leader.returncode, follower.wait().returncode) == (1, 1)
    (error,) = errors(leader.stdout)
    assert f"error: rank 1 of 2 processes, on {socket.gethostname()}" in error
    assert told.replace("FOLDER", "nowhere") in error
    assert follower.wait().stdout == ""
    assert summary(the_only_run(tmp_path))["status"] == "failed"


def test_other_code_on_another_machine_is_refused(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "segpets", copy / "segpets", ignore=shutil.ignore_patterns("pets_mini"))
    (copy / "segpets" / "data" / "pets_mini").symlink_to(ROOT / "segpets" / "data" / "pets_mini")
    (copy / "conf").symlink_to(ROOT / "conf")
    with (copy / "segpets" / "module.py").open("a") as changed:
        changed.write("\n# a line that the other machine hasn't\n")
    words, port = tiny("trainer=ddp_sim", "data.batch_size=2"), free_port()
    environment = os.environ | of_srun(1, port) | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "segpets.train", *words]
    with (tmp_path / "follower.txt").open("w") as said:
        follower = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=said)
    leader = start(*words, **of_srun(0, port)).wait()
    assert (leader.returncode, follower.wait(60)) == (1, 1), leader.stdout
    (error,) = errors(leader.stdout)
    assert "rank 1 of 2 processes" in error and "other code" in error
    assert summary(the_only_run(tmp_path))["status"] == "failed"


def test_in_a_batch_script_of_slurm_processes_are_started_as_elsewhere(
    start: Start, tiny: Tiny, tmp_path: Path
) -> None:
    batch = {
        **{"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1"},
        **{"SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"},
        **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    }
    done = start(*tiny("trainer=ddp_sim", "data.batch_size=2"), **batch).wait()
    assert done.returncode == 0, done.stdout
    run = the_only_run(tmp_path)
    assert summary(run)["status"] == "completed"
    with (run / "metrics.csv").open() as file:
        steps = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert len(steps) == 2 * 3, "of 15 images, 2 for each of two processes a step"


LINKED = """
ip netns add {a} && ip netns add {b} && ip link add {va} type veth peer name {vb} &&
ip link set {va} netns {a} && ip link set {vb} netns {b} &&
ip -n {a} addr add 10.213.7.1/24 dev {va} && ip -n {b} addr add 10.213.7.2/24 dev {vb} &&
ip -n {a} link set lo up && ip -n {b} link set lo up &&
ip -n {a} link set {va} up && ip -n {b} link set {vb} up
"""


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces that are linked, as two machines are: device by name."""
    names = {key: f"seg{key}{os.getpid()}" for key in ("a", "b", "va", "vb")}
    made = subprocess.run(["sh", "-c", LINKED.format(**names)], capture_output=True, text=True)
    try:
        if made.returncode:
            pytest.skip(f"only root of a system with iproute2 may link namespaces: {made.stderr}")
        yield {names["a"]: names["va"], names["b"]: names["vb"]}
    finally:
        for name in ("a", "b"):
            subprocess.run(["ip", "netns", "del", names[name]], capture_output=True)


def test_two_machines_are_one_training(
    machines: dict[str, str], tiny: Tiny, tmp_path: Path
) -> None:
    words = tiny("trainer=ddp_sim", "data.batch_size=2")
    outputs, running = [], []
    for rank, (machine, device) in reversed(list(enumerate(machines.items()))):
        where = ["--nnodes=2", f"--node-rank={rank}", "--master-addr=10.213.7.1"]
        run = [sys.executable, "-m", TORCHRUN, *where, "--nproc-per-node=1", "-m", "segpets.train"]
        outputs.append(tmp_path / f"{rank}.txt")
        with outputs[-1].open("w") as output:
            running.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", machine, *run, *words],
                    stdout=output,
                    stderr=output,
                    cwd=tmp_path,
                    env=os.environ | {"GLOO_SOCKET_IFNAME": device, "PYTHONPATH": str(ROOT)},
                )
            )
    assert [process.wait(300) for process in running] == [0, 0], outputs[1].read_text()
    assert "epoch 2 of 2" in outputs[1].read_text()
    assert "epoch" not in outputs[0].read_text()
    assert summary(the_only_run(tmp_path))["status"] == "completed"


def test_a_killed_process_goes_on_where_machines_meet_by_c10d(
    start: Start, tiny: Tiny, tmp_path: Path
) -> None:
    """Only the machine whose process was killed counts that it was started again."""
    words = tiny(
        *("trainer=ddp_sim", "data.batch_size=2", "trainer.max_epochs=4"),
        "callback.best_and_last.every_n_steps=2",
    )
    undisturbed = start(*by_torchrun(*words, "hydra.run.dir=a"), module=TORCHRUN).wait()
    assert undisturbed.returncode == 0, undisturbed.stdout
    where = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    where += ["--nproc-per-node=1", "--max-restarts=1", "-m", "segpets.train", *words]
    machines = [start(*where, module=TORCHRUN) for _ in range(2)]
    log = wait_for(tmp_path / "logs/train/runs", "*/metrics.csv")
    run = log.parent
    while "epoch 2" not in (run / "train.log").read_text():
        time.sleep(0.05)
    os.kill(of_rank(1, tmp_path), signal.SIGKILL)
    done = [machine.wait() for machine in machines]
    assert [one.returncode for one in done] == [0, 0], done[0].stdout + done[1].stdout
    assert the_only_run(tmp_path) == run
    for name, expected in trained(tmp_path / "a").items():
        assert torch.equal(trained(run)[name], expected), name
