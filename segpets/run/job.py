"""One job of a sweep, as any launcher runs it."""

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from segpets.errors import disk_is_full
from segpets.hardware import threads
from segpets.run.checkpoint import LostError
from segpets.run.files import RunFiles
from segpets.run.gpus import take_gpu
from segpets.run.jobs import (
    State,
    ask_to_stop,
    asked_to_stop,
    mend,
    record_failure,
    settled,
    threads_of,
)
from segpets.run.lock import HeldError, holder_of
from segpets.run.names import fingerprint
from segpets.run.standing import one_line

log = logging.getLogger(__name__)

_LONGEST: Final = 300


def in_short(error: BaseException | None) -> str:
    """Shortens an error to one line."""
    return one_line(error, longest=_LONGEST) or type(error).__name__


def is_job() -> bool:
    """Tells whether this is a job of a multirun."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")


def attempt(cfg: DictConfig, *, train: Callable[[DictConfig], Any]) -> None:
    """Runs one job of a sweep, and never takes the sweep down."""
    path, overrides = Path(cfg.paths.output_dir), list(cfg.overrides)
    _end_with_the_parent()
    state, summary = settled(path)
    if state in (State.COMPLETED, State.RUNNING):
        why = "is complete" if state == State.COMPLETED else f"is run by {holder_of(path)}"
        log.info("%s %s", path.name, why)
        return
    if cfg.fail_fast and asked_to_stop(path.parent):
        log.info("%s doesn't start, as another job failed", path.name)
        return
    take_gpu(cfg.trainer, jobs_per_gpu=cfg.jobs_per_gpu)  # before anything looks for one
    count = threads_of(path.parent, torch.get_num_threads())
    reached = _saved(path)
    if state == State.INTERRUPTED:
        if not summary:
            mend(path, overrides=overrides, config_fingerprint=fingerprint(cfg), threads=count)
        OmegaConf.set_struct(cfg, False)
        cfg.resume, cfg.overrides = str(path), [f"resume={path}"]
    try:
        with threads(count):
            train(cfg)
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
        log.debug("the traceback", exc_info=error)
        try:
            if not full:  # if it is, the job goes on when there is room
                # An interrupted job that fails at once has lost nothing: a disk may be missing.
                # Where its checkpoints are damaged, another start keeps them, and begins anew.
                still = state == State.INTERRUPTED and bool(reached) and reached == _saved(path)
                still = still and not isinstance(error, LostError)
                record_failure(path, overrides, error, text, goes_on=still)
            if cfg.fail_fast:
                ask_to_stop(path.parent)
        except OSError as second:
            log.error("That can't be written down: %s", second)
    finally:
        gc.collect()
        gc.freeze()  # only libraries are left, which the next job needn't search
        torch.cuda.empty_cache()


def _saved(path: Path) -> int:
    """Tells when a run's last checkpoint was written; 0 without any."""
    try:
        return os.stat(RunFiles(path).last).st_mtime_ns
    except OSError:
        return 0


def _end_with_the_parent() -> None:
    """Ends a worker process when the sweep that started it was killed.

    Otherwise it would go on unseen, and hold the job that the next start of the sweep wants.
    """
    name = multiprocessing.current_process().name
    if name == "MainProcess" or any(t.name == "parent" for t in threading.enumerate()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent").start()
