"""Runs the jobs of a sweep, whatever launches them: plans, watches and reports."""

import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, OmegaConf

from segpets.errors import JobError, UserError, disk_is_full
from segpets.run.files import LATEST, shown
from segpets.run.find import words_of
from segpets.run.gpus import check_places, name_gpus
from segpets.run.job import in_short
from segpets.run.jobs import (
    MISMATCH,
    Job,
    Plan,
    State,
    look,
    may_start,
    plan,
    planning,
    record_failure,
    remember,
)
from segpets.run.lock import holder_of
from segpets.run.names import fingerprint
from segpets.run.standing import failures, labels, one_line, standing

log = logging.getLogger(__name__)

Words = Sequence[str]

_SECONDS_BETWEEN_LOOKS: Final = 2.0
_LONGEST: Final = 300
_ENDED: Final = (State.COMPLETED, State.FAILED, State.RUNNING)


def run_grid(
    config: DictConfig,
    combinations: Sequence[Words],
    *,
    compose: Callable[[Words], DictConfig],
    launch: Callable[[Sequence[Words]], None],
) -> None:
    """Runs the missing jobs of a sweep.

    Args:
        config: The sweep's config, with Hydra's own.
        combinations: The overrides of each job.
        compose: Makes a job's config from its overrides; all are made before the first job starts,
            so that a typo costs nothing.
        launch: Runs jobs, by their overrides; returns when all have ended.

    Raises:
        JobError: A job can't be composed.
        UserError: Jobs were begun with another config or code, or jobs failed.
    """
    check(config)
    folder = Path(config.hydra.sweep.dir).absolute()
    named = labels({" ".join(words): words for words in combinations})
    overrides: dict[Path, Words] = {}
    jobs: list[Job] = []
    for words in combinations:
        job = composed(named[" ".join(words)], words, compose)
        if job.path not in overrides:
            jobs.append(job)
            overrides[job.path] = words
    check(config, [job.trainer for job in jobs])
    if config.dry_run:
        _list(jobs, folder)
        return
    with planning(folder):
        planned = plan(jobs, mismatch=config.sweep_mismatch)
        remember(folder, jobs, metric=config.optimized_metric)
        may_start(folder)
    counts = {action: sum(a == action for _, a in planned) for action in Plan}
    told = ", ".join(f"{n} {action}" for action, n in counts.items() if n)
    log.info("Sweep %s, %d jobs: %s", shown(folder), len(jobs), told)
    to_do = {job.path: overrides[job.path] for job, action in planned if action != Plan.DONE}
    broken: Exception | None = None
    if to_do:
        with watched(folder):
            broken = launch_all(to_do, launch)
    conclude(folder, [job.path.name for job in jobs], broken=broken)


def launch_all(
    jobs: Mapping[Path, Words], launch: Callable[[Sequence[Words]], None]
) -> Exception | None:
    """Launches jobs, and goes on with the others when one brings down its process.

    The launcher then gives up, and other jobs that were running are interrupted, too. Each of them
    is launched by itself; the one whose process dies again has failed.

    Returns:
        The error that keeps the launcher from going on; None if all went well.
    """
    name_gpus()
    while left := {p: w for p, w in jobs.items() if look(p)[0] not in _ENDED}:
        try:
            launch(list(left.values()))
            return None
        except Exception as error:
            log.error("The launcher gave up (%s): %s", type(error).__name__, in_short(error))
            if disk_is_full(error):
                return error  # no other job would get any further
            suspects = [path for path in left if look(path)[0] == State.INTERRUPTED]
            for path in suspects or list(left)[:1]:
                _alone(path, left[path], launch)
            if all(look(path)[0] not in _ENDED for path in left):
                return error  # none got any further
    return None


def _alone(path: Path, words: Words, launch: Callable[[Sequence[Words]], None]) -> None:
    """Launches a job that may have brought down its process; if it does so again, it has failed."""
    try:
        launch([words])
    except Exception as error:
        if look(path)[0] in _ENDED:
            return
        log.error("%s takes its process down: it has failed", path.name)
        with suppress(OSError):
            record_failure(path, words, error, traceback.format_exc())


def check(config: DictConfig, trainers: Sequence[DictConfig] = ()) -> None:
    """Refuses values that mean nothing, and more jobs at a time than there are places on GPUs.

    Args:
        config: The sweep's.
        trainers: The group `trainer` of each job.

    Raises:
        UserError: A value means nothing.
    """
    if config.sweep_mismatch not in MISMATCH:
        raise UserError(
            f"sweep_mismatch={config.sweep_mismatch} is unknown: choose {', '.join(MISMATCH)}"
        )
    for key in ("fail_fast", "dry_run"):
        if not isinstance(config[key], bool):
            raise UserError(f"{key}={config[key]} must be true or false")
    n_jobs = config.hydra.launcher.get("n_jobs", 1)
    check_places(trainers, n_jobs=n_jobs, jobs_per_gpu=config.jobs_per_gpu)


def job_of(cfg: DictConfig) -> Job:
    """Describes the job of a composed config."""
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)  # the names of folders refer to it
    try:
        path = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir).absolute()
    finally:
        HydraConfig.instance().cfg = before
    words = OmegaConf.to_container(cfg.hydra.overrides.task)
    assert isinstance(words, list)
    return Job(path, tuple(map(str, words)), fingerprint(cfg), cfg.trainer, _latest(cfg))


def _latest(cfg: DictConfig) -> Path | None:
    """Finds the latest run, if the config begins with it or learns from it."""
    path = Path(cfg.paths.log_dir, LATEST)
    named = LATEST in words_of(cfg.init_from) + words_of(cfg.teacher)
    return path.resolve() if named and path.is_dir() else None


def _list(jobs: Sequence[Job], folder: Path) -> None:
    from segpets.report.table import as_text, jobs_table

    told = labels({job.path.name: job.overrides for job in jobs})
    rows = [(told[job.path.name], str(look(job.path)[0]), job.path.name) for job in jobs]
    log.info("%s", as_text(jobs_table(rows, title=f"{len(jobs)} jobs of {shown(folder)}")))
    done = sum(state == str(State.COMPLETED) for _, state, _ in rows)
    log.info("dry_run=true: nothing is run. %d would be", len(jobs) - done)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Reports the progress of a sweep whenever a job ends."""
    ended = threading.Event()

    def watch() -> None:
        said = (0, 0)
        while True:
            over = ended.wait(_SECONDS_BETWEEN_LOOKS)
            now = standing(folder)
            counts = (now.count(State.COMPLETED), now.count(State.FAILED))
            if counts != said and not over:
                log.info("[%s]", now)
            said = counts
            if over:
                return

    watcher = threading.Thread(target=watch, daemon=True, name="sweep")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def composed(job: str, words: Words, compose: Callable[[Words], DictConfig]) -> Job:
    """Composes a job, and names it in the error if that fails.

    Raises:
        JobError: It can't be composed.
    """
    try:
        return job_of(compose(words))
    except Exception as error:  # from Hydra, OmegaConf or a resolver
        raise JobError(one_line(job, longest=_LONGEST), words) from error


def conclude(folder: Path, names: Sequence[str], *, broken: Exception | None = None) -> None:
    """Shows how a sweep ended.

    Raises:
        UserError: Some failed, or never ran.
    """
    from segpets.report.table import as_text, jobs_table

    now = standing(folder)
    ranked = sorted(names, key=lambda name: -(now.score(name) or -1.0))
    rows = []
    for name in ranked:
        score = now.score(name)
        shown_score = "-" if score is None else f"{score:.4f}"
        rows.append((now.labels[name], str(now.states[name]), shown_score))
    title = f"{shown(folder)}: {now.metric}"
    log.info("%s", as_text(jobs_table(rows, title=title)))
    for line in failures(now, folder, names):
        log.info("%s", line)
    log.info("%s", now)
    if State.COMPLETED in now.states.values():
        log.info("Compare them: python -m segpets.compare runs=%s", shown(folder))
    failed = [name for name in names if now.states[name] == State.FAILED]
    unrun = [name for name in names if now.states[name] in (State.NEW, State.INTERRUPTED)]
    if running := [name for name in names if now.states[name] == State.RUNNING]:
        holder = holder_of(folder / running[0]) or "another process"
        log.info("%d jobs are run by others, %s by %s", len(running), running[0], holder)
    if broken is not None:
        raise UserError(
            f"the sweep can't go on: {type(broken).__name__}: {in_short(broken)}. The same "
            "command goes on where it stopped"
        )
    if failed:
        reason = now.reason(failed[0], longest=_LONGEST)
        more = f", and {len(unrun)} didn't start" if unrun else ""
        raise UserError(
            f"{len(failed)} of {len(names)} jobs failed{more}. The first, "
            f"{shown(folder / failed[0])}: {reason}. The same command tries "
            "them again"
        )
    if unrun:
        why = f" ({now.reason(unrun[0], longest=_LONGEST)})" if now.error(unrun[0]) else ""
        raise UserError(
            f"{len(unrun)} of {len(names)} jobs have not ended, such as {unrun[0]}{why}: the same "
            "command goes on with them"
        )
