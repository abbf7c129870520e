"""A hyperparameter search: Optuna chooses, Hydra launches, and the sweep's folder remembers."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
)
from omegaconf import DictConfig, OmegaConf

from segpets.config import CONTROLS, HOW, fingerprint, safe_name
from segpets.errors import JobError, UserError
from segpets.jobs import Job, State, look, may_start, planning, remember, standing
from segpets.run import code_revision, shown, write_atomically
from segpets.study import open_study
from segpets.sweeping import check, composed, in_short, launch_all, watched

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

TRIAL: Final = "trial.json"
_DIGITS: Final = 6
_SHOWN: Final = 10

Words = Sequence[str]


@dataclass(frozen=True)
class Options:
    """How a search is made; see `conf/hparams_search/optuna.yaml`."""

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
    options: Options,
    *,
    compose: Callable[[Words], DictConfig],
    launch: Callable[[Sequence[Words], int], None],
    is_group: Callable[[str], bool],
    optional: Sequence[str] = (),
) -> None:
    """Runs trials until there are as many as wanted; those of earlier starts count.

    A trial that was interrupted goes on. Trials that fail or end in NaN are recorded and passed
    over.

    Args:
        config: The sweep's config, with Hydra's own.
        overrides: What is fixed, and what is searched.
        options: How.
        compose: Makes a job's config of its overrides.
        launch: Runs jobs, by their overrides and the number of the first.
        is_group: Whether a key is a config group.
        optional: What is searched only if the config has it.

    Raises:
        JobError: A choice can't be composed.
        UserError: There is nothing to search, another search lies in the folder, or no trial ended
            well.
    """
    from optuna.trial import TrialState

    check(config)
    folder = Path(config.hydra.sweep.dir).absolute()
    fixed = [
        f"{o.get_key_element()}={o.get_value_element_as_str()}"
        for o in overrides
        if not o.is_sweep_override()
    ]
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    base = compose(fixed)
    for key in sorted(set(optional) & space.keys()):
        if OmegaConf.select(base, key) is None:
            log.info("%s is not searched, as this config has none", key)
            del space[key]
    if not space:
        raise UserError(
            "there is nothing to search: give intervals or choices in hydra.sweeper.params"
        )
    if config.dry_run:
        for key, values in space.items():
            log.info("%s: %s", key, values)
        log.info("dry_run=true: nothing is run. %d trials would be", options.n_trials)
        return
    for example in _examples(space):  # finds typos
        composed(" ".join(_words(example)), [*fixed, *_words(example)], compose)
    with planning(folder):
        study = open_study(
            folder,
            seed=options.seed,
            startup_trials=options.startup_trials,
            prune_after=options.prune_after,
        )
        described = {key: str(d) for key, d in sorted(space.items())} | {
            "fixed": sorted(word for word in fixed if not word.lstrip("+~").startswith(HOW)),
            "config": fingerprint(base),
            "code": code_revision(),
        }
        known = study.user_attrs.get("space", described)
        if known != described and config.sweep_mismatch == "refuse":
            raise UserError(
                f"{shown(folder)} holds a search over other values, or by another config or code: "
                "sweep=NAME begins another, sweep_mismatch=accept goes on with the new ones"
            )
        study.set_user_attr("space", described)
        may_start(folder)
    with watched(folder):
        while batch := _batch(study, space, options, folder):
            jobs = []
            for trial in batch:
                words = [*fixed, *_words(trial.params)]
                try:
                    job = composed(" ".join(_words(trial.params)), words, compose)
                except JobError as error:  # values that each go, but not together
                    log.error("%s: it has failed. %s", error, in_short(error.__cause__))
                    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    continue
                job.path.mkdir(parents=True, exist_ok=True)
                if "job" not in trial.user_attrs:
                    study._storage.set_trial_user_attr(trial._trial_id, "job", job.path.name)
                if not (job.path / TRIAL).exists():
                    text = json.dumps({"number": trial.number}) + "\n"
                    write_atomically(job.path / TRIAL, text)
                jobs.append((trial, job, words))
            remember(folder, [job for _, job, _ in jobs], metric=config.optimized_metric)
            first = batch[0].number
            broken = launch_all(
                {job.path: words for _, job, words in jobs}, partial(_launched, launch, first)
            )
            if broken is not None:
                raise UserError(f"the search can't go on: {broken}") from broken
            if not all([_tell(study, trial.number, job) for trial, job, _ in jobs]):
                break
    own = [s.path for s in base.hydra.runtime.config_sources if s.provider == "command-line"]
    _conclude(study, folder, fixed, is_group, own=own)


def _launched(
    launch: Callable[[Sequence[Words], int], None], first: int, words: Sequence[Words]
) -> None:
    launch(words, first)


def distribution(override: Override) -> "BaseDistribution":
    """Turns Hydra's syntax into what Optuna draws from.

    `choice(a,b)` and `a,b` are categories, `range(1,9,2)` steps, `interval(0,1)` real numbers and
    `int(interval(1,8))` whole ones; `tag(log, ...)` draws the logarithm evenly.

    Raises:
        UserError: It is something else.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    key, value = override.get_key_element(), override.value()
    try:
        if isinstance(value, ChoiceSweep):
            return CategoricalDistribution(list(override.sweep_string_iterator()))
        if isinstance(value, IntervalSweep):
            low, high, log_ = value.start, value.end, "log" in value.tags
            if isinstance(low, int) and isinstance(high, int) and not isinstance(low, bool):
                return IntDistribution(low, high, log=log_)
            assert low is not None and high is not None
            return FloatDistribution(float(low), float(high), log=log_)
        if isinstance(value, RangeSweep):
            assert value.start is not None and value.stop is not None
            whole = all(isinstance(n, int) for n in (value.start, value.stop, value.step))
            if whole:
                last = range(int(value.start), int(value.stop), int(value.step))[-1]
                return IntDistribution(int(value.start), last, step=int(value.step))
            steps = math.ceil((value.stop - value.start) / value.step) - 1
            last_ = value.start + steps * value.step
            return FloatDistribution(float(value.start), float(last_), step=float(value.step))
    except (ValueError, IndexError) as error:
        raise UserError(f"{override.input_line} can't be searched: {error}") from error
    raise UserError(
        f"{key} can't be searched by {override.input_line}: write interval(a,b), choice(a,b), "
        "range(a,b) or tag(log,interval(a,b))"
    )


def _examples(space: Mapping[str, "BaseDistribution"]) -> list[dict[str, Any]]:
    """Values that may be drawn, so that each choice is among them once."""
    every = {
        key: getattr(values, "choices", None) or (getattr(values, "low"),)  # noqa: B009
        for key, values in space.items()
    }
    first = {key: values[0] for key, values in every.items()}
    return [first, *(first | {key: v} for key, values in every.items() for v in values[1:])]


def _words(params: Mapping[str, Any]) -> list[str]:
    """Values as overrides; real numbers by their first six digits."""
    return [
        f"{key}={value:.{_DIGITS}g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]


def _batch(
    study: "Study", space: Mapping[str, "BaseDistribution"], options: Options, folder: Path
) -> list["Trial | FrozenTrial"]:
    """The next trials: those that an earlier start left, else new ones, else none."""
    import optuna
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    left = [
        trial
        for trial in trials
        if trial.state == TrialState.RUNNING
        and look(folder / trial.user_attrs.get("job", "."))[0] != State.RUNNING
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


def _tell(study: "Study", number: int, job: Job) -> bool:
    """Records how a trial ended; gives False if it hasn't."""
    from optuna.trial import TrialState

    state, _ = look(job.path)
    if state not in (State.COMPLETED, State.FAILED):
        return state == State.RUNNING  # by another process, which will tell
    noted = json.loads((job.path / TRIAL).read_text(encoding="utf-8"))
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
    folder: Path,
    fixed: Words,
    is_group: Callable[[str], bool],
    *,
    own: Sequence[str],
) -> None:
    """Shows the best trials and what mattered, and writes the best one as an experiment."""
    import optuna
    from optuna.trial import TrialState

    from segpets.report.table import as_text, facts_table, jobs_table

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    told = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
    log.info("%d trials: %s", len(trials), told)
    if not complete:
        raise UserError(
            f"no trial ended well: python -m segpets.sweep status={shown(folder)} says why each "
            "failed"
        )
    ranked = sorted(complete, key=lambda trial: -(trial.value or 0.0))
    rows = [(" ".join(_words(t.params)), f"{t.value:.4f}", f"trial {t.number}") for t in ranked]
    log.info("%s", as_text(jobs_table(rows[:_SHOWN], title=f"{shown(folder)}: the best trials")))
    if len(complete) > 1:
        try:
            parts = optuna.importance.get_param_importances(study)
        except (RuntimeError, ValueError):  # all trials are as good
            parts = {}
        facts = {key: f"{part:.0%}" for key, part in parts.items()}
        if facts:
            log.info("%s", as_text(facts_table(facts, title="importance of each parameter")))
    best = ranked[0]
    name = safe_name(f"{folder.name}_best")
    file = folder / "conf" / "experiment" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    words = [*fixed, *_words(best.params)]
    write_atomically(file, experiment(words, name=name, folder=folder / "conf", is_group=is_group))
    log.info("The best as an experiment: %s", shown(file))
    # Groups of the user's own are found by the search path, as --config-dir is given once.
    more = f" 'hydra.searchpath=[{','.join(own)}]'" if own else ""
    conf = shown(folder / "conf")
    log.info("  python -m segpets.train --config-dir %s experiment=%s%s", conf, name, more)


def experiment(words: Words, *, name: str, folder: Path, is_group: Callable[[str], bool]) -> str:
    """Writes overrides as a config of the group experiment.

    Args:
        words: The overrides.
        name: The experiment's name.
        folder: Its config folder.
        is_group: Whether a key is a config group.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    defaults, values = [], OmegaConf.create()
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        if key in (*CONTROLS, "hparams_search") or key.startswith(("hydra", "paths.")):
            continue
        if is_group(key):
            chosen = override.value()
            package = f"@{override.package}" if override.package else ""
            defaults.append({f"override /{key}{package}": chosen})
        else:
            OmegaConf.update(values, key, override.value(), force_add=True)
    head = (
        "# @package _global_\n"
        f"# python -m segpets.train --config-dir {shown(folder)} experiment={name}\n"
    )
    listed = OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults})) if defaults else ""
    return head + listed + (OmegaConf.to_yaml(values) if values else "")
