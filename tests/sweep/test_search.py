"""Hyperparameter searches: what is drawn, what is remembered, and what comes out."""

import json
import os
import re
import shlex
import time
from pathlib import Path

import optuna
import pytest
from fixture_types import Command, Start, Tiny
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from segpets.cli.command import groups
from segpets.config import compose, conf_dir
from segpets.errors import UserError
from segpets.run.study import open_study
from segpets.sweep.search import experiment
from segpets.sweep.space import distribution

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=int(interval(0,1))", IntDistribution(0, 1)),
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=int(interval(1.0,8.0))", IntDistribution(1, 8)),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=choice(unet,segnet)", CategoricalDistribution(("unet", "segnet"))),
        ("a=unet,segnet", CategoricalDistribution(("unet", "segnet"))),
        ("a=choice([16,32],[32,64])", CategoricalDistribution(("[16,32]", "[32,64]"))),
    ],
)
def test_hydras_words_become_optunas_distributions(word: str, expected: object) -> None:
    (override,) = OverridesParser.create().parse_overrides([word])
    assert distribution(override) == expected


@pytest.mark.parametrize("word", ["a=range(5,1)", "a=tag(log,interval(0.0,1))", "a=glob(*)"])
def test_what_can_not_be_searched_is_said(word: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([word])
    with pytest.raises(UserError, match="can't be searched"):
        distribution(override)


def test_the_best_becomes_an_experiment(tmp_path: Path) -> None:
    words = ["model=segnet", "optimizer.lr=0.003", "model.widths=[8,16]", "sweep=x", "n_trials=3"]
    words += ["hparams_search=optuna", "paths.log_dir=y", "loss@loss.losses.overlap=dice"]
    known = groups([conf_dir()])
    words = [word for word in words if not word.startswith("model.widths")]
    text = experiment(words, name="best", folder=tmp_path, is_group=lambda key: key in known)
    assert text.startswith("# @package _global_\n# python -m segpets.train --config-dir ")
    read = OmegaConf.to_container(OmegaConf.create(text))
    assert read == {
        "defaults": [
            {"override /model": "segnet"},
            {"override /loss@loss.losses.overlap": "dice"},
        ],
        "optimizer": {"lr": 0.003},
    }


@pytest.fixture
def words(tiny: Tiny, tmp_path: Path) -> list[str]:
    """A search over three moods of a loss, and a learning rate."""
    folder = tmp_path / "own" / "conf" / "loss"
    folder.mkdir(parents=True)
    (folder / "moody.yaml").write_text(
        "_target_: moody.Moody\nnum_classes: ${len:${data.classes}}\nmood: good\n"
    )
    (tmp_path / "own" / "moody.py").write_text(
        "import time\n"
        "from segpets.loss import CrossEntropyLoss\n"
        "class Moody(CrossEntropyLoss):\n"
        "    def __init__(self, *, num_classes, mood):\n"
        "        super().__init__(num_classes=num_classes)\n"
        "        self.mood = mood\n"
        "    def forward(self, logits, target):\n"
        "        if logits.is_leaf:\n"  # it is tried before the training
        "            return super().forward(logits, target)\n"
        "        if self.mood == 'bad':\n"
        "            raise RuntimeError('what a bad mood')\n"
        "        if self.mood == 'slow':\n"
        "            time.sleep(0.2)\n"
        "        factor = float('nan') if self.mood == 'sick' else 1\n"
        "        return super().forward(logits, target) * factor\n"
    )
    return [
        "--config-dir",
        str(tmp_path / "own" / "conf"),
        "-m",
        "sweep=s",
        "hparams_search=optuna",
        "hydra.sweeper.params=null",
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        *tiny("loss=moody", "data.size=32", "trainer.max_epochs=2"),
    ]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "own"), str(ROOT)])}


def trials(tmp_path: Path) -> list[optuna.trial.FrozenTrial]:
    return open_study(tmp_path / "logs" / "train" / "multiruns" / "s").get_trials()


def test_the_best_keeps_the_experiment_that_it_was_searched_on(tmp_path: Path) -> None:
    words = ["experiment=efficient", "optimizer.lr=0.003", "loss=dice"]
    known = groups([conf_dir()])
    file = tmp_path / "experiment" / "best.yaml"
    file.parent.mkdir()
    file.write_text(experiment(words, name="best", folder=tmp_path, is_group=known.__contains__))
    searched, again = (
        compose([*given, f"hydra.run.dir={tmp_path}", "data.root=x"])
        for given in (words, ["experiment=best", f"hydra.searchpath=[{tmp_path}]"])
    )
    for key in ("model", "loss", "data", "augment", "optimizer", "tags"):
        assert again[key] == searched[key], key
    assert again.trainer.max_epochs == searched.trainer.max_epochs


@pytest.mark.slow
def test_failed_and_nan_trials_are_recorded_and_passed_over(
    command: Command, words: list[str], tmp_path: Path
) -> None:
    words = [*words, "loss.mood=choice(good,bad,sick)", "seed=3"]
    done = command(*words, "n_trials=5", **environment(tmp_path))
    assert done.returncode == 0, done.stdout
    ended = trials(tmp_path)
    assert len(ended) == 5
    for trial in ended:
        good = trial.params["loss.mood"] == "good"
        assert trial.state == (TrialState.COMPLETE if good else TrialState.FAIL)
    assert {t.params["loss.mood"] for t in ended} == {"good", "bad", "sick"}, (
        "another seed would do"
    )

    folder = tmp_path / "logs" / "train" / "multiruns" / "s"
    best = max((t for t in ended if t.value is not None), key=lambda t: t.value or 0)
    summary = json.loads((folder / best.user_attrs["job"] / "summary.json").read_text())
    assert best.value == summary["best/val/mean_iou"]
    cfg = OmegaConf.load(folder / "conf" / "experiment" / "s_best.yaml")
    assert cfg.optimizer.lr == pytest.approx(best.params["optimizer.lr"], rel=1e-5)
    assert {"override /loss": "moody"} in list(cfg.defaults)

    (printed,) = re.findall(r"python -m segpets\.train (.*experiment=s_best.*)", done.stdout)
    shown = command(*shlex.split(printed), "--cfg", "job", **environment(tmp_path))
    assert shown.returncode == 0, shown.stdout
    assert f"lr: {cfg.optimizer.lr}" in shown.stdout
    assert "_target_: moody.Moody" in shown.stdout

    more = command(*words, "n_trials=6", **environment(tmp_path))
    assert more.returncode == 0, more.stdout
    assert [t.params for t in trials(tmp_path)[:5]] == [t.params for t in ended]
    assert len(trials(tmp_path)) == 6
    again = command(*words, "n_trials=6", **environment(tmp_path))
    assert again.returncode == 0
    assert "Everything lies in" not in again.stdout, "n_trials counts over all starts"

    other = command(*words, "n_trials=7", "data.batch_size=5", **environment(tmp_path))
    assert other.returncode == 1
    assert "holds a search over other values" in other.stdout


@pytest.mark.slow
def test_values_that_give_no_config_are_named_or_passed_over(
    command: Command, words: list[str], tmp_path: Path
) -> None:
    words = [w for w in words if not w.startswith(("loss=", "optimizer.lr=", "model.widths="))]
    words = [w.replace("trainer.max_epochs=2", "trainer.max_epochs=1") for w in words]
    never = ["model=choice(unet,vit)", "model.widths=choice([4,8],[4])", "n_trials=2"]
    done = command(*words, *never, **environment(tmp_path))
    assert done.returncode == 1
    assert (
        "error: the job model=vit model.widths=[4,8] can't be composed, so none was started. "
        "model.widths is no key of the config. Did you mean model.width?"
    ) in done.stdout, done.stdout
    assert not (tmp_path / "logs").exists()

    # Each choice goes, but one of the four pairs doesn't: it wants a part that the loss lacks.
    folder = tmp_path / "own" / "conf" / "experiment"
    folder.mkdir()
    (folder / "plain.yaml").write_text("# @package _global_\ntags: [plain]\n")
    (folder / "part.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /loss@loss.losses.overlap: tversky\n"
    )
    pairs = ["loss=choice(combined,dice)", "experiment=choice(plain,part)", "n_trials=6"]
    done = command(*words, *pairs, "model.widths=[4,8]", **environment(tmp_path))
    assert done.returncode == 0, done.stdout
    ended = trials(tmp_path)
    assert len(ended) == 6
    tried = {(t.params["loss"], t.params["experiment"]): t.state for t in ended}
    assert tried.pop(("dice", "part")) == TrialState.FAIL, "another seed would do"
    assert set(tried.values()) == {TrialState.COMPLETE}
    assert "the job loss=dice experiment=part can't be composed: it has failed" in done.stdout


@pytest.mark.slow
def test_hopeless_trials_end_early(command: Command, words: list[str], tmp_path: Path) -> None:
    """Rates that are far too low learn nothing."""
    words = [w for w in words if not w.startswith(("trainer.max_epochs", "optimizer.lr"))]
    options = ["hydra.sweeper.startup_trials=2", "hydra.sweeper.prune_after=1", "optimizer=adamw"]
    rates = ["optimizer.lr=tag(log,interval(1e-9,1e-1))", "scheduler=none"]
    sizes = ["trainer.max_epochs=4", "n_trials=8"]
    done = command(*words, *options, *rates, *sizes, **environment(tmp_path))
    assert done.returncode == 0, done.stdout
    pruned = [t for t in trials(tmp_path) if t.state == TrialState.PRUNED]
    assert pruned, "another seed would do"
    folder = tmp_path / "logs" / "train" / "multiruns" / "s"
    for trial in pruned:
        noted = json.loads((folder / trial.user_attrs["job"] / "trial.json").read_text())
        summary = json.loads((folder / trial.user_attrs["job"] / "summary.json").read_text())
        last = max(trial.intermediate_values)
        assert noted["pruned_at_epoch"] == last == summary["epochs"] < 4
        # The median rule, worked out from what the trials before had reported.
        before = [
            max(v for step, v in t.intermediate_values.items() if step <= last)
            for t in trials(tmp_path)[: trial.number]
            if t.state == TrialState.COMPLETE
        ]
        mine = max(trial.intermediate_values.values())
        assert mine < sorted(before)[len(before) // 2]


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on(start: Start, words: list[str], tmp_path: Path) -> None:
    words = [*words, "n_trials=3", "loss.mood=slow"]
    first = start(*words, **environment(tmp_path))
    folder = tmp_path / "logs" / "train" / "multiruns" / "s"
    until = time.monotonic() + 90
    while not list(folder.glob("*/checkpoints/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.05)
    first.kill()
    first.wait()
    (begun,) = trials(tmp_path)
    assert begun.state == TrialState.RUNNING
    done = start(*words, **environment(tmp_path)).wait()
    assert done.returncode == 0, done.stdout
    ended = trials(tmp_path)
    assert [t.state for t in ended] == [TrialState.COMPLETE] * 3
    assert ended[0].params == begun.params
    assert len({t.params["optimizer.lr"] for t in ended}) == 3
    assert re.search(r"Continuing from .*last\.ckpt", done.stdout)


@pytest.mark.slow
def test_fail_fast_ends_a_search(command: Command, words: list[str], tmp_path: Path) -> None:
    words = [*words, "loss.mood=choice(good,bad)", "trainer.max_epochs=1", "n_trials=6"]
    done = command(*words, "fail_fast=true", "seed=3", **environment(tmp_path))
    assert done.returncode == 1, done.stdout
    ended = trials(tmp_path)
    moods = [trial.params["loss.mood"] for trial in ended]
    assert 1 < len(moods) < 6 and moods == ["good"] * (len(moods) - 1) + ["bad"], "another seed"
    assert [t.state for t in ended] == [TrialState.COMPLETE] * (len(ended) - 1) + [TrialState.FAIL]
    assert (
        f"error: a trial failed, and fail_fast=true stops the search at {len(ended)} of 6 trials"
    ) in " ".join(done.stdout.split())
    # The same trials again, of which the last fails: nothing is left that could go on.
    words = [*words, "sweep=t", f"n_trials={len(ended)}"]
    last = command(*words, "fail_fast=true", "seed=3", **environment(tmp_path))
    assert last.returncode == 1, last.stdout
    told = " ".join(last.stdout.split())
    assert "error: a trial failed, with fail_fast=true, and none is left to run:" in told
    assert "the same command goes on" not in told


@pytest.mark.parametrize("word", ["seed=1,2", "data.fold=0,1"])
def test_luck_is_not_searched(command: Command, words: list[str], word: str) -> None:
    done = command(*words, "data.folds=2", word)
    assert done.returncode == 1
    key = word.partition("=")[0]
    assert f"error: {key} is nothing that a search can choose" in done.stdout


def test_there_must_be_something_to_search(command: Command, words: list[str]) -> None:
    words = [word for word in words if "interval" not in word]
    done = command(*words)
    assert done.returncode == 1
    assert "there is nothing to search" in done.stdout
    wrong = command(*words, "optimizer.lr=interval(0.1,0.2)", "n_trials=0")
    assert wrong.returncode == 1
    assert "n_trials=0 must be a whole number of at least 1" in wrong.stdout


def test_what_is_searched_by_default_composes(tmp_path: Path) -> None:
    cfg = compose(["hparams_search=optuna", f"hydra.run.dir={tmp_path}"])
    assert cfg.callback.prune.monitor == cfg.optimized_metric
    params = OmegaConf.load(conf_dir() / "hparams_search" / "optuna.yaml").hydra.sweeper.params
    parser = OverridesParser.create()
    for key, value in params.items():
        (override,) = parser.parse_overrides([f"{key}={value}"])
        assert override.is_sweep_override()
        assert OmegaConf.select(cfg, str(key)) is not None, key
        distribution(override)
