"""The processes of one training that torchrun or srun has started, on one or several machines.

Process 0 leads: it makes the run directory and writes it. All of them meet at a key-value store,
which they ask for that directory, compare their config, code and data at, and name the first error
in, so that one of them tells it.

Imports nothing heavy: most commands have no such company.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from segpets.errors import UserError
from segpets.run.files import shown
from segpets.run.place import Place
from segpets.run.restarts import Restarts, ask

if TYPE_CHECKING:
    from torch import device as Device

_RUN: Final = "segpets/run"
_POLL: Final = 0.1
_PATIENCE: Final = 1800.0
"""Seconds that a process waits for others that say nothing."""
_LOST: Final = (
    *("connection closed", "connection reset", "nccl error", "socket", "broken pipe"),
    "killed by signal: terminated",  # a worker process, which torchrun ends with the others
)


@dataclass(frozen=True)
class Begun:
    """The run that the processes train.

    Attributes:
        folder: Its directory.
        resumes: Whether it had begun, and goes on.
    """

    folder: str
    resumes: bool


class Ranks:
    """The meeting place of the processes.

    Args:
        place: The place of this one.
        hosts_store: Whether process 0 has to keep the store itself; torchrun does it.

    Raises:
        UserError: The store isn't reached.
    """

    def __init__(self, place: Place, *, hosts_store: bool) -> None:
        from torch._C._distributed_c10d import PrefixStore, TCPStore
        from torch.distributed import DistError

        self.place = place
        try:
            self._store = TCPStore(
                place.address,
                place.port,
                is_master=hosts_store and place.leads,
                wait_for_workers=False,
                timeout=timedelta(seconds=120),
            )
        except (DistError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{place} doesn't reach rank 0 at {place.address}:{place.port}: can this "
                f"machine connect to it, and is the port free there? {place.by}'s own settings say "
                "both"
            ) from error
        self._tells, self._keeps_store = False, hosts_store and place.leads
        self._attempt, self._restarts = place.attempt, None
        if place.machines > 1 and place.leads:
            self._restarts = Restarts(self._store, others=place.world - 1)
            self._attempt = self._restarts.count
        elif place.machines > 1:
            answer = ask(self._store, place.rank)
            self._wait(answer, self._store)
            self._attempt = int(self._store.get(answer))
        self._ours = PrefixStore(f"segpets/{self._attempt}", self._store)

    @property
    def leads(self) -> bool:
        """Tells whether this process writes the run."""
        return self.place.leads

    def earlier_run(self) -> str | None:
        """The run that these processes had begun before torchrun started them again."""
        if not self._attempt or not self._store.check([_RUN]):
            return None
        return str(self._store.get(_RUN).decode())

    def publish(self, folder: str, *, resumes: bool) -> None:
        """Tells the others which run it is; process 0 does it."""
        self._store.set(_RUN, folder)
        self._ours.set("run", json.dumps([folder, resumes]))

    def run(self) -> "Begun":
        """Waits for the run to be told; ends the process if the leader has ended."""
        self._wait("run")
        return Begun(*json.loads(self._ours.get("run")))

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Lets those who wait for process 0, or for the one that tells an error, end after it.

        They end as it does. torchrun ends all others as soon as one has ended.
        """
        code: object = 1
        try:
            yield
            code = 0
        except SystemExit as end:
            code = end.code or 0
            raise
        finally:
            with suppress(RuntimeError):  # the store may be gone
                if self._restarts is not None:
                    self._restarts.close(patience=25)
                if self._tells or (self.leads and not self._has("first")):
                    self._ours.set("over", str(code if isinstance(code, int) else 1))
                self._leave()

    def same(self, key: str, make: Callable[[], str]) -> str:
        """Returns in all processes what process 0 makes."""
        if self.leads:
            self._ours.set(key, make())
        self._wait(key)
        return str(self._ours.get(key).decode())

    def agree(
        self,
        facts: Mapping[str, Any],
        error: BaseException | None = None,
        *,
        shown: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        """Waits until all are ready to train, and compares what they are about to train.

        Args:
            facts: What must be the same in all, by the words for it.
            error: Why this process isn't ready.
            shown: What a message says of some facts instead of their values.

        Raises:
            UserError: Another process isn't ready, or has something else; only process 0 raises
                it, the others end.
        """
        told: dict[str, Any] = {"name": str(self.place), "facts": dict(facts)}
        told |= {"shown": {**facts, **shown}, "error": None if error is None else _in_words(error)}
        said = json.dumps(told, default=str)
        if not self.leads:
            self._ours.set(f"ready/{self.place.rank}", said)
            self._wait("go")
            return
        mine = json.loads(said)
        for rank in range(1, self.place.world):
            key = f"ready/{rank}"
            self._wait(key)
            theirs = json.loads(self._ours.get(key))
            if theirs["error"]:
                raise UserError(f"{theirs['name']}: {theirs['error']}")
            for word, value in mine["facts"].items():
                if theirs["facts"].get(word) != value:
                    what = _difference(mine["shown"][word], theirs["shown"].get(word))
                    raise UserError(
                        f"{theirs['name']}, has {word} than rank 0{what}: all processes of a "
                        "training need the same"
                    )
        if self._restarts is not None:
            self._restarts.close()
        self._ours.set("go", "1")

    def connect(self, device: "Device") -> None:
        """Makes PyTorch's process group, as Lightning would.

        After torchrun has started the processes again, its store still has what the killed ones
        wrote there, and PyTorch (2.14) would connect to those.
        """
        import torch
        from torch._C._distributed_c10d import PrefixStore

        backend = torch.distributed.get_default_backend_for_device(device)
        torch.distributed.init_process_group(
            backend,
            store=PrefixStore("group", self._ours),
            rank=self.place.rank,
            world_size=self.place.world,
        )

    @contextmanager
    def failing_once(self, run: Path) -> Iterator[None]:
        """Writes down the first error of all; the leader raises that of another as its own.

        Args:
            run: The run's directory.

        Raises:
            KeyboardInterrupt: Another process was killed, or its machine is gone.
            UserError: Another process failed.
        """
        try:
            yield
        except KeyboardInterrupt as stopped:
            # torchrun's, as soon as one has ended: of an error, it may be.
            _ignore_sigterm()
            if self.leads and self._has("first"):
                first = json.loads(self._ours.get("first"))
                raise UserError(f"{first['name']}: {first['error']}") from stopped
            raise
        except Exception as error:
            _ignore_sigterm()
            if self.leads and _is_lost(error):
                self._look_for("first", seconds=3)
            first = self._claim(error)
            if self.leads and first["rank"] != 0:
                raise UserError(f"{first['name']}: {first['error']}") from error
            if _is_lost(error) and first["rank"] == self.place.rank:
                raise KeyboardInterrupt(
                    f"Another process of this training has ended. resume={shown(run)} goes on "
                    "from the last checkpoint"
                ) from error
            raise

    def tells(self, error: BaseException) -> bool:
        """Tells whether this process is to tell an error; if not, waits until another has."""
        self._tells = self._claim(error)["rank"] == self.place.rank
        if not self._tells:
            self._look_for("over", seconds=10)
        return self._tells

    def _leave(self) -> None:
        """Says good-bye; whoever keeps the store waits for all others, who may still ask it."""
        self._ours.set(f"left/{self.place.rank}", "1")
        if self._keeps_store:
            others = [f"left/{rank}" for rank in range(1, self.place.world)]
            self._look_for(*others, seconds=10)

    def _claim(self, error: BaseException) -> dict[str, Any]:
        mine = {"rank": self.place.rank, "name": str(self.place), "error": _in_words(error)}
        try:
            claimed: bytes = self._ours.compare_set("first", "", json.dumps(mine))
            return json.loads(claimed)  # type: ignore[no-any-return]
        except Exception:  # the store is gone, and with it whoever would tell
            return mine

    def _has(self, *keys: str) -> bool:
        try:
            return bool(self._ours.check(list(keys)))
        except Exception:  # the store is gone
            return False

    def _look_for(self, *keys: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._has(*keys) and time.monotonic() < end:
            time.sleep(_POLL)

    def _wait(self, key: str, store: Any = None) -> None:
        """Waits until another has written a key; ends the process when the leader has ended."""
        store, end = store or self._ours, time.monotonic() + _PATIENCE
        try:
            while not store.check([key]):
                if store.check(["over"]):
                    code = int(store.get("over"))
                    self._leave()
                    _end(code)
                if time.monotonic() > end:
                    raise UserError(
                        f"{self.place} has waited {_PATIENCE:.0f} s for the other processes of "
                        "this training: look what the others say, or whether they run at all"
                    )
                time.sleep(_POLL)
        except UserError:
            raise
        except Exception:  # the store is gone, and the leader with it
            _end(1)


_CURRENT: list[Ranks] = []


def join(place: Place, *, hosts_store: bool) -> Ranks:
    """Makes this process one of several that train together.

    Raises:
        UserError: The others aren't reached.
    """
    ranks = Ranks(place, hosts_store=hosts_store)
    _CURRENT[:] = [ranks]
    return ranks


def current() -> Ranks | None:
    """The processes that this one trains with; None if it trains alone."""
    return _CURRENT[0] if _CURRENT else None


def leads() -> bool:
    """Tells whether this process writes the run: it is the first of several, or by itself."""
    return (ranks := current()) is None or ranks.leads


def _ignore_sigterm() -> None:
    """Lets the run be recorded as it ended, whatever torchrun sends."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _end(code: int) -> NoReturn:
    sys.stdout.flush()
    os._exit(code)


def _is_lost(error: BaseException) -> bool:
    """Tells whether an error says that the connection to another process broke."""
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _LOST)


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _difference(mine: Any, theirs: Any) -> str:
    """Names the first key in which two tables differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted({*mine, *theirs}):
            if mine.get(key) != theirs.get(key):
                return f", {key}={theirs.get(key)} and not {mine.get(key)}"
        return ""
    return f", {theirs} and not {mine}"
