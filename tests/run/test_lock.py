"""Who holds a run directory: never the children of a process that was killed."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from segpets.run.lock import HeldError, held, holder_of


def _holder(folder: Path, told: Connection) -> None:
    """Holds a folder and forks a process that outlives it, as a training and its data worker."""
    with held(folder):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        told.send(child.pid)
        time.sleep(60)


def test_a_killed_holder_lets_go_though_its_workers_live(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("fork").Process(target=_holder, args=(tmp_path, theirs))
    holder.start()
    worker = ours.recv()
    try:
        assert holder_of(tmp_path) is not None
        with pytest.raises(HeldError, match=f"is being written by process {holder.pid} on"):
            held(tmp_path).__enter__()
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        os.kill(worker, 0)  # it lives
        assert holder_of(tmp_path) is None
        with held(tmp_path):
            assert holder_of(tmp_path) is not None
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_forked_process_neither_holds_nor_removes_the_lock(tmp_path: Path) -> None:
    with held(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        assert holder_of(tmp_path) == holder_of(tmp_path) is not None
    assert holder_of(tmp_path) is None
