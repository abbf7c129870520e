"""A GPU for each job of a sweep that runs several at a time on one machine."""

import itertools
import logging
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from typing import IO, Any, Final

import torch

from segpets.errors import UserError
from segpets.paths import user_cache
from segpets.run.lock import keep
from segpets.run.names import safe_name

log = logging.getLogger(__name__)

_VARIABLE: Final = "CUDA_VISIBLE_DEVICES"
_ON_GPUS: Final = ("auto", "gpu", "cuda")
_SECONDS: Final = 1.0
_OURS: list[IO[Any]] = []
"""The lock of the place that this process has taken."""


def visible_gpus() -> list[str]:
    """Lists the GPUs that a process started from here would see, without touching them.

    CUDA hides all behind a number that is none, such as -1.
    Source: CUDA Programming Guide, environment variables.
    """
    given = os.environ.get(_VARIABLE)
    if given is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    words = itertools.takewhile(
        lambda word: word not in ("", "-1"), (word.strip() for word in given.split(","))
    )
    return list(dict.fromkeys(words))


def check_places(trainers: Sequence[Any], *, n_jobs: int, jobs_per_gpu: object) -> None:
    """Refuses more jobs at a time than there are places on GPUs.

    Args:
        trainers: The group `trainer` of each job.
        n_jobs: How many jobs the launcher runs at a time; -1 means one for each core, of which
            those that find no place wait.
        jobs_per_gpu: How many may share a GPU.

    Raises:
        UserError: There are too many.
    """
    if isinstance(jobs_per_gpu, bool) or not isinstance(jobs_per_gpu, int) or jobs_per_gpu < 1:
        raise UserError(f"jobs_per_gpu={jobs_per_gpu} must be a number from 1 on")
    at_once = min(len(trainers), n_jobs if n_jobs > 0 else os.cpu_count() or 1)
    gpus = visible_gpus()
    on_gpus = [one for one in trainers if one.accelerator in _ON_GPUS] if gpus else []
    if several := [one.devices for one in on_gpus if at_once > 1 and not _wants_one(one)]:
        raise UserError(
            f"hydra.launcher.n_jobs={n_jobs} would run {at_once} jobs at a time, some of them on "
            f"GPUs that they choose themselves (trainer.devices={several[0]}): say "
            "hydra.launcher.n_jobs=1, or trainer.devices=1"
        )
    places = jobs_per_gpu * len(gpus)
    if on_gpus and n_jobs > 0 and min(at_once, len(on_gpus)) > places:
        shared = -(-at_once // len(gpus))
        raise UserError(
            f"hydra.launcher.n_jobs={n_jobs} would run {at_once} jobs at a time, but there is room "
            f"for {places} on {len(gpus)} GPUs: say hydra.launcher.n_jobs={places}, or "
            f"let GPUs be shared by jobs_per_gpu={shared}"
        )


def name_gpus() -> None:
    """Says in the environment which GPUs there are, for the processes to come.

    Without NVIDIA's management library PyTorch counts them by starting CUDA, which sees from then
    on what it saw first.
    """
    if os.environ.get(_VARIABLE) is None and (gpus := visible_gpus()):
        os.environ[_VARIABLE] = ",".join(gpus)


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
    return trainer.accelerator in _ON_GPUS and trainer.devices in (1, "1")


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
