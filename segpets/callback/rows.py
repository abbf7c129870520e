"""A table to which every process adds rows of its images."""

import csv
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Trainer


def gathered(rows: Sequence[Sequence[str]], folder: Path, trainer: Trainer) -> list[list[str]]:
    """Brings the rows of all processes together, by files in a folder that they share.

    Called by every process at once.

    Args:
        rows: Of this process.
        folder: Where the files lie until they are read.
        trainer: Knows the processes.

    Returns:
        The rows of all, sorted, in the process of rank 0; nothing in the others.
    """
    parts = [folder / f".rows.{rank}.csv" for rank in range(trainer.world_size)]
    with parts[trainer.global_rank].open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    trainer.strategy.barrier("segpets.rows")
    found: list[list[str]] = []
    if trainer.is_global_zero:
        for part in parts:
            with part.open(newline="", encoding="utf-8") as file:
                found += csv.reader(file)
            part.unlink()
    return sorted(found)
