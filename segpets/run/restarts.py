"""The count of starts by torchrun on several machines, which process 0 tells the others."""

import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_COUNT: Final = "segpets/started"
_POLL: Final = 0.1
_GONE: Final = 10.0
"""Seconds after which a store that hasn't answered is taken for gone."""


class Restarts:
    """Counts the starts of process 0, and answers the others.

    Each machine's torchrun counts the failures of its own processes only, and a process that was
    killed early has counted nothing. So each asks anew, by a word that no earlier one has given.

    Args:
        store: Where the processes meet; torchrun keeps it.
        others: How many there are beside process 0.
    """

    def __init__(self, store: "Store", *, others: int) -> None:
        self._store, self._others = store, others
        self._told: dict[int, str] = {}
        self._over = threading.Event()
        self.count = int(store.add(_COUNT, 1)) - 1
        self._answering = threading.Thread(target=self._answer, daemon=True)
        self._answering.start()

    def _answer(self) -> None:
        with suppress(RuntimeError):  # the store may be gone
            while not self._over.wait(_POLL):
                for rank in range(1, self._others + 1):
                    if self._store.check([_asks(rank)]):
                        word = self._store.get(_asks(rank)).decode()
                        if self._told.get(rank) != word:
                            self._store.set(_answer_to(word), str(self.count))
                            self._told[rank] = word

    def close(self, *, patience: float = 0.0) -> None:
        """Ends; before, waits so many seconds until each has asked."""
        end = time.monotonic() + patience
        try:
            while len(self._told) < self._others and time.monotonic() < end:
                time.sleep(_POLL)
        finally:
            self._over.set()
            # A thread that is within the store's code when Python ends aborts the process.
            self._answering.join(_GONE)


def ask(store: "Store", rank: int) -> str:
    """Asks process 0 for the count; returns the key of its answer."""
    word = secrets.token_hex(16)
    store.set(_asks(rank), word)
    return _answer_to(word)


def _asks(rank: int) -> str:
    return f"segpets/asks/{rank}"


def _answer_to(word: str) -> str:
    return f"segpets/answer/{word}"
