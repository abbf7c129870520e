"""Who holds a run directory: never the children of a process that was killed."""

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from segpets.run.lock import HeldError, held, holder_of, keep, waiting


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


def _waits(lock: Path, told: Connection, leave: Connection) -> None:
    with waiting(lock):
        told.send("in")
        leave.recv()


def test_who_waited_for_a_removed_lock_holds_the_one_that_has_its_name(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    says, hears = multiprocessing.Pipe()
    lock = tmp_path / ".lock"
    with waiting(lock):
        other = multiprocessing.get_context("spawn").Process(  # a fork would hold ours, too
            target=_waits, args=(lock, theirs, hears), daemon=True
        )
        other.start()
        assert not ours.poll(2)
        lock.unlink()
    assert ours.poll(60) and ours.recv() == "in"
    assert keep(lock) is None, "a third would be in, too"
    says.send("leave")
    other.join()
    third = keep(lock)
    assert third is not None
    third.close()


def test_a_forked_process_neither_holds_nor_removes_the_lock(tmp_path: Path) -> None:
    with held(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
        assert holder_of(tmp_path) == holder_of(tmp_path) is not None
    assert holder_of(tmp_path) is None
