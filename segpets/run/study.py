"""The memory of a hyperparameter search: an Optuna study in a file beside the sweep's jobs."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from segpets.errors import UserError

if TYPE_CHECKING:
    from optuna import Study, Trial

FILE: Final = "optuna.journal"
_NAME: Final = "segpets"
_SECONDS_FOR_A_DEAD_LOCK: Final = 10  # after that, others take over what a killed process held


def open_study(
    folder: Path, *, seed: int = 0, startup_trials: int = 10, prune_after: int | None = None
) -> "Study":
    """Opens a search, or begins one.

    Args:
        folder: The sweep's.
        seed: Seed of the values that are tried.
        startup_trials: Number of random trials at the start, none of which is pruned.
        prune_after: Number of epochs for each trial; None takes what the search began with.

    Raises:
        UserError: Optuna isn't installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError(
            "hparams_search=optuna needs Optuna: pip install 'segpets[search]'"
        ) from error
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = str(folder / FILE)
    lock = JournalFileSymlinkLock(file, grace_period=_SECONDS_FOR_A_DEAD_LOCK)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(file, lock_obj=lock)),
        study_name=_NAME,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials),
    )
    if prune_after is not None:
        study.set_user_attr("pruning", [startup_trials, prune_after])
    startup, epochs = study.user_attrs.get("pruning", [startup_trials, 0])
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=epochs)
    return study


def trial_of(folder: Path, number: int) -> "Trial":
    """Returns a trial of a search, to report to and to ask whether it should end."""
    import optuna

    study = open_study(folder)
    (frozen,) = (trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    return optuna.Trial(study, frozen._trial_id)
