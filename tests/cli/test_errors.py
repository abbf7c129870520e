"""Errors are told in words, with the traceback in the log."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny

from segpets.cli.explain import explain
from segpets.config import conf_dir


def test_the_traceback_shows_when_asked_for(command: Command) -> None:
    done = command("model=unt", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stdout
    assert "Did you mean model=unet?" in done.stdout


@pytest.mark.parametrize("module", ["segpets", "segpets.train"])
def test_a_python_without_the_libraries_is_told(module: str) -> None:
    root = conf_dir().parent
    bare = [sys.executable, "-S", "-E"]  # without site-packages
    done = subprocess.run([*bare, "-m", module], cwd=root, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: this Python ({sys.executable}) has not what segpets needs: "
        "source .venv/bin/activate, or make train\n"
    )
    imported = subprocess.run([*bare, "-c", "import segpets; print(1)"], cwd=root)
    assert imported.returncode == 0


def test_the_log_that_the_message_names_holds_the_traceback(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(
        "from segpets.data import OxfordPets\n\n\n"
        "class Data(OxfordPets):\n"
        "    def splits(self):\n"
        "        raise ZeroDivisionError('broken on purpose')\n"
    )
    words = ("data._target_=broken.Data", "hydra.run.dir=here")
    done = command(*words, module="segpets.browse")
    assert done.returncode == 1
    assert "ZeroDivisionError: broken on purpose" in done.stdout
    log = tmp_path / "here" / "browse.log"
    assert f"The traceback is in {log}" in done.stdout
    assert "Traceback" not in done.stdout
    text = log.read_text()
    assert "Traceback" in text
    assert "broken.py" in text


def test_an_error_inside_a_run_is_recorded(command: Command, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from torch import nn\n\n\n"
        "class Broken(nn.Module):\n"
        "    def forward(self, logits, target):\n"
        "        if logits.requires_grad and logits.is_leaf:  # before the training\n"
        "            return logits.mean()\n"
        "        raise ZeroDivisionError('broken on purpose')\n"
    )
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "broken.yaml").write_text("_target_: broken.Broken\n")
    done = command("--config-dir=mine", *tiny("loss=broken"), "hydra.run.dir=run")
    assert done.returncode == 1
    assert "ZeroDivisionError: broken on purpose" in done.stdout
    assert f"The traceback is in {tmp_path}/run/train.log" in done.stdout
    assert "Traceback" not in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"] == "ZeroDivisionError: broken on purpose"
    log = (tmp_path / "run" / "train.log").read_text()
    assert "Traceback" in log
    assert "broken.py" in log


def test_where_memory_runs_out_the_remedy_is_named(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "greedy.py").write_text(
        "import torch\n\n\n"
        "class Greedy(torch.nn.Module):\n"
        "    def forward(self, logits, target):\n"
        "        many = 8 if logits.is_leaf else 10**14  # the trial before the training is small\n"
        "        return logits.mean() + torch.empty(many).sum()\n"
    )
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "greedy.yaml").write_text("_target_: greedy.Greedy\n")
    done = command("--config-dir=mine", *tiny("loss=greedy"))
    assert done.returncode == 1
    assert "error: out of memory: can't allocate memory: you tried to allocate 4" in done.stdout
    assert "a smaller data.batch_size, and +trainer.accumulate_grad_batches=2" in done.stdout
    assert "Traceback" not in done.stdout
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "Take a smaller batch_size, or tile=512" in explain(cuda, "predict")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("train", ["hydra.run.dir=file/run"]),
        ("train", ["paths.log_dir=file"]),
        ("train", ["-m", "seed=1,2", "paths.log_dir=file"]),
        ("browse", ["hydra.run.dir=file/page"]),
    ],
)
def test_where_results_cannot_be_written_another_folder_is_asked_for(
    module: str, words: list[str], command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = command(*words, module=f"segpets.{module}")
    assert done.returncode == 1
    assert re.search(r"error: \S*file\S* can't be written \(Not a directory\)", done.stdout)
    assert "choose another by hydra.run.dir=FOLDER or paths.log_dir=FOLDER" in done.stdout
    assert "Traceback" not in done.stdout
