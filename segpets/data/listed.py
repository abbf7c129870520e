"""Tables of pairs and lists of images, as people write them."""

import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from segpets.data.filenames import normal, read_text
from segpets.data.source import Sample
from segpets.errors import UserError

AMBIGUOUS = -1


def rows_by_name(
    samples: Sequence[Sample], bases: Sequence[Path]
) -> tuple[dict[str, int], dict[str, int]]:
    """Maps paths, and bare names, of samples to their rows, with and without suffix."""
    by_path: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for row, sample in enumerate(samples):
        paths = set(within(bases, os.path.abspath(sample.image)))
        for calls, names in ((by_path, paths), (by_name, {sample.image.name, sample.name})):
            for name in map(normal, names):
                for call in {name, os.path.splitext(name)[0]}:
                    calls[call] = row if calls.get(call, row) == row else AMBIGUOUS
    return by_path, by_name


def within(bases: Sequence[Path], path: str) -> Iterator[str]:
    """Yields an absolute path relative to each of the folders that contain it."""
    for base in bases:
        top = os.path.join(os.path.abspath(base), "")
        if path.startswith(top):
            yield path[len(top) :]


def table_rows(table: Path, *, with_split: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields a CSV's lines by column, with their numbers; comma, semicolon or tab delimits."""
    text = read_text(table, "data.pairs")
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        wanted = ["image", "mask", *(["split"] if with_split else [])]
        if missing := [name for name in wanted if name not in columns]:
            raise UserError(
                f"{table} has the columns {', '.join(columns) or '(none)'}, but not "
                f"{' and '.join(missing)}: its first line must be {','.join(wanted)}"
            )
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) > len(columns):
                raise UserError(
                    f"{table}:{reader.line_num} has {len(fields)} fields, but the first line names "
                    f"{len(columns)}: put quotes around a name that holds a {delimiter!r}"
                )
            padded = itertools.zip_longest(columns, map(str.strip, fields), fillvalue="")
            yield reader.line_num, dict(padded)
    except csv.Error as error:
        raise UserError(
            f"{table}:{reader.line_num} is no CSV ({error}): save it as CSV anew"
        ) from error


def listed_names(path: Path, stage: str, bases: Sequence[Path]) -> Iterator[tuple[int, str]]:
    """Yields the names in a list, with their line numbers; `#` begins a comment."""
    for number, line in enumerate(read_text(path, f"data.files.{stage}").split("\n"), start=1):
        if (word := line.strip()) and not word.startswith("#"):
            word = os.path.normpath(word.replace("\\", "/"))
            yield number, normal(next(within(bases, word), word))


def located(text: str, folders: Sequence[Path]) -> Path | None:
    """Resolves a table's path: absolute, or within one of some folders; None if it leaves them."""
    if os.path.isabs(text):
        return Path(text)
    inside = []
    for spelled in dict.fromkeys((text, text.replace("\\", "/"))):  # as Windows writes it
        for base in map(os.path.abspath, folders):
            path = os.path.abspath(os.path.join(base, spelled))
            if os.path.commonpath([path, base]) == base:
                inside.append(Path(path))
    return next((path for path in inside if os.path.isfile(path)), inside[0] if inside else None)
