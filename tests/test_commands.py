"""Every command of README.md and docs/: composed at once, and given for real by the slow tests.

What a page shows in a block, or between backticks, is a command. Long ones are given with
`debug=smoke`, few images and small nets, so that they take seconds.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_data import LAYOUTS, archives
from PIL import Image

from segpets.config import compose
from segpets.train import Result

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("make", "pip", "python", "source", "tensorboard")
# The page of errors gives its own answers, and test_docs.py compares them. The others need what
# their pages describe, which these tests make.
MINE = "PYTHONPATH=mine python -m segpets.train --config-dir mine/conf model=tiny"
USED = "PYTHONPATH=mine python -m segpets.{} --config-dir mine/conf run=latest"
TWO_MACHINES = "--nnodes=2 --node-rank=0 --master-addr=node-a --nproc-per-node=4"
ELSEWHERE = {
    "python predict.py model.onnx cat.jpg mask.png": "test_export.py",
    "python -m segpets.train model=tiny": "test_readme.py",
    f"{MINE} model.width=32": "test_docs.py",
    f"{MINE} loss=squared_error": "test_docs.py",
    USED.format("evaluate"): "test_docs.py",
    f"{USED.format('predict')} source=photos output=predicted": "test_docs.py",
    "torchrun --standalone --nproc-per-node=2 -m segpets.train trainer=ddp": "test_together.py",
    "DRY=1 scripts/gpu.sh": "test_benchmarks.py",
    "python scripts/results.py --write": "test_results.py",
    "PETS=FOLDER scripts/gpu.sh": "test_benchmarks.py",
    f"torchrun {TWO_MACHINES} -m segpets.train trainer=ddp": "test_together.py",
    "srun --nodes=2 --ntasks-per-node=4 python -m segpets.train trainer=ddp": "test_together.py",
}
NOT_COMMANDS = re.compile(
    r"    (  |logs/|\$ |error: )|.*`ddp` was run|.*measured on CPUs|    machines, but"
)


# The scripts of the log, with what makes them short.
ONE_PEER = ("--peers", "bare", "--models", "unet")
EPOCHS_OF_1600 = (
    "python benchmarks/epochs.py --root FOLDER --peers bare --models unet vit_tiny "
    "--images 1600 --rounds 1"
)
BENCHMARKS = {
    "python benchmarks/data.py --root FOLDER": [],
    "python benchmarks/memory.py": ["--counts", "100", "200"],
    "python benchmarks/memory.py --train": ["--counts", "100", "200"],
    "python benchmarks/sweep.py": ["--jobs", "2"],
    "python benchmarks/train_step.py": ["--models", "unet", "--rounds", "1", "--steps", "2"],
    "python benchmarks/epochs.py": [*ONE_PEER, "--images", "36", "--rounds", "1"],
    EPOCHS_OF_1600: [*ONE_PEER, "--images", "36"],
    "python benchmarks/estimate.py": ["--models", "unet"],
}


def program(line: str) -> str:
    """The first word that sets no variable."""
    return next((word for word in line.split() if not re.match(r"[A-Z_]+=", word)), "")


def shown() -> list[tuple[str, str]]:
    """(page, command): the lines of blocks, and the commands between backticks."""
    found = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for line in re.findall(r"^    .+$", text, re.MULTILINE):
            if not NOT_COMMANDS.match(line):
                found.append((name, line.strip()))
        for span in re.findall(r"`([^`\n]+ [^`\n]+)`", text):
            if program(span) in PROGRAMS:
                found.append((name, span))
    return list(dict.fromkeys(found))


SHOWN = shown()
SEGPETS = [
    (page, *match.groups())
    for page, line in SHOWN
    if line not in ELSEWHERE and (match := re.fullmatch(r"python -m segpets\.(\w+)(.*)", line))
]


QUICK = ("README.md", "docs/get-started.md", "docs/errors.md")
"""Pages whose commands the fast suite composes; those of all others, the slow one."""


def of(name: str) -> list[str]:
    """The commands of one program, each once."""
    return sorted({line for _, line in SHOWN if program(line) == name})


def test_each_command_of_a_page_is_one_that_these_tests_give() -> None:
    given = {f"python -m segpets.{task}{words}" for _, task, words in SEGPETS}
    given |= {*ELSEWHERE, *BENCHMARKS, *of("make"), *of("pip"), *of("source"), *of("tensorboard")}
    assert [(page, line) for page, line in SHOWN if line not in given] == []
    assert set(ELSEWHERE) | set(BENCHMARKS) <= {line for _, line in SHOWN}


def compose_words(words: str, folder: Path) -> list[str]:
    """The first job's overrides of a command of a page."""
    found = []
    skip = False
    for word in shlex.split(words.replace("FOLDER", str(folder))):
        if skip or word in ("-m", "--config-dir"):
            skip = word == "--config-dir"
            continue
        if "hydra/launcher" in word or "hydra.launcher" in word:  # packages of their own
            continue
        first = re.sub(r"=([^\[,({'\"]*),.*", r"=\1", word)
        found.append(re.sub(r"=tag\(log,interval\(([^,]*),.*", r"=\1", first))
    return found


@pytest.mark.parametrize(
    ("page", "task", "words"),
    [case if case[0] in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in SEGPETS],
)
def test_a_command_of_a_page_composes(
    page: str, task: str, words: str, tmp_path: Path, finished: Result
) -> None:
    overrides = compose_words(words, tmp_path)
    there = [w.replace("run=latest", f"run={finished.path}") for w in overrides]
    assert compose(there, task=task).task_name == task


# What this machine may lack; the answer then says what to do.
DEVICES = {"trainer=gpu", "trainer=mps", "trainer=tpu", "trainer=ddp"}


@dataclass
class Place:
    """A folder in which the commands of the pages are given, one after the other.

    It holds a sweep `first` and, as `latest`, a run, of seconds.
    """

    path: Path
    pets: Path

    def give(self, module: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"} | env
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )

    def give_file(self, name: str) -> subprocess.CompletedProcess[str]:
        return shell(f"python {name}", self.path, OMP_NUM_THREADS="1")

    def data(self, words: list[str]) -> Path:
        """The folder that FOLDER stands for."""
        layout = next((w[5:] for w in words if w.startswith("data=") and w[5:] in LAYOUTS), None)
        if layout is None:
            return self.pets
        four, deep = "data.channels=4" in words, "data.range=[0,4095]" in words
        root = self.path / f"made_{layout}{'_of_4_channels' * four}{'_of_12_bits' * deep}"
        if root.exists():
            return root
        LAYOUTS[layout](root)
        for file in [*(root / "images").glob("*.jpg")] if four or deep else []:
            picture = Image.open(file).convert("RGBA" if four else "L")
            if deep:
                picture = Image.fromarray(16 * np.asarray(picture, dtype=np.uint16))
            picture.save(file.with_suffix(".png"))
            file.unlink()
        return root

    def shortened(self, task: str, words: list[str]) -> list[str]:
        """The words of a page, with which a command takes seconds instead of minutes."""
        folder = str(self.data(words))
        words = [word.replace("FOLDER", folder) for word in words]
        words = [word.replace("=docs/", f"={ROOT}/docs/") for word in words]
        if task == "benchmark":
            words = [word for word in words if not word.startswith("variants=")]
            return [*words, "variants=[channels_last]", "seconds=0.1", "batch_sizes=[1]"]
        if task == "export" or (task == "predict" and (self.path / "predicted").exists()):
            return [*words, "overwrite=true"]  # another page may have done it before
        if task != "train":
            return words
        if "debug=replay" in words:  # of a step of a run that went well
            words.append("replay_step=1")
        elif not any(word.startswith("resume=") for word in words):
            words.append("debug=smoke")
        swaps = {
            "trainer.max_epochs=40": "trainer.max_epochs=3",
            "n_trials=20": "n_trials=2",
            "hydra/launcher=submitit_slurm": "hydra/launcher=submitit_local",
            "hydra.launcher.partition=gpu": "",  # of SLURM only
            "hydra.launcher.ray.init.address=auto": "+hydra.launcher.ray.init.num_cpus=2",
            "+hydra.launcher.ray.remote.num_gpus=0.5": "+hydra.launcher.ray.remote.num_cpus=0.5",
        }
        words = [swaps.get(word, word) for word in words]
        if "data.download=true" in words:
            mirror = self.path / "mirror"
            if not mirror.exists():
                archives(mirror, self.pets)
            words = [word for word in words if not word.startswith("data.mirrors=")]
            sums = (
                f"data.checksums.{kind}="
                + hashlib.sha256((mirror / f"{kind}.tar.gz").read_bytes()).hexdigest()
                for kind in ("images", "annotations")
            )
            words += [f"data.mirrors=[{mirror}]", *sums]
        return [word for word in words if word]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_pets: Path) -> Place:
    found = Place(tmp_path_factory.mktemp("place"), tiny_pets)
    for name in ("photos", "more"):
        (found.path / name).mkdir()
        picture = next((tiny_pets / "images").glob("Bombay_*.jpg"))
        (found.path / name / f"{name}.jpg").write_bytes(picture.read_bytes())
    tiny = ["model.widths=[4,8]", "debug=smoke"]
    for words in (["-m", "loss=dice,focal", "seed=1,2", "sweep=first"], []):
        done = found.give("segpets.train", *words, *tiny)
        assert done.returncode == 0, done.stdout
    for seed in (1, 2, 3):  # of which the row of results learns that needs them
        shutil.copytree(
            found.path / "logs/train/latest", found.path / f"logs/results/make_train-{seed}"
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({page for page, _, _ in SEGPETS}))
def test_the_commands_of_a_page_do_what_they_say(page: str, place: Place) -> None:
    for _, task, line in (one for one in SEGPETS if one[0] == page):
        words = place.shortened(task, shlex.split(line))
        done = place.give(f"segpets.{task}", *words)
        if DEVICES & set(words) and not torch.cuda.is_available():
            assert done.returncode == 1, done.stdout
            assert "trainer=auto takes what this machine has" in done.stdout
        else:
            assert done.returncode == 0, f"{words}\n{done.stdout}"
        assert "Traceback" not in done.stdout


def shell(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Gives a line to a shell, in this test's environment; its `python` is this one."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        ["bash", "-euc", script],
        cwd=cwd,
        env=inherited | {"PATH": path, "PYTHONPATH": str(ROOT)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def in_make(line: str) -> str:
    """A command that calls make, from any folder, in this test's environment, with nothing set up.

    What is set up is judged by files beside the environment; -o says that they are there.
    """
    there = " ".join(
        f"-o {sys.prefix}/.segpets-{part}" for part in ("installed", "docs", "notebooks")
    )
    return line.replace("make", f"make -f {ROOT}/Makefile VENV={sys.prefix} {there}", 1)


def lines_shown_for(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", of(name))


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in of("make") if "reproduce" not in line])
def test_a_target_of_make_does_what_the_page_says(line: str, place: Place, tmp_path: Path) -> None:
    target = line.split()[1]
    if target == "tensorboard":
        assert_tensorboard_serves(in_make(line), place.path)
        return
    if target == "results":
        a_row_of_results(tmp_path, "smoke")
    cwd, arguments = {
        "train": (place.path, "debug=smoke"),
        "test": (ROOT, "tests/test_labels.py"),
        "docs": (ROOT, ""),
        "prove-resume": (ROOT, "--kills 2 --each 2 --only vit_tiny"),
        "bench": (ROOT, "--peers bare --models unet --images 36 --rounds 1"),
        "fuzz": (ROOT, "--seed 1"),
        "results": (tmp_path, f"--store {tmp_path}/results"),
        "notebooks": (ROOT, f"02 --to {tmp_path}/pages --work {tmp_path}/work"),
    }[target]
    line = re.sub(r"make fuzz( SECONDS=\d+)?", "make fuzz SECONDS=5", line)
    given = "".join(re.findall(r' ARGS="(.*)"', line)).replace("FOLDER", str(place.pets))
    line = line.partition(" ARGS=")[0]
    if target == "bench":
        line += f' STEPS="{" ".join(BENCHMARKS["python benchmarks/train_step.py"])}"'
    script = in_make(line) + f' ARGS="{given} {arguments}"'
    done = shell(script, cwd)
    assert done.returncode == 0, done.stdout
    expected = {
        "train": "Compare runs: ",
        "test": "passed",
        "docs": "open build/site/index.html",
        "prove-resume": "equal to the last bit",
        "bench": "epochs of 36 images",
        "fuzz": "0 wrong answers",
        "results": "RESULTS.md is written",
        "notebooks": "02_losses_and_metrics: ",
    }
    assert expected[target] in done.stdout
    if target == "results":
        assert "| smoke |" in (tmp_path / "RESULTS.md").read_text()
        assert list((tmp_path / "results").glob("smoke.1.json"))


def test_each_row_that_a_page_reproduces_is_one() -> None:
    known = yaml.safe_load((ROOT / "docs" / "results" / "rows.yaml").read_text(encoding="utf-8"))
    names = {one["name"] for kind in ("rows", "judged", "changes") for one in known[kind]}
    lines = [line for line in of("make") if "reproduce" in line]
    assert {line.partition("ROW=")[2].split()[0] for line in lines} <= names


@pytest.mark.slow
def test_a_row_is_reproduced_beside_what_is_stored(tmp_path: Path) -> None:
    line = next(line for line in of("make") if line == "make reproduce ROW=make_train")
    a_row_of_results(tmp_path, "make_train")
    script = in_make(line) + f' ARGS="--store {tmp_path}/results"'
    first = shell(script, tmp_path)
    assert first.returncode == 0, first.stdout
    stored = tmp_path / "results" / "make_train.1.json"
    content = stored.read_bytes()
    here = json.loads(content)["test/mean_iou"]
    shutil.rmtree(tmp_path / "logs")
    second = shell(script, tmp_path)
    assert second.returncode == 0, second.stdout
    expected = f"make_train, seed 1: mean IoU {here:.4f} here, {here:.4f} stored"
    assert expected in second.stdout
    assert stored.read_bytes() == content


def a_row_of_results(folder: Path, name: str) -> None:
    """Makes a store with a row of a short training, as docs/results has them of long ones."""
    (folder / "scripts").symlink_to(ROOT / "scripts")
    store = folder / "results"
    store.mkdir()
    row = {"name": name, "title": name, "seeds": 1, "minutes": 1, "command": ["debug=smoke"]}
    (store / "rows.yaml").write_text(yaml.safe_dump({"rows": [row], "published": []}))
    shutil.copy(ROOT / "docs" / "results" / "ceiling.json", store)


def assert_tensorboard_serves(line: str, folder: Path) -> None:
    """Starts it, asks it for its runs, and ends it."""
    words = ["--port", "0", "--load_fast", "false"]
    line += f' ARGS="{" ".join(words)}"' if line.startswith("make") else " " + " ".join(words)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    log = folder / "tensorboard.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not (address := re.search(r"http://\S+:\d+/", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        runs: list[str] = []
        while not runs:
            with urllib.request.urlopen(f"{address[0]}data/runs", timeout=60) as answer:
                runs = json.load(answer)
            assert time.monotonic() < until, "it shows no run"
            time.sleep(0.5)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.slow
@lines_shown_for("tensorboard")
def test_tensorboard_serves_the_runs(line: str, place: Place) -> None:
    assert_tensorboard_serves(line, place.path)


@pytest.mark.slow
@lines_shown_for("pip")
def test_an_extra_of_a_page_is_one_that_pip_finds(line: str, tmp_path: Path) -> None:
    done = shell(f"python -m {line} --dry-run", tmp_path, PYTHONPATH="")
    assert done.returncode == 0, done.stdout
    assert "does not provide the extra" not in done.stdout


@lines_shown_for("source")
def test_the_environment_is_entered_as_the_page_says(line: str, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = shell(f"{line} && python -c 'import segpets, sys; print(sys.prefix)'", tmp_path)
    assert done.returncode == 0, done.stdout
    assert Path(done.stdout.strip()).samefile(sys.prefix)


@pytest.mark.slow
@pytest.mark.parametrize("line", BENCHMARKS)
def test_a_script_of_the_log_runs(line: str, tiny_pets: Path, tmp_path: Path) -> None:
    words = line.replace("FOLDER", str(tiny_pets)).replace("benchmarks", str(ROOT / "benchmarks"))
    done = shell(shlex.join([*shlex.split(words), *BENCHMARKS[line]]), tmp_path)
    assert done.returncode == 0, done.stdout


SNIPPETS = [
    (page.relative_to(ROOT).as_posix(), code)
    for page in PAGES
    for code in re.findall(
        r"^```python\n(?!#)(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    if "onnxruntime" not in code  # docs/deploy.md's script: test_export.py gives it a model
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), SNIPPETS)
def test_the_python_of_a_page_runs(page: str, code: str, place: Place) -> None:
    (place.path / "cat.jpg").write_bytes((place.path / "photos" / "photos.jpg").read_bytes())
    code = code.replace('"loss=dice"]', '"loss=dice", "debug=smoke", "logger=csv"]')
    (place.path / "snippet.py").write_text(code)
    done = place.give_file("snippet.py")
    assert done.returncode == 0, done.stdout
