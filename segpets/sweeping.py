"""How a sweep is run, whatever launches its jobs: planned, watched, and told of in the end."""

import gc
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf

from segpets.config import fingerprint
from segpets.errors import JobError, UserError, disk_is_full
from segpets.jobs import (
    MISMATCH,
    Job,
    Plan,
    State,
    ask_to_stop,
    asked_to_stop,
    failures,
    labels,
    look,
    may_start,
    mend,
    one_line,
    plan,
    planning,
    record_failure,
    remember,
    settled,
    standing,
    threads_of,
)
from segpets.run import HeldError, holder_of, shown

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
    """Runs what is missing of a sweep.

    Args:
        config: The sweep's config, with Hydra's own.
        combinations: The overrides of each job.
        compose: Makes a job's config of its overrides; all are made before the first job starts,
            so that a typo costs nothing.
        launch: Runs jobs, by their overrides; returns when all have ended.

    Raises:
        JobError: A job can't be composed.
        UserError: Jobs were begun otherwise, or jobs failed.
    """
    check(config)
    folder = Path(config.hydra.sweep.dir).absolute()
    named = labels({" ".join(words): words for words in combinations})
    words_of: dict[Path, Words] = {}
    jobs: list[Job] = []
    for words in combinations:
        job = composed(named[" ".join(words)], words, compose)
        if job.path not in words_of:
            jobs.append(job)
            words_of[job.path] = words
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
    to_do = {job.path: words_of[job.path] for job, action in planned if action != Plan.DONE}
    broken: Exception | None = None
    if to_do:
        with watched(folder):
            broken = launch_all(to_do, launch)
    conclude(folder, [job.path.name for job in jobs], broken=broken)


def launch_all(
    jobs: Mapping[Path, Words], launch: Callable[[Sequence[Words]], None]
) -> Exception | None:
    """Launches jobs, and goes on with the others when one takes its process down with it.

    A launcher then gives up, and other jobs that ran at that moment were interrupted, too. Each of
    them is launched by itself; the one whose process dies again has failed.

    Args:
        jobs: Their directories and overrides.
        launch: Runs jobs, by their overrides.

    Returns:
        Why the launcher can't go on, if so.
    """
    while left := {p: w for p, w in jobs.items() if look(p)[0] not in _ENDED}:
        try:
            launch(list(left.values()))
            return None
        except Exception as error:
            log.error("The launcher gave up (%s): %s", type(error).__name__, in_short(error))
            if disk_is_full(error):
                return error  # no job would get any further
            suspects = [path for path in left if look(path)[0] == State.INTERRUPTED]
            for path in suspects or list(left)[:1]:
                _alone(path, left[path], launch)
            if all(look(path)[0] not in _ENDED for path in left):
                return error  # none got any further
    return None


def _alone(path: Path, words: Words, launch: Callable[[Sequence[Words]], None]) -> None:
    """Launches a job that may have taken its process down; if it does again, it has failed."""
    try:
        launch([words])
    except Exception as error:
        if look(path)[0] in _ENDED:
            return
        log.error("%s takes its process down: it has failed", path.name)
        with suppress(OSError):
            record_failure(path, words, error, traceback.format_exc())


def check(config: DictConfig) -> None:
    """Refuses values that say nothing.

    Raises:
        UserError: One does.
    """
    if config.sweep_mismatch not in MISMATCH:
        raise UserError(
            f"sweep_mismatch={config.sweep_mismatch} is unknown: choose {', '.join(MISMATCH)}"
        )
    for key in ("fail_fast", "dry_run"):
        if not isinstance(config[key], bool):
            raise UserError(f"{key}={config[key]} must be true or false")


def job_of(cfg: DictConfig) -> Job:
    """What a composed config says of its job."""
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)  # the names of folders refer to it
    try:
        path = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir).absolute()
    finally:
        HydraConfig.instance().cfg = before
    words = OmegaConf.to_container(cfg.hydra.overrides.task)
    assert isinstance(words, list)
    return Job(path, tuple(map(str, words)), fingerprint(cfg))


def _list(jobs: Sequence[Job], folder: Path) -> None:
    from segpets.report.table import as_text, jobs_table

    told = labels({job.path.name: job.overrides for job in jobs})
    rows = [(told[job.path.name], str(look(job.path)[0]), job.path.name) for job in jobs]
    log.info("%s", as_text(jobs_table(rows, title=f"{len(jobs)} jobs of {shown(folder)}")))
    done = sum(state == str(State.COMPLETED) for _, state, _ in rows)
    log.info("dry_run=true: nothing is run. %d would be", len(jobs) - done)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Says how far a sweep is whenever a job ends."""
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


def in_short(error: BaseException | None) -> str:
    """An error in one line, shortened."""
    return one_line(error, longest=_LONGEST) or type(error).__name__


def composed(job: str, words: Words, compose: Callable[[Words], DictConfig]) -> Job:
    """Composes a job, and says which one it was if that fails.

    Args:
        job: What tells it from the others.
        words: Its overrides.
        compose: Makes its config.

    Raises:
        JobError: It can't be composed.
    """
    try:
        return job_of(compose(words))
    except Exception as error:  # of Hydra, of OmegaConf, or of a resolver
        raise JobError(one_line(job, longest=_LONGEST), words) from error


def conclude(folder: Path, names: Sequence[str], *, broken: Exception | None = None) -> None:
    """Shows how a sweep ended.

    Args:
        folder: The sweep's.
        names: The jobs that were asked for.
        broken: Why the launcher couldn't go on.

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


def attempt(
    cfg: DictConfig,
    overrides: Words,
    path: Path,
    *,
    train: Callable[[DictConfig, Words], Any],
) -> None:
    """Runs one job of a sweep, and never takes the sweep down.

    Args:
        cfg: The job's config.
        overrides: Its overrides.
        path: Its run directory.
        train: Runs it, by a config and the overrides that belong to that; a config whose `resume`
            is set goes on.
    """
    import torch

    from segpets.hardware import threads

    _end_with_the_parent()
    state, summary = settled(path)
    if state in (State.COMPLETED, State.RUNNING):
        why = "is complete" if state == State.COMPLETED else f"is run by {holder_of(path)}"
        log.info("%s %s", path.name, why)
        return
    if cfg.fail_fast and asked_to_stop(path.parent):
        log.info("%s doesn't start, as another job failed", path.name)
        return
    words = list(overrides)
    count = threads_of(path.parent, torch.get_num_threads())
    if state == State.INTERRUPTED:
        if not summary:
            mend(path, overrides=words, config_fingerprint=fingerprint(cfg), threads=count)
        words = [f"resume={path}"]
        OmegaConf.set_struct(cfg, False)
        cfg.resume = str(path)
    try:
        with threads(count):
            train(cfg, words)
    except HeldError as error:
        log.info("%s", error)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            "Give the same command again: complete jobs return at once, and this one goes on"
        ) from interrupt
    except BaseException as error:
        text = traceback.format_exc()
        full = disk_is_full(error)
        how = "was interrupted" if full else "failed"
        log.error("%s %s: %s: %s", path.name, how, type(error).__name__, in_short(error))
        try:
            if not full:  # else it goes on when there is room
                record_failure(path, overrides, error, text)
            if cfg.fail_fast:
                ask_to_stop(path.parent)
        except OSError as second:
            log.error("That can't be written down: %s", second)
    finally:
        gc.collect()
        gc.freeze()  # what is left are libraries, which the next job needn't search through
        torch.cuda.empty_cache()


def _end_with_the_parent() -> None:
    """Ends a worker process when the sweep that started it was killed.

    Else it would go on unseen, and hold the job that the next start of the sweep wants.
    """
    import multiprocessing
    import signal

    name = multiprocessing.current_process().name
    if name == "MainProcess" or any(t.name == "parent" for t in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        import time

        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent").start()
