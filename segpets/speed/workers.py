"""A process for each variant: its memory is its own, and all take turns with their passes.

The processes are forked from one that has imported the libraries, and nothing else, so that a
dozen of them start within seconds. Only one computes at a time, except where torch.compile
compiles, in a first pass.
"""

import logging
import math
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Final

import torch

from segpets.errors import UserError
from segpets.speed.memory import Memory
from segpets.speed.subject import Subject
from segpets.speed.timing import Timing, timed, timing, warm_up
from segpets.speed.variants import VARIANTS, Pass, Variant, exported, prepare

ROUNDS: Final = 5
"""In so many turns the passes of a variant are spread over the time of the measurement."""
AT_ONCE: Final = 8
"""So many processes exist at a time; each holds a model."""
_WARM_UP_LIMIT = 10.0
_PATIENCE = 5.0


@dataclass(frozen=True)
class Job:
    """A variant of a model on a device.

    Attributes:
        subject: The model.
        device: PyTorch's name of the device.
        variant: A name in `VARIANTS`.
    """

    subject: Subject
    device: str
    variant: str


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        batch_sizes: Images of a pass.
        seconds: So long the passes of a variant take at each batch size, about.
        repeats: So many passes there are at least.
        warmup: So many passes at least come before.
        threads: How many threads compute on the CPU.
    """

    batch_sizes: Sequence[int]
    seconds: float
    repeats: int
    warmup: int
    threads: int


@dataclass(frozen=True)
class Row:
    """What was found of a job at a batch size.

    Attributes:
        job: The job.
        batch: Images of a pass.
        timing: The times; None where it couldn't be measured.
        first_pass_s: Seconds of the very first pass; torch.compile compiles in it.
        warm_up: How many passes came before those that count, the first one included.
        peak_memory_mb: The most memory in use during the passes, in MB of 10^6 bytes. On a CPU
            that of the process, less what it held before the model was made.
        missing: Why there is no timing.
    """

    job: Job
    batch: int
    timing: Timing | None = None
    first_pass_s: float | None = None
    warm_up: int = 0
    peak_memory_mb: float | None = None
    missing: str | None = None


def measure(jobs: Sequence[Job], plan: Plan, *, say: Callable[[str], None]) -> list[Row]:
    """Measures jobs; neighbours in the list take turns, so compare best.

    Args:
        jobs: What to measure.
        plan: How.
        say: Is told what goes on.

    Returns:
        A row for each job and batch size, in the jobs' order. What fails has a reason in place
        of numbers.
    """
    found: dict[tuple[int, int], Row] = {}
    able: list[int] = []
    for index, job in enumerate(jobs):
        if reason := _impossible(job):
            for batch in plan.batch_sizes:
                found[index, batch] = Row(job, batch, missing=reason)
        else:
            able.append(index)
    for start in range(0, len(able), AT_ONCE):
        part = able[start : start + AT_ONCE]
        with _workers([jobs[i] for i in part], plan) as workers:
            for batch in sorted(plan.batch_sizes):  # memory that is kept can't lower later peaks
                names = ", ".join(dict.fromkeys(jobs[i].variant for i in part))
                say(f"batch {batch}: {names}")
                rows = _at_batch(workers, batch, plan)
                found |= {(i, batch): row for i, row in zip(part, rows, strict=True)}
    return [found[i, batch] for i in range(len(jobs)) for batch in plan.batch_sizes]


def _impossible(job: Job) -> str | None:
    """Why a job needs no process to be found impossible."""
    variant = VARIANTS[job.variant]
    kind = torch.device(job.device).type
    if kind not in variant.devices:
        return f"not for {kind}, but for {' and '.join(variant.devices)}"
    try:
        if variant.file is not None:
            exported(variant.file, job.subject)
    except UserError as error:
        return str(error)
    return None


class _Worker:
    """A process that measures one job, and answers orders."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self.job, self.failure = job, ""
        context = _context()
        self._connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, job, plan.threads))
        self._process.start()
        other.close()

    def begin(self, *order: Any) -> None:
        """Sends an order."""
        if not self.failure:
            with suppress(OSError):
                self._connection.send(order)

    def end(self) -> Any:
        """Waits for the answer to the last order; None once the process has failed."""
        if self.failure:
            return None
        try:
            good, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            killed = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
            self.failure = f"its process ended {killed}; was there too little memory?"
            return None
        if not good:
            self.failure = answer
            return None
        return answer

    def ask(self, *order: Any) -> Any:
        """Sends an order and waits for its answer."""
        self.begin(*order)
        return self.end()

    def hang_up(self) -> None:
        """Closes the pipe, at which the process ends when it has finished its pass."""
        self._connection.close()

    def close(self, *, patience: float) -> None:
        """Waits so many seconds for the process to end, and then ends it."""
        self._process.join(max(patience, 0))
        self._process.terminate()
        self._process.join()
        self._process.close()


@contextmanager
def _workers(jobs: Iterable[Job], plan: Plan) -> Iterator[list[_Worker]]:
    workers: list[_Worker] = []
    try:
        for job in jobs:
            workers.append(_Worker(job, plan))
        for worker in workers:
            worker.end()  # its model is made
        yield workers
    finally:
        for worker in workers:
            worker.hang_up()
        until = time.monotonic() + _PATIENCE  # what ends by itself cleans up behind it
        for worker in workers:
            worker.close(patience=until - time.monotonic())


def _context() -> Any:
    """How processes are made: forked from a server that has imported this, where there are such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _at_batch(workers: Sequence[_Worker], batch: int, plan: Plan) -> list[Row]:
    rows = [Row(worker.job, batch) for worker in workers]
    compiled = [w for w in workers if VARIANTS[w.job.variant].compiled]
    for worker in compiled:
        worker.begin("first", batch)  # at once: a compiler uses one core
    firsts = {id(worker): worker.end() for worker in compiled}
    firsts |= {id(w): w.ask("first", batch) for w in workers if w not in compiled}
    rows = [replace(row, first_pass_s=firsts[id(w)]) for row, w in zip(rows, workers, strict=True)]
    counts, seconds = [], [list[float]() for _ in workers]
    for index, worker in enumerate(workers):
        warm = worker.ask("warm_up", plan.warmup, _WARM_UP_LIMIT) or [math.inf]
        wanted = max(plan.repeats, math.ceil(plan.seconds / min(warm)))
        counts.append(math.ceil(wanted / ROUNDS))
        rows[index] = replace(rows[index], warm_up=len(warm) + 1)
        worker.ask("forget_peak")
    for _ in range(ROUNDS):
        for worker, count, times in zip(workers, counts, seconds, strict=True):
            times += worker.ask("passes", count) or []
    for index, (worker, times) in enumerate(zip(workers, seconds, strict=True)):
        peak = worker.ask("peak")
        if worker.failure:
            rows[index] = Row(worker.job, batch, missing=worker.failure)
        else:
            told = timing(times, batch=batch)
            rows[index] = replace(rows[index], timing=told, peak_memory_mb=peak)
    return rows


def work(connection: Connection, job: Job, threads: int) -> None:
    """What a process does: makes its model, and answers orders until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the one that asks does
    logging.disable()  # what goes wrong is answered, once
    warnings.simplefilter("ignore")
    # A pool of compilers would outlive this process, and wants the cores of the others.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    variant = VARIANTS[job.variant]
    try:
        torch.set_num_threads(threads)
        with suppress(EOFError, BrokenPipeError, ConnectionResetError):
            _answer(connection, variant, job, threads)
    except Exception as error:
        with suppress(OSError):
            connection.send((False, _reason(error)))
    finally:
        connection.close()


def _answer(connection: Connection, variant: Variant, job: Job, threads: int) -> None:
    device = torch.device(job.device)
    memory = Memory(device)
    passes = prepare(variant, job.subject, device, threads)
    connection.send((True, None))
    one: Pass | None = None
    while True:
        order, *values = connection.recv()
        answer: Any = None
        if order == "first":
            one = passes(*values)
            answer = timed(one, passes=1)[0]
        elif order == "warm_up" and one is not None:
            least, limit = values
            answer = warm_up(one, least=least, limit=limit)
        elif order == "passes" and one is not None:
            one()  # the others have used the caches since
            answer = timed(one, passes=values[0])
        elif order == "forget_peak":
            memory.forget_peak()
        elif order == "peak":
            answer = memory.peak_mb()
        connection.send((True, answer))


def _reason(error: Exception) -> str:
    """An error in a line: of a library's, what is said first."""
    if isinstance(error, UserError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"
