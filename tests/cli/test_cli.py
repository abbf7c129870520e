"""The command line: help, the config, and where a run goes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fixture_types import Command, Tiny
from omegaconf import OmegaConf

from segpets.__main__ import COMMANDS
from segpets.config import conf_dir


def test_help_names_the_groups_and_their_options(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "python -m segpets.train model=segnet loss=soft_iou" in done.stdout
    assert re.search(r"^  model +.*\bsegnet, segnet_dsc\b", done.stdout, re.MULTILINE)
    assert re.search(r"^  debug +.*\bsmoke$", done.stdout, re.MULTILINE)
    assert "--cfg job" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_each_key_of_the_command_and_shows_its_groups_only(
    command: Command, name: str
) -> None:
    told = command("--help", module=f"segpets.{name}").stdout
    keys, groups = (part.splitlines() for part in told.split("\n\n")[2:4])
    config = OmegaConf.load(conf_dir() / f"{name}.yaml")
    explained = {line.split()[0]: line.split(None, 1)[1] for line in keys[1:]}
    shown = {line.split()[0] for line in groups[1:]}
    left_out = {"defaults", "task_name"} | shown
    assert [*explained] == [key for key in config if key not in left_out]
    assert all(len(text) > 10 for text in explained.values())
    assert ("model" in shown) == (name in ("train", "benchmark"))
    assert ("loss" in shown) == ("hparams_search" in shown) == (name == "train")
    assert ("data" in shown) == (name in ("train", "browse", "evaluate", "export", "benchmark"))
    assert "hydra" in shown


def test_help_says_what_is_needed_and_what_holds_otherwise(command: Command) -> None:
    told = command("--help", module="segpets.evaluate").stdout
    assert re.search(r"^  run  +a run directory, .* \(needed\)$", told, re.MULTILINE)
    assert re.search(r"^  stage  +train, val or test: .* \(test\)$", told, re.MULTILINE)
    assert re.search(r"^  data  +camvid, .*, voc$", told, re.MULTILINE)


@pytest.mark.parametrize("option", ["--help", "--cfg=job"])
def test_a_closed_pipe_ends_what_is_printed_quietly(option: str, tmp_path: Path) -> None:
    line = f"'{sys.executable}' -m segpets.train {option} | true"
    done = subprocess.run(["bash", "-c", line], cwd=conf_dir().parent, capture_output=True)
    assert done.stderr == b""


def test_new_keys_are_added_with_a_plus(command: Command) -> None:
    done = command("+new.key=1", "--cfg", "job")
    assert done.returncode == 0
    assert "new:\n  key: 1" in done.stdout


@pytest.mark.slow
def test_a_sweep_has_the_same_folder_whatever_the_order(command: Command, tmp_path: Path) -> None:
    words = ["test=false", "seed=-1,-2"]  # a seed that is refused at once
    for line in (["-m", *words], [*words, "-m"], ["--multirun", *reversed(words)]):
        assert command(*line).returncode == 1
    (sweep,) = (tmp_path / "logs" / "train" / "multiruns").iterdir()
    assert re.fullmatch(r"sweep-[0-9a-f]{10}", sweep.name)
    jobs = [path.name for path in sweep.iterdir() if path.is_dir()]
    assert jobs
    assert all(re.match(r"seed-.*test-False", name) for name in jobs)
    command("-m", *words, "~callback.pictures")  # which is another sweep
    assert len([*sweep.parent.iterdir()]) == 2
    command("-m", *words, "++sweep=mine")
    assert (sweep.parent / "mine").is_dir()


@pytest.mark.slow
def test_latest_is_that_of_the_folder_which_a_config_of_the_users_names(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "local").mkdir(parents=True)
    (tmp_path / "mine" / "local" / "default.yaml").write_text(
        "# @package _global_\npaths: {log_dir: elsewhere/train}\n"
    )
    words = ["--config-dir=mine"]
    assert command(*words, *tiny("test=false", "trainer.max_epochs=1")).returncode == 0
    done = command(*words, "++resume=latest", "trainer.max_epochs=2")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "logs").exists()
    (run,) = (tmp_path / "elsewhere" / "train" / "runs").iterdir()
    assert "epoch 2 of 2" in (run / "train.log").read_text()
    assert (tmp_path / "elsewhere" / "train" / "latest").resolve() == run


def test_a_folder_in_use_is_refused_however_it_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    done = command("++hydra.run.dir=mine")
    assert done.returncode == 1 and "isn't empty" in done.stdout
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_segpets_runs_the_same_commands(command: Command) -> None:
    assert command("train", "--help", module="segpets").stdout == command("--help").stdout
    assert "Did you mean model=unet?" in command("train", "model=unt", module="segpets").stdout
    assert "commands: train" in command(module="segpets").stdout
    wrong = command("trian", module="segpets")
    assert wrong.returncode == 1
    assert "trian is no command" in wrong.stdout


def test_a_run_goes_to_logs_in_the_working_directory(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    words = tiny("trainer.max_epochs=1", "logger=[csv]")
    done = command("train", *words, module="segpets")
    assert done.returncode == 0, done.stdout
    (run,) = (tmp_path / "logs" / "train" / "runs").iterdir()
    latest = tmp_path / "logs" / "train" / "latest"
    assert latest.is_symlink()
    assert latest.resolve() == run
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["overrides"] == words
    assert f"Everything lies in {run.relative_to(tmp_path)}" in done.stdout
    assert "Warning" not in done.stdout
    assert not (tmp_path / "lightning_logs").exists()

    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    again = command(*tiny(), f"hydra.run.dir={run}")
    assert again.returncode == 1
    assert "already holds a run" in again.stdout
    hydras_own = {run / "train.log", *(run / ".hydra").iterdir(), run / ".lock"}
    for file, content in before.items():
        assert file in hydras_own or file.read_bytes() == content, file


@pytest.mark.parametrize("name", COMMANDS)
def test_the_resolved_config_is_shown(command: Command, name: str) -> None:
    needs = {"evaluate": ["run=x"], "predict": ["run=x"], "export": ["run=x"]}.get(name, [])
    done = command(*needs, "--cfg", "job", "--resolve", module=f"segpets.{name}")
    assert done.returncode == 0, done.stdout
    assert "${" not in done.stdout


def test_overrides_may_stand_before_and_behind_options(command: Command) -> None:
    done = command("model=segnet", "--cfg", "job", "loss=dice", "--resolve", "data.size=64")
    assert done.returncode == 0, done.stdout
    shown = OmegaConf.create(done.stdout)
    assert shown.model._target_ == "segpets.model.segnet.SegNet"
    assert shown.loss._target_ == "segpets.loss.dice.DiceLoss"
    assert shown.data.size == 64
