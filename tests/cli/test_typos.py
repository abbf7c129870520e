"""Typos are answered in words: what is wrong, and what to type instead."""

import json
import re
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Tiny
from hydra.errors import HydraException
from PIL import Image

from segpets import cli
from segpets.cli.explain import explain_config
from segpets.cli.suggest import groups, suggest
from segpets.config import conf_dir

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
        (["+stage=test"], "segpets.predict has no key stage, and would ignore it"),
        (["++batchsize=3"], "Did you mean batch_size?"),
        (["+data.range=[0,4095]"], "segpets.predict has no key data.range"),
        (["stage=test"], "stage is no key of the config. `--cfg job` prints all keys\n"),
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


def test_the_nearest_name_must_be_near() -> None:
    assert suggest("train", ["model=xyzzy"]) == (
        "model=xyzzy: there is no such model. Available: "
        + ", ".join(groups([conf_dir()])["model"])
        + ". If it is your own, say --config-dir FOLDER, where FOLDER/model holds it"
    )
    assert suggest("train", ["model=unet", "loss=[dice]", "+new=1", "~debug"]) is None


@pytest.mark.parametrize("word", ["dry_run=true", "sweep=first", "jobs_per_gpu=2"])
def test_keys_of_sweeps_are_refused_in_a_run(command: Command, word: str, tmp_path: Path) -> None:
    done = command(word, "debug=smoke")
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert done.stdout.startswith(f"error: {word} is about a sweep, and this is one run: add -m")


def test_an_empty_word_is_answered_in_words(command: Command) -> None:
    done = command("", "debug=smoke")
    assert done.returncode == 1
    assert done.stdout == "error: '' is no override: write KEY=VALUE\n"
