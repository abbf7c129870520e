"""A search's journal gives only values that the search would try."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from segpets.errors import UserError
from segpets.run.study import FILE, check_trials, of_the_space, open_study, trial_of

SPACE = {
    "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
    "loss": CategoricalDistribution(["dice", "focal"]),
}


def add(
    study: optuna.Study, lr: float, loss: str, *, done: bool = True, high: float = 10.0
) -> None:
    wide = {
        "optimizer.lr": FloatDistribution(1e-9, high, log=True),
        "loss": CategoricalDistribution(["dice", "focal", "rm -rf"]),
    }
    state = optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.RUNNING
    values = {"optimizer.lr": lr, "loss": loss}
    study.add_trial(
        optuna.trial.create_trial(
            params=values, distributions=wide, value=0.5 if done else None, state=state
        )
    )


def test_a_value_beyond_the_space_is_named_with_its_trial(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    add(study, 1e-2, "dice")
    check_trials(study, SPACE, tmp_path, accept=False)
    add(study, 5.0, "dice")
    said = rf"{tmp_path / FILE}: trial 1 has a value of optimizer\.lr that this search would never"
    with pytest.raises(UserError, match=said):
        check_trials(study, SPACE, tmp_path, accept=False)
    check_trials(study, SPACE, tmp_path, accept=True)  # it has ended, and becomes no override
    add(study, 1e-2, "rm -rf", done=False)
    with pytest.raises(UserError, match="trial 2 has a value of loss"):
        check_trials(study, SPACE, tmp_path, accept=True)
    kept = of_the_space(study.get_trials(), SPACE)
    assert [trial.number for trial in kept] == [0]


def test_a_trial_is_found_by_its_number_and_the_pruner_by_the_journal(tmp_path: Path) -> None:
    study = open_study(tmp_path, startup_trials=3, prune_after=7)
    add(study, 1e-2, "dice")
    add(study, 1e-3, "focal")
    found = trial_of(tmp_path, 1)
    assert found.params == {"optimizer.lr": 1e-3, "loss": "focal"}
    again = open_study(tmp_path)  # without saying when it prunes
    assert isinstance(again.pruner, optuna.pruners.MedianPruner)
    assert (again.pruner._n_startup_trials, again.pruner._n_warmup_steps) == (3, 7)


@pytest.mark.parametrize(
    "stored", [[5], [], [1, 2, 3], "12", [1, -1], [True, 2], [1.0, 2], {"0": 1, "1": 2}, None]
)
def test_what_isnt_two_numbers_in_the_journal_prunes_nothing_before_its_time(
    tmp_path: Path, stored: object
) -> None:
    study = open_study(tmp_path, startup_trials=3, prune_after=7)
    study.set_user_attr("pruning", stored)
    again = open_study(tmp_path, startup_trials=4)
    assert isinstance(again.pruner, optuna.pruners.MedianPruner)
    assert (again.pruner._n_startup_trials, again.pruner._n_warmup_steps) == (4, 0)
