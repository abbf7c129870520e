"""The run directory: atomic, locked, found again; names that every tool can take."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segpets.errors import UserError
from segpets.run.directory import Run, find_run, read_summary
from segpets.run.files import point, write_atomically
from segpets.run.lock import check_new
from segpets.run.names import safe_name, sweep_name
from segpets.run.versions import git_revision, versions

ROOT = Path(__file__).parents[2]

HOLDER = """
import sys, time
from pathlib import Path
from omegaconf import OmegaConf
from segpets.run.directory import Run

with Run(Path(sys.argv[1])).hold(OmegaConf.create({"seed": 1})) as run:
    run.update(epochs=3)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """A live process that holds the run tmp_path/run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    write_atomically(file, "old")
    with pytest.raises(TypeError):
        write_atomically(file, 5)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    write_atomically(file, "new")
    assert file.read_text() == "new"
    write_atomically(file, "a file's name that is no text: \udcff")
    assert file.read_text() == "a file's name that is no text: \\udcff"
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_run_records_how_it_ends(tmp_path: Path) -> None:
    endings = {
        "completed": None,
        "failed": ValueError("the loss is nan"),
        "interrupted": KeyboardInterrupt(),
    }
    for status, error in endings.items():
        path = tmp_path / status
        try:
            with Run(path).hold({"seed": 1}) as run:
                assert read_summary(path)["status"] == "running"
                run.update(**{"val/mean_iou": 0.5})
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt) as raised:
            assert raised is error
        summary = read_summary(path)
        assert summary["status"] == status
        assert summary["val/mean_iou"] == 0.5
        assert summary["error"] == ("ValueError: the loss is nan" if status == "failed" else None)
        assert (path / "config.yaml").read_text() == "seed: 1\n"


def test_a_full_disk_interrupts_a_run_which_then_goes_on(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"), Run(tmp_path).hold({"seed": 1}):
        raise full
    summary = read_summary(tmp_path)
    assert summary["status"] == "interrupted"
    assert summary["error"] == "OSError: [Errno 28] No space left on device"
    with Run(tmp_path).hold({"seed": 1}, resuming=True):
        assert read_summary(tmp_path)["error"] is None
    assert read_summary(tmp_path)["status"] == "completed"


def test_a_run_that_lives_is_running_and_cannot_be_entered(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    path = tmp_path / "run"
    try:
        assert read_summary(path)["status"] == "running"
        before = (path / "summary.json").read_bytes()
        host = socket.gethostname()
        for resuming in (False, True):
            with (
                pytest.raises(UserError, match=rf"is being written by process \d+ on {host}"),
                Run(path).hold({"seed": 2}, resuming=resuming),
            ):
                raise AssertionError("entered")
        assert (path / "summary.json").read_bytes() == before
        assert (path / "config.yaml").read_text() == "seed: 1\n"
    finally:
        holder.kill()
        holder.communicate()


def test_a_run_that_was_killed_is_interrupted_and_can_go_on(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    path = tmp_path / "run"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert json.loads((path / "summary.json").read_text())["status"] == "running"
    assert read_summary(path)["status"] == "interrupted"
    with Run(path).hold({"seed": 1}, resuming=True) as run:
        assert read_summary(path)["status"] == "running"
        assert run.summary["epochs"] == 3
    assert read_summary(path)["status"] == "completed"


def test_a_second_run_overwrites_nothing(tmp_path: Path) -> None:
    with Run(tmp_path).hold({"seed": 1}) as run:
        run.update(epochs=3)
    before = (tmp_path / "summary.json").read_bytes()
    with (
        pytest.raises(UserError, match=r"already holds a run: .*hydra\.run\.dir.*resume=RUN"),
        Run(tmp_path).hold({"seed": 2}),
    ):
        raise AssertionError("entered")
    assert (tmp_path / "summary.json").read_bytes() == before
    assert (tmp_path / "config.yaml").read_text() == "seed: 1\n"


def test_runs_are_found(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    with Run(run).hold({}):
        pass
    point(tmp_path / "latest", run)
    assert find_run("latest", log_dir=tmp_path) == run
    assert find_run(run, log_dir=Path("elsewhere")) == run
    with pytest.raises(UserError, match="init_from=nowhere: there is no folder"):
        find_run("nowhere", log_dir=tmp_path, key="init_from")
    with pytest.raises(UserError, match=r"Did you mean run=latest\?"):
        find_run("latst", log_dir=tmp_path)
    with pytest.raises(UserError, match=r"train first, .* \(train_log_dir=FOLDER says where\)"):
        find_run("latest", log_dir=tmp_path / "runs")
    with pytest.raises(UserError, match=r"\(paths\.log_dir=FOLDER says where\)"):
        find_run("latest", log_dir=tmp_path / "runs", key="resume")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").touch()
    directory = re.escape(f"give the directory of its run, run={run}, and checkpoint=best or last")
    with pytest.raises(UserError, match=directory):
        find_run(run / "checkpoints" / "best.ckpt", log_dir=tmp_path)
    with pytest.raises(UserError, match=r"is no run, it holds no summary\.json"):
        find_run(tmp_path / "runs", log_dir=tmp_path)
    (run / "summary.json").write_text('{"status": ')
    with pytest.raises(UserError, match=r"summary\.json can't be read"):
        read_summary(run)


def test_latest_moves_and_replaces_nothing_real(tmp_path: Path) -> None:
    first, second = tmp_path / "runs" / "1", tmp_path / "runs" / "2"
    for folder in (first, second):
        folder.mkdir(parents=True)
    latest = tmp_path / "latest"
    for target in (first, second):
        point(latest, target)
        assert latest.resolve() == target
    assert not Path(os.readlink(latest)).is_absolute()  # logs/ can be moved or mounted elsewhere
    second.rmdir()  # a dangling link is moved, too
    point(latest, first)
    assert latest.resolve() == first

    latest.unlink()
    latest.mkdir()
    (latest / "mine.txt").write_text("mine")
    point(latest, first)
    assert (latest / "mine.txt").read_text() == "mine"
    (file := tmp_path / "file").write_text("mine")
    point(file, first)
    assert file.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "runs", "file"}


def test_runs_of_the_same_second_differ() -> None:
    code = "from segpets.config import compose; print(compose().paths.output_dir)"
    command = [sys.executable, "-c", code]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)
    ]
    folders = {process.communicate()[0].strip() for process in started}
    assert len(folders) == 4
    for folder in folders:
        name = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}"
        assert re.fullmatch(name, Path(folder).name)
        assert Path(folder).parent == ROOT / "logs" / "train" / "runs"


def test_versions_name_all_that_a_result_depends_on() -> None:
    found = versions()
    assert {"segpets", "git", "python", "torch", "lightning", "hydra-core"} <= found.keys()
    assert all(found[name] for name in found.keys() - {"git"})
    revision = git_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", revision)


def test_the_code_revision_changes_with_what_trains_only(tmp_path: Path) -> None:
    package = tmp_path / "segpets"
    pictures = shutil.ignore_patterns("pets_mini", "__pycache__")
    shutil.copytree(ROOT / "segpets", package, ignore=pictures)

    def revision() -> str:
        code = "from segpets.run.versions import code_revision; print(code_revision())"
        line = [sys.executable, "-c", code]
        return subprocess.run(
            line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True
        ).stdout.strip()

    before = revision()
    assert re.fullmatch(r"[0-9a-f]{12}", before)
    for name in ("compare/page.py", "report/page.py", "sweep/grid.py"):
        with (package / name).open("a") as file:
            file.write("# another message\n")
    assert revision() == before
    (package / "model" / "mine.py").write_text("")  # the user's own
    mine = revision()
    assert mine != before
    with (package / "loss" / "dice.py").open("a") as file:
        file.write("# another loss\n")
    assert revision() not in (before, mine)


NASTY = [
    "model=unet",
    "model=unet,loss=dice",
    "model=unet_loss=dice",
    "a=1,b_c=2",
    "a=1_b,c=2",
    "model=unet loss=dice",
    "",
    "default",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "a.b",
    "a_b",
    "a-b",
    "a,b",
    "a=b",
    "seed=1",
    "seed=-1",
    "optimizer.lr=0.001",
    "optimizer.lr=0-001",
    "model.widths=[4,8]",
    "model.widths=[4,16]",
    "model.widths=[48]",
    "tags=[größe]",
    "tags=[grösse]",
    "tags=[犬]",
    "tags=[猫]",
    "x" * 500,
    "x" * 501,
    "x" * 499 + "y",
    "-rf",
    "~debug",
    "+new=1",
    "new=1",
    "a\nb",
    "a\0b",
    "model='a b'",
    "A=B",
]


@pytest.mark.parametrize("overrides", NASTY, ids=range(len(NASTY)))
def test_a_name_can_be_pasted_anywhere(overrides: str) -> None:
    name = safe_name(overrides)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name)
    assert not name.startswith(("-", "."))
    assert safe_name(overrides) == name


def test_different_overrides_have_different_names() -> None:
    # Upper and lower case are the same name on some file systems. Names without "=" and the like
    # are those of sweeps, which lie in a folder of their own.
    names: dict[str, str] = {}
    for overrides in NASTY:
        kind = "sweep" if re.fullmatch(r"[A-Za-z0-9._-]+", overrides) else "job"
        other = names.setdefault(f"{kind}/{safe_name(overrides).lower()}", overrides)
        assert other.lower() == overrides.lower(), (other, overrides)


def test_a_name_tells_what_it_stands_for() -> None:
    assert safe_name("loss=dice,model=unet_dsc") == "loss-dice__model-unet_dsc"
    assert safe_name("optimizer.lr=0.001") == "optimizer.lr-0.001"
    assert safe_name("my-sweep_2") == "my-sweep_2"
    assert safe_name("") == "default"


COMMON = (
    "data=oxford_pets,data.batch_size=4,data.root=/home/someone/data/pets,data.size=32,"
    "loss={},model.widths=[4,8],seed={},trainer=cpu,trainer.log_every_n_steps=1,"
    "trainer.max_epochs=40,trainer.precision=32,zebra=1"
)


def test_a_long_name_keeps_something_of_each_override() -> None:
    # 12 overrides in 100 letters: keys are cut before values, and of a path the end is kept.
    dice = safe_name(COMMON.format("dice", 1))
    parts = dice.split("__")
    assert len(parts) == 12
    assert {"lo-dice", "se-1", "wi-4-8", "tr-cpu", "ma-40", "pr-32"} <= set(parts)
    assert parts[2].endswith("pets")
    assert parts[4:7] == ["lo-dice", "wi-4-8", "se-1"]
    # What tells two jobs apart can be read, and is all that tells their names apart.
    for loss, seed, word, other in [
        ("dice", 2, "se-1", "se-2"),
        ("mine", 1, "lo-dice", "lo-mine"),
    ]:
        name = safe_name(COMMON.format(loss, seed)).split("__")[:-1]
        assert name == [other if part == word else part for part in parts[:-1]]


def test_a_long_value_takes_no_room_from_the_others() -> None:
    for long in ("x" * 500, "['a b,c=d " + "x" * 500 + "']", "/a/very" + "/long" * 90, "犬" * 500):
        name = safe_name(f"loss=dice,model.tag={long},optimizer.lr=0.001,seed=12")
        parts = name.split("__")
        assert parts[0] == "loss-dice"
        assert any(part.startswith("model.tag") for part in parts)
        assert parts[-2] == "optimizer.lr-0.001"
        assert re.fullmatch(r"seed-12-[0-9a-f]{8}", parts[-1])
        assert len(name) <= 100


def test_names_that_fit_stay_as_they_are() -> None:
    # Directories of sweeps that were begun must be found again.
    assert safe_name("model.widths=[4,8]") == "model.widths--4__8-98885789"
    text = ",".join(f"key{index}=value{index}" for index in range(7))
    assert len(safe_name(text)) == 89
    assert safe_name(text) == text.replace(",", "__").replace("=", "-")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("a=" + "b" * 98, "a-" + "b" * 98),  # a hundred letters fit
        ("a=" + "b" * 99, "a-" + "b" * 89 + "-78a0451d"),
        (
            f"optimizer.weight_decay={'7' * 60},optimizer.lr={'3' * 40}",
            f"optimizer.weight_decay-{'7' * 26}__optimizer.lr-{'3' * 26}-9192ef6c",
        ),
        (
            "model.widths=[16,32,64,128,256],data.root=/somewhere/quite/far/away/from/here/pets,"
            "loss=combined,optimizer.lr=0.005",
            "model.widths-16-32-64-128-25__data.root-from-here-pets__loss-combined__"
            "optimizer.lr-0.005-ba9bb60c",
        ),
        (
            "callback=default,callback.standard.every=2,data=oxford_pets,data.batch_size=4,"
            "data.root=/home/someone/data/pets,data.size=32,loss=dice,model.widths=[4,8],seed=1,"
            "trainer=cpu,trainer.log_every_n_steps=1,trainer.max_epochs=40,trainer.precision=32,"
            "zebra=1",
            "c-def__e-2__d-oxf__b-4__r-ets__s-32__l-dic__w-4-8__s-1__t-cpu__l-1__m-40__p-32__z-1-"
            "1dda33f5",
        ),
        (",".join(f"k{i}=v{i}" for i in range(40)), "k-v__" * 18 + "k-76296af8"),
    ],
)
def test_the_jobs_of_sweeps_that_were_begun_have_these_names(overrides: str, name: str) -> None:
    assert safe_name(overrides) == name
    assert len(name) <= 100


def test_a_sweep_is_found_again_whatever_the_order() -> None:
    assert sweep_name(["a=1", "b=2"]) == sweep_name(["b=2", "a=1"])
    assert sweep_name(["a=1", "b=2"]) != sweep_name(["a=1", "b=3"])
    assert sweep_name(["a=1,b=2"]) != sweep_name(["a=1", "b=2"])


def test_the_seconds_of_a_run_are_those_of_all_its_parts(tmp_path: Path) -> None:
    config = OmegaConf.create({"seed": 1})
    with Run(tmp_path / "a").hold(config) as run:
        before = run.seconds
        time.sleep(0.2)
        assert 0 <= before < 60 and run.seconds - before >= 0.2
    file = tmp_path / "a" / "summary.json"
    assert 0 <= json.loads(file.read_text())["seconds"] < 60
    file.write_text(json.dumps({"status": "interrupted", "seconds": 1000}))
    with Run(tmp_path / "a").hold(config, resuming=True) as run:
        assert 1000 <= run.seconds < 1060
    file.write_text(json.dumps({"status": "interrupted"}))  # killed before it wrote any
    with Run(tmp_path / "a").hold(config, resuming=True) as run:
        assert 0 <= run.seconds < 60


def test_names_of_earlier_sweeps_jobs_are_found_again() -> None:
    """They must not change: a sweep finds its jobs by them."""
    long = ",".join(f"model.some_long_key_{i}={'v' * 30}{i}" for i in range(4))
    path = f"data.root=/a/very/long/path/of/somebody/{'x' * 80}/end,model.widths=[16,32,64]"
    cut = f"some_lon-{'v' * 12}"
    names = [safe_name(text) for text in (long, path, "a" * 101, f"{'k' * 60}={'v' * 39}")]
    assert names == [
        f"{cut}__{cut}__{cut}__{cut}-b1a754a0",
        f"data.root-{'x' * 54}-end__model.widths-16-32-64-317d56bd",
        f"{'a' * 91}-9d079339",
        f"{'k' * 60}-{'v' * 39}",
    ]


def test_latest_is_found_where_its_folder_is_a_link(tmp_path: Path) -> None:
    disk, project = tmp_path / "mnt" / "a" / "b" / "logs", tmp_path / "project"
    (disk / "train" / "runs" / "one").mkdir(parents=True)
    project.mkdir()
    (project / "logs").symlink_to(disk)
    latest = project / "logs" / "train" / "latest"
    point(latest, (project / "logs" / "train" / "runs" / "one").resolve())
    assert latest.resolve() == disk / "train" / "runs" / "one" and latest.is_dir()


@pytest.mark.parametrize("name", [".lock", "sweep.json"])
def test_what_is_there_beside_a_foreign_lock_or_a_sweep_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("{}")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match=r"isn't empty|is the folder of a sweep"):
        check_new(tmp_path, "train")
    (tmp_path / name).unlink()
    (tmp_path / ".lock").write_text("process 1 on here\n")
    check_new(tmp_path, "train")
