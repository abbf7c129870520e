"""A GPU for each job of a sweep that runs several at a time on one machine."""

import logging
import multiprocessing
import os
import socket
import time
from typing import IO, Any, Final

import torch

from segpets.errors import UserError
from segpets.paths import user_cache
from segpets.run.lock import keep
from segpets.run.names import safe_name

log = logging.getLogger(__name__)

_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_SECONDS: Final = 1.0
_OURS: list[IO[Any]] = []
"""The lock of the place that this process has taken."""


def visible_gpus() -> list[str]:
    """Lists the GPUs that a process started from here would see, without touching them."""
    given = os.environ.get(_VARIABLE)
    if given is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [word.strip() for word in given.split(",") if word.strip() not in ("", "-1")]


def check_places(trainer: Any, *, n_jobs: int, jobs: int, jobs_per_gpu: object) -> None:
    """Refuses more jobs at a time than there are places on GPUs.

    Args:
        trainer: The group `trainer`.
        n_jobs: How many jobs the launcher runs at a time; -1 means one for each core.
        jobs: How many there are.
        jobs_per_gpu: How many may share a GPU.

    Raises:
        UserError: There are too many.
    """
    if isinstance(jobs_per_gpu, bool) or not isinstance(jobs_per_gpu, int) or jobs_per_gpu < 1:
        raise UserError(f"jobs_per_gpu={jobs_per_gpu} must be a number from 1 on")
    at_once = min(jobs, n_jobs if n_jobs > 0 else os.cpu_count() or 1)
    on_gpus = trainer.accelerator in ("auto", "gpu", "cuda") and visible_gpus()
    if on_gpus and at_once > 1 and not _wants_one(trainer):
        raise UserError(
            f"hydra.launcher.n_jobs={n_jobs} would run {at_once} jobs at a time, each on several "
            f"GPUs (trainer.devices={trainer.devices}): say hydra.launcher.n_jobs=1, or "
            "trainer.devices=1"
        )
    places = jobs_per_gpu * len(visible_gpus()) if _wants_one(trainer) else 0
    if places and at_once > places:
        shared = -(-at_once // len(visible_gpus()))
        raise UserError(
            f"hydra.launcher.n_jobs={n_jobs} would run {at_once} jobs at a time, but there is room "
            f"for {places} on {len(visible_gpus())} GPUs: say hydra.launcher.n_jobs={places}, or "
            f"let GPUs be shared by jobs_per_gpu={shared}"
        )


def take_gpu(trainer: Any, *, jobs_per_gpu: int) -> None:
    """Lets a worker process see one GPU only, which it shares with no more jobs than allowed.

    It keeps its place until it ends, as CUDA can't move to another. While all are taken, by
    another sweep for example, it waits. The process that starts the jobs itself sees all GPUs.

    Args:
        trainer: The group `trainer`; a job that wants several GPUs, or none, gets no place.
        jobs_per_gpu: How many may share a GPU.
    """
    if _OURS or multiprocessing.current_process().name == "MainProcess" or not _wants_one(trainer):
        return
    gpus = visible_gpus()
    told = False
    while gpus:
        try:
            if any(_taken(gpu, place) for place in range(jobs_per_gpu) for gpu in gpus):
                return
        except OSError as error:
            log.warning("Jobs may share a GPU by chance, as no place can be taken: %s", error)
            return
        if not told:
            log.info("All places on GPUs (%s) are taken: waiting for one", ", ".join(gpus))
        told = True
        time.sleep(_SECONDS)


def _wants_one(trainer: Any) -> bool:
    return trainer.accelerator in ("auto", "gpu", "cuda") and trainer.devices == 1


def _taken(gpu: str, place: int) -> bool:
    """Takes a place, if it is free."""
    folder = user_cache() / "gpus" / safe_name(socket.gethostname())  # machines may share a home
    folder.mkdir(parents=True, exist_ok=True)
    lock = keep(folder / f"{safe_name(gpu)}.{place}.lock")
    if lock is None:
        return False
    _OURS.append(lock)
    os.environ[_VARIABLE] = gpu
    log.info("This process computes on GPU %s", gpu)
    return True
