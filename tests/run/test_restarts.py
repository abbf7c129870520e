"""Processes of several machines agree on how often torchrun has started them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from torch.distributed import TCPStore

PROCESS = """
import json
import sys

from segpets.run.place import Place
from segpets.run.ranks import Ranks

port, rank, attempt = map(int, sys.argv[1:])
place = Place("torchrun", rank, 2, 1, "127.0.0.1", port, attempt, machines=2)
ranks = Ranks(place, hosts_store=False)
earlier = ranks.earlier_run()
if ranks.leads:
    ranks.publish("/run", resumes=earlier is not None)
print(json.dumps([earlier, ranks.run().resumes]), flush=True)
ranks.agree({"data": "the same"})
"""


@pytest.fixture
def port() -> Iterator[int]:
    """Where torchrun keeps its store, from one start to the next."""
    patience = timedelta(seconds=60)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=patience)
    yield store.port


def begun(port: int, rank: int, *, attempt: int = 0) -> subprocess.Popen[str]:
    """Starts a process, with its own machine's count of failures."""
    words = [str(port), str(rank), str(attempt)]
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, *words], stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=60)
    return process.returncode


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_process_that_is_killed_before_it_has_met_the_others_joins_the_next_start(
    port: int,
) -> None:
    leader = begun(port, 0)  # the other is killed while it imports
    assert said(leader) == [None, False]
    killed(leader)
    both = [begun(port, 0), begun(port, 1, attempt=1)]
    assert [said(one) for one in both] == [["/run", True]] * 2
    assert [ended(one) for one in both] == [0, 0]


def test_a_start_in_which_the_leader_was_killed_that_early_counts_for_nothing(port: int) -> None:
    other = begun(port, 1)
    with pytest.raises(subprocess.TimeoutExpired):
        other.wait(4)  # it asks, and nobody answers
    killed(other)
    both = [begun(port, 0, attempt=1), begun(port, 1)]
    assert [said(one) for one in both] == [[None, False]] * 2
    assert [ended(one) for one in both] == [0, 0]


def test_a_process_that_ends_while_its_store_is_asked_isnt_aborted(port: int) -> None:
    code = f"""
from datetime import timedelta

from torch.distributed import TCPStore

from segpets.run.restarts import Restarts

store = TCPStore("127.0.0.1", {port}, timeout=timedelta(seconds=60), wait_for_workers=False)
restarts = Restarts(store, others=5000)  # so many that it asks nearly all the time
restarts.close(patience=0.5)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
