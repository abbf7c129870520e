"""metrics.csv: a row for each step at which something was logged."""

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from segpets.errors import FileError
from segpets.reading import in_one_line, read_csv
from segpets.run.files import write_atomically

SECONDS_BETWEEN_SAVES = 10.0


class MetricsCSV(Logger):
    """Keeps the rows of a resumed run, which Lightning's CSVLogger deletes.

    Args:
        path: The file. Rows that are there already stay, up to where `go_on` says.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._rows: dict[int, dict[str, str]] | None = None
        self._step: int | None = None
        self._saved = time.monotonic()

    @property
    def name(self) -> str:
        """The kind of logger."""
        return "csv"

    @property
    def version(self) -> str:
        """One file for one run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "MetricsCSV":
        """The logger itself."""
        return self

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Does nothing: hyperparameters lie in the run's config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds values to the row of a step."""
        step = step or 0
        if self._rows is None:
            # Only now, since a process that was spawned for the training may have written before.
            self._rows = self._read()
            if self._step is not None and not any(name.startswith("test/") for name in metrics):
                # The rest is what the run did after the checkpoint from which it goes on; but an
                # earlier end was tested at this very step.
                self._rows = {
                    at: row
                    for at, row in self._rows.items()
                    if at < self._step
                    or (at == self._step and any(k.startswith("test/") for k in row))
                }
        row = self._rows.setdefault(step, {"step": str(step)})
        row.update({name: f"{float(value):.9g}" for name, value in metrics.items()})

    @rank_zero_only
    def go_on(self, step: int, metrics: Mapping[str, float]) -> None:
        """Goes on with the table of an earlier process.

        Args:
            step: The first step that is logged anew.
            metrics: Values that the row before may lack, by name.
        """
        self._step = step
        rows, last = self._read(), step - 1
        if last in rows and any(name not in rows[last] for name in metrics):
            rows[last] = {k: f"{v:.9g}" for k, v in metrics.items()} | rows[last]
            self._rows = rows
            self.flush()
            self._rows = None

    @rank_zero_only
    def save(self) -> None:
        """Writes the file, every few seconds at most; Lightning calls this at each logging step."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            self.flush()

    def _read(self) -> dict[int, dict[str, str]]:
        try:
            lines = read_csv(self._path)
            head = next(lines, ["step"])
            if "step" not in head:
                raise ValueError("it has no column step")
            rows = [dict(zip(head, line, strict=True)) for line in lines]
            return {int(row["step"]): {k: v for k, v in row.items() if v} for row in rows}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = in_one_line(error)[:200]
            raise FileError(
                self._path, f"is no table of a training ({reason})", "move it away"
            ) from error

    @rank_zero_only
    def flush(self) -> None:
        """Writes the file."""
        if not self._rows:
            return
        names = dict.fromkeys(name for row in self._rows.values() for name in row)
        columns = ["step", "epoch", *sorted(names.keys() - {"step", "epoch"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[step] for step in sorted(self._rows))
        write_atomically(self._path, text.getvalue())
        self._saved = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the file."""
        self.flush()
