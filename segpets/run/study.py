"""The memory of a hyperparameter search: an Optuna study in a file beside the sweep's jobs."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from segpets.errors import FileError, UserError
from segpets.reading import LARGEST_TABLE, in_one_line, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

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
    journal = folder / FILE
    try:
        if journal.exists() or journal.is_symlink():
            read_bytes(journal, LARGEST_TABLE)  # a file, and of a size that can be read
        lock = JournalFileSymlinkLock(str(journal), grace_period=_SECONDS_FOR_A_DEAD_LOCK)
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=lock)),
            study_name=_NAME,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup_trials),
        )
        study.get_trials(deepcopy=False)
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(journal, error) from error
    except Exception as error:  # a damaged journal can raise anything
        raise _damaged(journal, error) from error
    if prune_after is not None:
        study.set_user_attr("pruning", [startup_trials, prune_after])
    startup, epochs = _pruning(study.user_attrs.get("pruning")) or (startup_trials, 0)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=epochs)
    return study


def _damaged(journal: Path, error: Exception) -> FileError:
    reason = in_one_line(f"{type(error).__name__}: {error}")[:200]
    return FileError(
        journal, f"can't be read ({reason})", "restore it, or begin another search by sweep=NAME"
    )


def _pruning(value: object) -> tuple[int, int] | None:
    """Reads the number of startup trials, and of epochs before a trial may be pruned."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    startup, epochs = value
    whole = type(startup) is int and type(epochs) is int and min(startup, epochs) >= 0
    return (startup, epochs) if whole else None


def check_trials(
    study: "Study", space: "Mapping[str, BaseDistribution]", folder: Path, *, accept: bool
) -> None:
    """Refuses a journal whose trials aren't of this search: their values become overrides.

    Args:
        study: The search.
        space: The values that it tries.
        folder: The sweep's.
        accept: Whether trials that have ended may have tried others.

    Raises:
        UserError: A trial has other keys, or a value that the search would never try.
    """
    for trial in study.get_trials(deepcopy=False):
        odd = _odd(trial, space)
        if odd is not None and not (accept and trial.state.is_finished()):
            raise UserError(
                f"{folder / FILE}: trial {trial.number} has a value of {in_one_line(odd)[:100]} "
                "that this search would never try: sweep=NAME begins another search"
            )


def of_the_space(
    trials: "Sequence[FrozenTrial]", space: "Mapping[str, BaseDistribution]"
) -> "list[FrozenTrial]":
    """Keeps the trials that have tried what a search may try."""
    return [trial for trial in trials if _odd(trial, space) is None]


def _odd(trial: "FrozenTrial", space: "Mapping[str, BaseDistribution]") -> str | None:
    """Names a parameter of a trial that a search doesn't have, or not with this value."""
    for key in sorted(trial.params.keys() | space.keys()):
        try:
            value = trial.params[key]
            if not space[key]._contains(space[key].to_internal_repr(value)):
                return key
        except (KeyError, TypeError, ValueError):
            return key
    return None


def trial_of(folder: Path, number: int) -> "Trial":
    """Returns a trial of a search, to report to and to ask whether it should end."""
    import optuna

    study = open_study(folder)
    (frozen,) = (trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    return optuna.Trial(study, frozen._trial_id)
