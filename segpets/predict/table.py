"""predictions.csv: the outcome of each picture, written as the pictures are predicted."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from segpets.errors import UserError
from segpets.predict.provenance import TABLE
from segpets.predict.sources import FOLDERS
from segpets.reading import LARGEST_TABLE, csv_cell, from_csv_cell, read_bytes
from segpets.run.files import shown, write_atomically

_KEYS: Final = ("source", "name", "width", "height")
_SHARE: Final = "share_"
_LAST: Final = ("confidence", "error")

Row = dict[str, str]


class Table:
    """The table of an output's folder, from which a killed prediction resumes.

    Args:
        folder: The output's folder.
        classes: Class names.

    Attributes:
        classes: These names.
        rows: By the source's path, absolute.

    Raises:
        UserError: There is a table of other columns, or one that can't be read.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.path = folder / TABLE
        self.classes = list(classes)
        shares = [f"{_SHARE}{name}" for name in classes]
        self.columns = [*_KEYS, *FOLDERS, *shares, *_LAST]
        self.rows = {row["source"]: row for row in self._read()}

    def _read(self) -> list[Row]:
        try:
            text = read_bytes(self.path, LARGEST_TABLE).decode(errors="surrogateescape")
            reader = csv.DictReader(io.StringIO(text, newline=""))
            whole = (row for row in reader if None not in row and None not in row.values())
            rows = [{k: from_csv_cell(v) for k, v in row.items()} for row in whole]
            columns = reader.fieldnames
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(
                f"{self.path} can't be read ({error}): choose another output="
            ) from error
        if columns is not None and columns != self.columns:
            others = self._classes_of(columns)
            raise UserError(
                f"{self.path} is no table of segpets.predict, it has the columns "
                f"{', '.join(columns)[:200]}: choose another output="
                if others is None
                else f"{shown(self.path.parent)} holds predictions of other classes, "
                f"{', '.join(others)[:200]}, while this run has {', '.join(self.classes)[:200]}: "
                "choose another output="
            )
        return [row for row in rows if _is_name(row["name"])]

    def _classes_of(self, columns: Sequence[str]) -> list[str] | None:
        """Reads the classes of a table of predictions; None for another table."""
        before = len(_KEYS) + len(FOLDERS)
        shares = columns[before : len(columns) - len(_LAST)]
        like = [*_KEYS, *FOLDERS, *shares, *_LAST] == list(columns)
        if not like or not all(name.startswith(_SHARE) for name in shares):
            return None
        return [name.removeprefix(_SHARE) for name in shares]

    def names(self) -> dict[str, str]:
        """Maps each source's path to the name of its outputs."""
        return {source: row["name"] for source, row in self.rows.items()}

    def files(self) -> set[str]:
        """Lists the outputs that it names, relative to its folder."""
        return {row[folder] for row in self.rows.values() for folder in FOLDERS} - {""}

    def add(self, row: Mapping[str, object]) -> None:
        """Appends a row; missing values stay empty."""
        full = {key: _text(row.get(key)) for key in self.columns}
        self.rows[full["source"]] = full
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("ab") as file:
            file.write(self._lines([full], header=new))

    def doubt(self, sources: Sequence[str]) -> None:
        """Notes that the predictions of some sources are to be made anew."""
        doubted = [self.rows[source] for source in sources if source in self.rows]
        for row in doubted:
            row["error"] = "is to be predicted anew"
        if doubted:
            self.tidy()

    def tidy(self) -> None:
        """Leaves one row for each source, sorted."""
        rows = [self.rows[source] for source in sorted(self.rows)]
        write_atomically(self.path, self._lines(rows, header=True))

    def _lines(self, rows: Sequence[Row], *, header: bool) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows({k: csv_cell(v) for k, v in row.items()} for row in rows)
        return text.getvalue().encode(errors="surrogateescape")


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _is_name(name: str) -> bool:
    """Tells whether a name, read from a file, stays below the folders of the output."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
