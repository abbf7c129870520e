"""Files that anyone may have written are read within bounds, and shown without steering."""

import io
import logging
import os
from pathlib import Path

import pytest
from fixture_types import Command
from PIL import Image

from segpets.reading import (
    PrintableFormatter,
    csv_cell,
    from_csv_cell,
    in_one_line,
    printable,
    read_bytes,
    read_csv,
    read_json,
    read_text,
    read_yaml,
)


def test_a_file_of_the_limit_is_read_and_a_longer_one_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read_bytes(file, 10) == b"x" * 10
    with pytest.raises(ValueError, match="more than 9 bytes"):
        read_bytes(file, 9)
    os.truncate(file, 6_000_000_000)  # sparse: it lies in no block of the disk
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_bytes(file, 10)


def test_what_has_no_end_is_not_begun(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(OSError, match="no regular file"):
            read_bytes(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "missing")
    assert read_text(Path("/proc/self/status")).startswith("Name:")  # st_size says 0


@pytest.mark.parametrize("text", ["[1]", "[" * 10_000, "{", "", '{"a": 1', "\xff", "1" * 5000])
def test_what_is_no_table_in_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError):
        read_json(file)


@pytest.mark.parametrize(
    "text",
    ["- 1", "a: [", "a: !!python/name:os.system", "a: !!int " + "1:" * 999 + "1", "[" * 5000],
)
def test_what_is_no_table_in_yaml_is_a_value_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(ValueError):
        read_yaml(file, 100_000)


@pytest.mark.parametrize("content", [b"a,b\n\xff,1\n", b'a\n"' + b"x" * 200_000, b"a\n\0\n"])
def test_what_is_no_csv_is_a_value_error_or_rows(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.csv"
    file.write_bytes(content)
    try:
        rows = list(read_csv(file))
        assert rows[0] in (["a"], ["a", "b"])
    except ValueError as error:
        assert "CSV" in str(error) or "UTF-8" in str(error)


def test_what_steers_a_terminal_is_replaced_and_line_ends_stay() -> None:
    assert printable("a\x1b[2J\rb\u202ec\x9bd\ne\ud800") == "a?[2J?b?c?d\ne?"
    assert in_one_line("a\nb") == "a?b"
    assert printable("Käfer 猫 🐈‍⬛ ‌می") == "Käfer 猫 🐈‍⬛ ‌می"
    record = logging.LogRecord("x", 20, "", 0, "%s lies in\n%s", (Path("a\x1b]0;b\x07"), 1), None)
    assert PrintableFormatter().format(record) == "a?]0;b? lies in\n1"


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert from_csv_cell(csv_cell(text)) == text


@pytest.mark.parametrize("text", ["", "x", "-1.5", "+1e-3", "'x", "1=2", "a@b"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert csv_cell(text) == text
    assert from_csv_cell(text) == text


def test_errors_and_logs_show_names_without_what_steers(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "a\x1b[31m\u202eb"
    folder.mkdir()
    missing = command(f"data.root='{folder}'", "data=oxford_pets", "debug=smoke")
    assert missing.returncode == 1
    assert "a?[31m?b" in missing.stdout
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    (folder / "x.png").write_bytes(picture.getvalue()[:40])
    done = command(
        f"data.root='{folder}'", "data=folder", "data.classes=[a,b]", module="segpets.browse"
    )
    for text in (missing.stdout, done.stdout):
        assert "\x1b" not in text
        assert "\u202e" not in text
