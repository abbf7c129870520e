"""Reads files that anyone may have written, and makes texts from them safe to show.

A file may be a pipe, a device, or endless; its text may move the cursor of a terminal. Every reader
of segpets goes through here, so that none of them can hang, fill the memory, or answer with an
exception that says nothing.
"""

import csv
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import yaml

LARGEST_TABLE: Final = 256_000_000
"""Bytes of a table, such as the pixel counts of 5,000 images by 80 classes."""

LARGEST_RECORD: Final = 16_000_000
"""Bytes of a summary or another small record."""

_LONGEST_NUMBER: Final = 400
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

_STEERING: Final = re.compile(
    # All controls but the line end, what turns text around, and half letters, which no UTF-8 has.
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def read_bytes(file: Path, limit: int = LARGEST_RECORD) -> bytes:
    """Reads a regular file of bounded size.

    Raises:
        OSError: There is none, it can't be read, or it is a pipe, a device or a folder.
        ValueError: It has more than `limit` bytes, or its name holds a NUL.
    """
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        # What grows, or is made as it is read, has no size that counts.
        content = b"" if size > limit else stream.read(limit + 1)
    if size > limit or len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return content


def read_start(file: Path, count: int) -> bytes:
    """Reads the first bytes of a regular file.

    Raises:
        OSError: As `read_bytes`.
    """
    with open_regular(file) as stream:
        return stream.read(count)


def open_regular(file: Path) -> BinaryIO:
    """Opens a regular file.

    Raises:
        OSError: There is none, it can't be read, or it is a pipe, a device or a folder.
    """
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(file, flags | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no regular file")
    return os.fdopen(descriptor, "rb")


def read_text(file: Path, limit: int = LARGEST_RECORD, *, encoding: str = "utf-8") -> str:
    """Reads a text; see `read_bytes`.

    Raises:
        OSError: See `read_bytes`.
        ValueError: It is too long, or no text in that encoding.
    """
    try:
        text = read_bytes(file, limit).decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(file: Path, limit: int = LARGEST_RECORD) -> dict[str, Any]:
    """Reads a table of names and values in JSON.

    Raises:
        OSError: See `read_bytes`.
        ValueError: It is too long, no JSON, or no table.
    """
    try:
        content = json.loads(read_bytes(file, limit))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no table of names and values")
    return content


def read_csv(file: Path, limit: int = LARGEST_TABLE) -> Iterator[list[str]]:
    """Reads the rows of a table, its head first.

    Raises:
        OSError: See `read_bytes`.
        ValueError: It is too long, no text in UTF-8, or no CSV.
    """
    content = read_bytes(file, limit)
    try:
        yield from csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""))
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"it is no CSV: {error}") from error


def read_yaml(file: Path, limit: int) -> dict[str, Any]:
    """Reads a table of names and values in YAML.

    Raises:
        OSError: See `read_bytes`.
        ValueError: It is too long, no YAML, or no table.
    """
    try:
        config = yaml.load(read_bytes(file, limit), Loader=_PlainLoader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(config, dict):
        raise ValueError("it holds no table of names and values")
    return config


def printable(text: object) -> str:
    """Replaces what would steer a terminal or turn a text around; line ends stay."""
    return _STEERING.sub("?", str(text))


def in_one_line(text: object) -> str:
    """Replaces line ends, too: for names of files and classes."""
    return printable(text).replace("\n", "?")


def csv_cell(text: str) -> str:
    """Keeps a spreadsheet from taking a text for a formula, by an apostrophe before it."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def from_csv_cell(text: str) -> str:
    """Undoes `csv_cell`."""
    return text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text


class PrintableFormatter(logging.Formatter):
    """Formats log records without anything that steers a terminal, whatever a message quotes."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record as text that can be shown."""
        return printable(super().format(record))


class _PlainLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with numbers of bounded length: 1:1:1:... is one, in base 60, and takes long."""

    def _number(self, node: Any) -> Any:
        if len(node.value) > _LONGEST_NUMBER:
            raise ValueError(f"it holds a number of {len(node.value):,} characters")
        kind = node.tag.rpartition(":")[2]
        return getattr(self, f"construct_yaml_{kind}")(node)


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _PlainLoader._number)
