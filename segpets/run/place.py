"""The place of a process among those of one training, as torchrun or srun says it."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A process's place among those of one training.

    Attributes:
        by: The program that started them: `torchrun` or `srun`.
        rank: Its number among all.
        world: Number of all.
        local_world: Number of those on this machine.
        address: Where process 0 or torchrun keeps the store.
        port: The store's port.
        attempt: How often torchrun has started them again, as this machine counts it.
        machines: Number of machines.
    """

    by: str
    rank: int
    world: int
    local_world: int
    address: str
    port: int
    attempt: int = 0
    machines: int = 1

    @property
    def leads(self) -> bool:
        """Tells whether this process writes the run."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} processes, on {socket.gethostname()}"
