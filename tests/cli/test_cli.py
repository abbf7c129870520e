"""The command line: help, typos, errors in words, and where a run goes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny
from hydra.errors import HydraException
from omegaconf import OmegaConf
from PIL import Image

from segpets import cli
from segpets.__main__ import COMMANDS
from segpets.cli.explain import explain, explain_config
from segpets.cli.suggest import groups, suggest
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


# What is typed, and what the answer must contain.
TYPOS = [
    (["modle=unet"], "Did you mean model?"),
    (["model=unt"], "Did you mean model=unet?"),
    (["model", "unet"], "model unet: write model=unet, without spaces"),
    (["seed=1", "model", "=", "unet"], "write model=unet, without spaces"),
    (["model=", "unet"], "write model=unet, without spaces"),
    (["trainer.max_epochs", "=3"], "write trainer.max_epochs=3, without spaces"),
    (["loss", "="], "loss is no override: write loss=OPTION"),
    (["-m", "loss=dice,", "focal"], "write loss=dice,focal, without spaces"),
    (["model"], "model is no override: write model=OPTION"),
    (["data.root=my", "pets"], "\"data.root='my pets'\""),
    (["data.values={0:", "a,", "255:", "b}"], "quotes around it, 'data.values={0: a, 255: b}'"),
    (["lr=0.1"], "Did you mean optimizer.lr?"),
    (["learning_rate=0.1"], "Did you mean optimizer.lr?"),
    (["model.dropout=0.1"], "model.dropout is no key of the config. `--cfg job` prints"),
    (["epochs=3"], "Did you mean trainer.max_epochs?"),
    (["batch_size=3"], "Did you mean data.batch_size?"),
    (["batchsize=3"], "Did you mean data.batch_size?"),
    (["size=64"], "Did you mean data.size?"),
    (["train.lr=0.1"], "Did you mean optimizer.lr?"),
    (["trainer.epochs=1"], "Did you mean trainer.max_epochs?"),
    (["optimiser.lr=1"], "Did you mean optimizer.lr?"),
    (["weightdecay=1"], "Did you mean optimizer.weight_decay?"),
    (["optimiser=sgd"], "Did you mean optimizer?"),
    (["--epochs", "3"], "keys are written without dashes: trainer.max_epochs=3"),
    (["--lr=0.1"], "keys are written without dashes: optimizer.lr=0.1"),
    (["--batch-size", "4"], "keys are written without dashes: data.batch_size=4"),
    (["--model", "unet"], "keys are written without dashes: model=unet"),
    (["model.widht=3"], "Did you mean model.widths?"),
    (["data.batchsize=3"], "Did you mean data.batch_size?"),
    (["trainer.max_epoch=3"], "Did you mean trainer.max_epochs?"),
    (["loss=soft-iou"], "Did you mean loss=soft_iou?"),
    (["callback=[defalt]"], "Did you mean callback=default?"),
    (["experiment=articl_segnet"], "Did you mean experiment=article_segnet?"),
    (["model=unet", "loss=dise", "data.size=64"], "Did you mean loss=dice?"),
    (["-m", "model=unet,segnt"], "Did you mean model=segnet?"),
    (["model=unet,segnt", "loss=dice", "--multirun"], "Did you mean model=segnet?"),
    (["data=3"], "there is no such data. Available: "),
    (["loss="], "Available: combined, cross_entropy"),
    (["model=[unet"], "model=[unet can't be read"),
    (["--cfg", "jobb"], "choose from 'job'"),
    (["--mutlirun", "model=unet"], "Did you mean --multirun?"),
    (["--config-dir", "nowhere", "loss=mine"], "--config-dir nowhere"),
    (["resume=nowhere"], "resume=nowhere: there is no folder"),
    ([f"resume={'x' * 300}"], f"{'x' * 60}... is longer than a name of a file may be"),
    ([f"data.root=/{'x' * 300}"], f"{'x' * 60}... is longer than a name of a file may be"),
    (["data=coco", f"data.root={'x' * 300}"], f"{'x' * 60}... is longer than a name of a file"),
    (["seed=abc"], "seed=abc must be a whole number"),
    (["seed=-1"], "seed=-1 must be a whole number"),
    (["train=false"], "add init_from=RUN"),
    (["-m", "seed=1,2", "sweep=a,b"], "sweep= names one folder"),
    (["data.fold=0,1"], "add -m to run each of them, or data.fold=[0,1] for one list"),
]


@pytest.mark.parametrize(
    ("launcher", "extra"), [("joblib", "joblib"), ("submitit_slurm", "slurm"), ("ray", "ray")]
)
def test_a_launcher_that_is_not_installed_is_named(launcher: str, extra: str) -> None:
    missing = HydraException(f"Could not find 'hydra/launcher/{launcher}'")
    told = explain_config(missing, "train", ["-m", f"hydra/launcher={launcher}"])
    assert f"pip install 'segpets[{extra}]'" in told


def spelt(words: list[str] | str) -> str:
    return " ".join(words) if isinstance(words, list) else ""


@pytest.mark.parametrize(("words", "answer"), TYPOS, ids=spelt)
def test_a_typo_is_answered_in_words(command: Command, words: list[str], answer: str) -> None:
    done = command(*words)
    assert done.returncode == 1
    assert answer in done.stdout
    assert "Traceback" not in done.stdout
    assert len(done.stdout.splitlines()) <= 3


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["+tta=[flip]"], "segpets.predict has no key tta, and would ignore it"),
        (["++batchsize=3"], "Did you mean batch_size?"),
        (["+data.range=[0,4095]"], "segpets.predict has no key data.range"),
        (["tta=[flip]"], "tta is no key of the config. `--cfg job` prints all keys\n"),
    ],
)
def test_a_command_takes_no_key_that_it_would_ignore(
    command: Command, words: list[str], answer: str
) -> None:
    done = command("run=a", "source=b", "output=c", *words, module="segpets.predict")
    assert done.returncode == 1
    assert answer in done.stdout and "adds a new one" not in done.stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["data.size=abc"], "data.size=abc must be a whole number of at least 32"),
        (["trainer.precision=17"], "trainer: Precision 17 is invalid"),
        (["model.widths=5"], "model: "),
        (["optimizer.lr=fast"], "'float' and 'str'"),
        (["scheduler.pct_start=x"], "'str'"),
        (["trainer.max_epochs=x"], "'str'"),
        (["trainer.log_every_n_steps=often", "trainer.devices=auto"], "'str'"),
        (["loss=dice", "loss.class_weights=[1,2]"], "class_weights has 2 values"),
        (["init_from=nowhere"], "init_from=nowhere: there is no folder"),
    ],
    ids=spelt,
)
def test_a_wrong_value_is_answered_in_words(
    command: Command, tiny: Tiny, words: list[str], answer: str, tmp_path: Path
) -> None:
    done = command(*tiny(*words), "hydra.run.dir=run")
    assert done.returncode == 1
    assert answer in done.stdout
    assert "Traceback" not in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert answer in summary["error"]
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()
    if "'str'" in answer:
        assert f"error: {words[0]} must be a number (" in done.stdout


@pytest.mark.parametrize("trainer", ["gpu", "mps", "tpu"])
def test_a_trainer_without_its_device_is_refused(
    command: Command, tiny: Tiny, trainer: str
) -> None:
    there = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there.get(trainer):
        return
    done = command(*tiny(f"trainer={trainer}"))
    assert done.returncode == 1
    assert "error: trainer: " in done.stdout
    assert trainer in done.stdout.lower() or "torch_xla" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_traceback_shows_when_asked_for(command: Command) -> None:
    done = command("model=unt", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stdout
    assert "Did you mean model=unet?" in done.stdout


def test_new_keys_are_added_with_a_plus(command: Command) -> None:
    done = command("+new.key=1", "--cfg", "job")
    assert done.returncode == 0
    assert "new:\n  key: 1" in done.stdout


def test_a_group_of_ones_own_works_and_is_suggested(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "loss" / "elastic.yaml").write_text("_target_: math.sqrt\nstretch: 1\n")
    assert re.search(r"loss +.*\belastic\b", command("--config-dir", "mine", "--help").stdout)
    composed = command("--config-dir=mine", "loss=elastic", "--cfg", "job")
    assert "_target_: math.sqrt" in composed.stdout
    assert "Did you mean loss=elastic?" in command("--config-dir=mine", "loss=elastik").stdout
    wrong_key = command("--config-dir", "mine", "loss=elastic", "loss.strech=2")
    assert "Did you mean loss.stretch?" in wrong_key.stdout


def test_a_class_that_cannot_be_imported_is_answered_in_words(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "loss").mkdir(parents=True)
    (tmp_path / "mine" / "needy.py").write_text("import there_is_no_such_package\n")
    for name, target in {
        "forgotten": "my_losses.Own",
        "needy": "needy.Own",
        "misspelt": "segpets.loss.dice.DyceLoss",
        "inside": "segpets.loss.combined.CombinedLoss\nweights: {a: 1}\n"
        "losses: {a: {_target_: my_losses.Own}}",
    }.items():
        (tmp_path / "mine" / "loss" / f"{name}.yaml").write_text(f"_target_: {target}\n")

    def told(name: str) -> str:
        path = f"{tmp_path / 'mine'}:{Path(cli.__file__).parents[2]}"
        done = command("--config-dir=mine", *tiny(f"loss={name}"), PYTHONPATH=path)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        (error,) = [line for line in lines if not line.startswith("Decoded pixels")]
        return error

    assert "The folder with my_losses.py must be on PYTHONPATH: PYTHONPATH=FOLDER" in told(
        "forgotten"
    )
    assert "my_losses.Own can't be imported" in told("inside")
    assert "imports there_is_no_such_package, which isn't installed" in told("needy")
    assert "the module segpets.loss.dice has no DyceLoss" in told("misspelt")


def test_where_an_option_was_looked_for_is_said(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "conf" / "model" / "encdec.yaml").write_text("_target_: nets.EncDec\n")
    conf = conf_dir()

    def told(*words: str) -> str:
        done = command(*words, "model=encdec", "trainer.max_epochs=1")
        assert done.returncode == 1
        return done.stdout

    assert "say --config-dir FOLDER, where FOLDER/model holds it" in told()
    looked = f"Looked in {conf}/model, mine/model: did you mean --config-dir mine/conf?"
    assert looked in told("--config-dir", "mine")
    assert "did you mean --config-dir mine/conf?" in told("--config-dir=mine/conf/model")
    (tmp_path / "other").mkdir()
    assert "--config-dir is the folder that holds model/" in told("--config-dir=other")


def test_what_is_advised_for_colours_can_be_typed(
    command: Command, tiny: Tiny, tmp_path: Path
) -> None:
    for index in range(8):
        picture = Image.new("RGB", (64, 64), (10 * index, 0, 0))
        for folder in ("images", "masks"):
            (tmp_path / "leaves" / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "leaves" / folder / f"{index}.png")
            picture = Image.new("RGB", (64, 64))
            picture.paste((255, 0, 0), (0, 0, 32, 64))
    words = ["data=folder", "data.root=leaves", "data.classes=[background,leaf]"]
    lacking = command(*tiny(*words), "trainer.max_epochs=1")
    (advice,) = re.findall(r"'(data\.values=.*?)'", lacking.stdout)
    done = command(*tiny(*words), "trainer.max_epochs=1", advice)
    assert done.returncode == 0, done.stdout

    wrong = command("data.values={#000000: background, #ff0000: leaf}")
    assert "The shell wants quotes around the whole word" in wrong.stdout
    assert "a colour is written 255 0 0" in wrong.stdout
    assert "\\'" not in wrong.stdout  # a mapping in quotes would be a text
    assert (
        "a whole number nor a colour such as 255 0 0"
        in command(*tiny(*words), "data.values={ff0000: leaf}").stdout
    )


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


@pytest.mark.slow
def test_runs_and_sweeps_are_asked_for_by_examples(command: Command, tmp_path: Path) -> None:
    def told(module: str, *words: str) -> str:
        done = command(*words, module=f"segpets.{module}")
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 1
        return done.stdout

    assert "as in runs=logs/train/multiruns/NAME" in told("compare")
    assert "as in status=logs/train/multiruns/NAME" in told("sweep")
    assert "no sweep of that name in logs/train/multiruns" in told("sweep", "status=mygrid")
    assert "train first, or go to the folder where you trained" in told("evaluate", "run=latest")
    assert "Did you mean run=latest?" in told("evaluate", "run=latst")
    assert "train first" in told("compare", "runs=latest")
    assert "without dashes: run=latest" in told("evaluate", "--run", "latest")
    assert "without dashes: stage=val" in told("evaluate", "--stage", "val", "run=latest")
    assert "without dashes: source=photos" in told("predict", "--source=photos")
    (tmp_path / "logs" / "train" / "multiruns" / "mygrid").mkdir(parents=True)
    assert "runs=mygrid holds no run" in told("compare", "runs=mygrid")
    assert "mygrid holds no jobs" in told("sweep", "status=mygrid")


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


def test_the_nearest_name_must_be_near() -> None:
    assert suggest("train", ["model=xyzzy"]) == (
        "model=xyzzy: there is no such model. Available: "
        + ", ".join(groups([conf_dir()])["model"])
        + ". If it is your own, say --config-dir FOLDER, where FOLDER/model holds it"
    )
    assert suggest("train", ["model=unet", "loss=[dice]", "+new=1", "~debug"]) is None


@pytest.mark.parametrize("name", COMMANDS)
def test_the_resolved_config_is_shown(command: Command, name: str) -> None:
    needs = {"evaluate": ["run=x"], "predict": ["run=x"], "export": ["run=x"]}.get(name, [])
    done = command(*needs, "--cfg", "job", "--resolve", module=f"segpets.{name}")
    assert done.returncode == 0, done.stdout
    assert "${" not in done.stdout


@pytest.mark.parametrize("word", ["dry_run=true", "sweep=first", "jobs_per_gpu=2"])
def test_keys_of_sweeps_are_refused_in_a_run(command: Command, word: str, tmp_path: Path) -> None:
    done = command(word, "debug=smoke")
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert done.stdout.startswith(f"error: {word} is about a sweep, and this is one run: add -m")


def test_overrides_may_stand_before_and_behind_options(command: Command) -> None:
    done = command("model=segnet", "--cfg", "job", "loss=dice", "--resolve", "data.size=64")
    assert done.returncode == 0, done.stdout
    shown = OmegaConf.create(done.stdout)
    assert shown.model._target_ == "segpets.model.segnet.SegNet"
    assert shown.loss._target_ == "segpets.loss.dice.DiceLoss"
    assert shown.data.size == 64


def test_an_empty_word_is_answered_in_words(command: Command) -> None:
    done = command("", "debug=smoke")
    assert done.returncode == 1
    assert done.stdout == "error: '' is no override: write KEY=VALUE\n"
