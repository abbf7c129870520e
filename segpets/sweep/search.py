"""A hyperparameter search: Optuna chooses, Hydra launches, and the sweep's folder remembers."""

import json
import logging
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hydra.core.override_parser.types import (
    Override,
)
from omegaconf import DictConfig, OmegaConf

from segpets.errors import JobError, UserError
from segpets.reading import read_json
from segpets.run.files import RunFiles, shown, write_atomically
from segpets.run.job import in_short
from segpets.run.jobs import Job, State, asked_to_stop, look, may_start, planning, remember
from segpets.run.names import CONTROLS, HOW, fingerprint, safe_name
from segpets.run.standing import standing
from segpets.run.study import check_trials, of_the_space, open_study
from segpets.run.versions import code_revision
from segpets.sweep.grid import check, composed, launch_all, watched
from segpets.sweep.space import as_overrides, distribution, examples

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

_SHOWN: Final = 10
_NOT_SEARCHED: Final = {"seed", "data.seed", "data.fold", "data.folds"}

Words = Sequence[str]


@dataclass(frozen=True)
class SearchOptions:
    """Settings of a search; see `conf/hparams_search/optuna.yaml`."""

    n_trials: int
    n_jobs: int
    seed: int
    startup_trials: int
    prune_after: int

    def __post_init__(self) -> None:
        for key, least in (
            ("n_trials", 1),
            ("n_jobs", 1),
            ("startup_trials", 1),
            ("prune_after", 0),
        ):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                name = key if key == "n_trials" else f"hydra.sweeper.{key}"
                raise UserError(f"{name}={value} must be a whole number of at least {least}")


def run_search(
    config: DictConfig,
    overrides: Sequence[Override],
    options: SearchOptions,
    *,
    compose: Callable[[Words], DictConfig],
    launch: Callable[[int, Sequence[Words]], None],
    is_group: Callable[[str], bool],
    optional: Sequence[str] = (),
) -> None:
    """Runs trials until there are as many as requested; those of earlier starts count.

    Interrupted trials go on. Those that fail or end in NaN are recorded and passed over.

    Args:
        config: The sweep's config, with Hydra's own.
        overrides: The fixed overrides, and those that are searched.
        options: The settings of the search.
        compose: Makes a job's config from its overrides.
        launch: Runs jobs, given the number of the first and their overrides.
        is_group: Whether a key is a config group.
        optional: Keys that are searched only if the config has them.

    Raises:
        JobError: A choice can't be composed.
        UserError: There is nothing to search, another search lies in the folder, no trial ended
            well, or `fail_fast` ended it.
    """
    check(config, [config.trainer] * options.n_trials)
    folder = Path(config.hydra.sweep.dir).absolute()
    fixed = [
        f"{o.get_key_element()}={o.get_value_element_as_str()}"
        for o in overrides
        if not o.is_sweep_override()
    ]
    base = compose(fixed)
    space = _space(overrides, optional, base)
    if config.dry_run:
        for key, values in space.items():
            log.info("%s: %s", key, values)
        log.info("dry_run=true: nothing is run. %d trials would be", options.n_trials)
        return
    for example in examples(space):  # finds typos
        composed(" ".join(as_overrides(example)), [*fixed, *as_overrides(example)], compose)
    study = _study(config, folder, options, space, base, fixed)
    with watched(folder):
        while batch := _batch(study, space, options, folder):
            jobs = list(_jobs(study, batch, fixed, compose))
            remember(folder, [job for _, job, _ in jobs], metric=config.optimized_metric)
            to_do = {job.path: words for _, job, words in jobs}
            broken = launch_all(to_do, partial(launch, batch[0].number))
            if broken is not None:
                raise UserError(f"the search can't go on: {broken}") from broken
            ended = all([_tell(study, number, job) for number, job, _ in jobs])
            if not ended or asked_to_stop(folder):
                break
    own = [s.path for s in base.hydra.runtime.config_sources if s.provider == "command-line"]
    _conclude(study, space, folder, fixed, is_group, own=own)
    if batch:
        raise _cut_short(study, folder, options.n_trials, ended=ended)


def _cut_short(study: "Study", folder: Path, wanted: int, *, ended: bool) -> UserError:
    if (trials := sum(trial.state.is_finished() for trial in study.trials)) == wanted:
        told = f"python -m segpets.sweep status={shown(folder)} says why"
        return UserError(f"a trial failed, with fail_fast=true, and none is left to run: {told}")
    why = "a trial failed, and fail_fast=true" if ended else "a trial hasn't ended, which"
    return UserError(
        f"{why} stops the search at {trials} of {wanted} trials: the same command goes on"
    )


def _space(
    overrides: Sequence[Override], optional: Sequence[str], base: DictConfig
) -> dict[str, "BaseDistribution"]:
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    if odd := sorted(space.keys() & _NOT_SEARCHED):
        raise UserError(
            f"{odd[0]} is nothing that a search can choose, as the luckiest would win: give it one "
            "value, or run a grid, without hparams_search"
        )
    for key in sorted(set(optional) & space.keys()):
        if OmegaConf.select(base, key) is None:
            log.info("%s is not searched, as this config has none", key)
            del space[key]
    if not space:
        raise UserError(
            "there is nothing to search: give intervals or choices in hydra.sweeper.params"
        )
    return space


def _study(
    config: DictConfig,
    folder: Path,
    options: SearchOptions,
    space: Mapping[str, "BaseDistribution"],
    base: DictConfig,
    fixed: Words,
) -> "Study":
    """Opens the folder's study, and refuses one that searches other values."""
    described = {key: str(d) for key, d in sorted(space.items())} | {
        "fixed": sorted(word for word in fixed if not word.lstrip("+~").startswith(HOW)),
        "config": fingerprint(base),
        "code": code_revision(),
    }
    with planning(folder):
        study = open_study(
            folder,
            seed=options.seed,
            startup_trials=options.startup_trials,
            prune_after=options.prune_after,
        )
        known = study.user_attrs.get("space")
        if known is None and not study.get_trials(deepcopy=False):
            known = described
        if known != described and config.sweep_mismatch == "refuse":
            raise UserError(
                f"{shown(folder)} holds a search over other values, or by another config or code: "
                "sweep=NAME begins another, sweep_mismatch=accept goes on with the new ones"
            )
        check_trials(study, space, folder, accept=config.sweep_mismatch == "accept")
        study.set_user_attr("space", described)
        may_start(folder)
    return study


def _jobs(
    study: "Study",
    batch: Sequence["Trial | FrozenTrial"],
    fixed: Words,
    compose: Callable[[Words], DictConfig],
) -> Iterator[tuple[int, Job, Words]]:
    """Composes the jobs of trials, and gives each its directory."""
    from optuna.trial import TrialState

    for trial in batch:
        words = [*fixed, *as_overrides(trial.params)]
        try:
            job = composed(" ".join(as_overrides(trial.params)), words, compose)
        except JobError as error:  # values that work singly, but not together
            log.error("%s: it has failed. %s", error, in_short(error.__cause__))
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            continue
        job.path.mkdir(parents=True, exist_ok=True)
        if "job" not in trial.user_attrs:
            study._storage.set_trial_user_attr(trial._trial_id, "job", job.path.name)
        if not RunFiles(job.path).trial.exists():
            text = json.dumps({"number": trial.number}) + "\n"
            write_atomically(RunFiles(job.path).trial, text)
        yield trial.number, job, words


def _batch(
    study: "Study", space: Mapping[str, "BaseDistribution"], options: SearchOptions, folder: Path
) -> list["Trial | FrozenTrial"]:
    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    left = [
        trial
        for trial in trials
        if trial.state == TrialState.RUNNING and look(folder / _job_of(trial))[0] != State.RUNNING
    ]
    if left:
        return list(left[: options.n_jobs])
    asked: list[Trial | FrozenTrial] = []
    for number in range(len(trials), min(len(trials) + options.n_jobs, options.n_trials)):
        # A stream for each trial: one for all would begin anew at each start of the search.
        seed = np.random.SeedSequence([options.seed, number]).generate_state(1)[0]
        study.sampler = optuna.samplers.TPESampler(
            seed=int(seed), n_startup_trials=options.startup_trials
        )
        asked.append(study.ask(dict(space)))
    return asked


def _job_of(trial: "FrozenTrial") -> str:
    """The name of a trial's folder within the sweep's; "." if it has none."""
    name = trial.user_attrs.get("job")
    return name if isinstance(name, str) and Path(name).name == name else "."


def _tell(study: "Study", number: int, job: Job) -> bool:
    """Records how a trial ended; returns False if it hasn't."""
    from optuna.trial import TrialState

    state, _ = look(job.path)
    if state not in (State.COMPLETED, State.FAILED):
        return state == State.RUNNING  # in another process, which will record it
    noted = read_json(RunFiles(job.path).trial)
    score = standing(job.path.parent).score(job.path.name)
    if state == State.FAILED or score is None or not math.isfinite(score):
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    elif "pruned_at_epoch" in noted:
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
    else:
        study.tell(number, score, skip_if_finished=True)
    return True


def _conclude(
    study: "Study",
    space: Mapping[str, "BaseDistribution"],
    folder: Path,
    fixed: Words,
    is_group: Callable[[str], bool],
    *,
    own: Sequence[str],
) -> None:
    """Shows the best trials and what mattered, and writes the best trial as an experiment."""
    import optuna
    from optuna.trial import TrialState

    from segpets.report.table import as_text, facts_table, jobs_table

    trials = study.get_trials(deepcopy=False)
    complete = of_the_space([t for t in trials if t.state == TrialState.COMPLETE], space)
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    told = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    log.info("%d trials: %s", len(trials), told)
    if not complete:
        raise UserError(
            f"no trial ended well: python -m segpets.sweep status={shown(folder)} says why each "
            "failed"
        )
    ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))
    rows = [
        (" ".join(as_overrides(t.params)), f"{t.value:.4f}", f"trial {t.number}") for t in ranked
    ]
    log.info("%s", as_text(jobs_table(rows[:_SHOWN], title=f"{shown(folder)}: the best trials")))
    if len(complete) > 1:
        try:
            parts = optuna.importance.get_param_importances(study)
        except (RuntimeError, ValueError):  # all trials are equally good
            parts = {}
        facts = {key: f"{part:.0%}" for key, part in parts.items()}
        if facts:
            log.info("%s", as_text(facts_table(facts, title="importance of each parameter")))
    best = ranked[0]
    name = safe_name(f"{folder.name}_best")
    file = folder / "conf" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    # A config can't take anything out of another one.
    without = " ".join(shlex.quote(word) for word in fixed if word.startswith("~"))
    words = [*(word for word in fixed if word[0] != "~"), *as_overrides(best.params)]
    write_atomically(file, experiment(words, name=name, folder=folder / "conf", is_group=is_group))
    log.info("The best as an experiment: %s", shown(file))
    # Groups of the user's own are found by the search path, as --config-dir is given once.
    more = f" 'hydra.searchpath=[{','.join(own)}]'" if own else ""
    more += f" {without}" if without else ""
    conf = shown(folder / "conf")
    log.info("  python -m segpets.train --config-dir %s experiment=%s%s", conf, name, more)


def experiment(words: Words, *, name: str, folder: Path, is_group: Callable[[str], bool]) -> str:
    """Writes overrides as a config of the group experiment."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    defaults, values = list[Any](), OmegaConf.create()
    before: list[Any] = []
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        if key in (*CONTROLS, "hparams_search") or key.startswith(("hydra", "paths.")):
            continue
        if is_group(key):
            chosen = override.value()
            package = f"@{override.package}" if override.package else ""
            if key == "experiment":  # this file takes its place, and so begins with it
                before += chosen if isinstance(chosen, list) else [chosen]
            else:
                defaults.append({f"override /{key}{package}": chosen})
        else:
            OmegaConf.update(values, key, override.value(), force_add=True)
    head = (
        "# @package _global_\n"
        f"# python -m segpets.train --config-dir {shown(folder)} experiment={name}\n"
    )
    defaults = [*before, "_self_", *defaults] if before else defaults
    listed = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if defaults else ""
    return head + listed + (OmegaConf.to_yaml(values) if values else "")
