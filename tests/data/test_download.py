"""The download of the pets, from a server that does whatever servers do."""

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from archive_server import Answer, ArchiveServer, Serve, status
from fixture_types import Command
from torchvision.datasets import OxfordIIITPet

from segpets.build.objects import build_data
from segpets.config import compose
from segpets.data import OxfordPets
from segpets.data.download import fetch as fetching
from segpets.data.download.archives import FOLDER, RECORD
from segpets.data.download.fetch import fetch
from segpets.data.download.unpack import unpack
from segpets.data.pixels import CACHE_FOLDER
from segpets.errors import FileError, UserError

PETS_MINI = Path(__file__).parents[2] / "segpets" / "data" / "pets_mini"
MB = 10**6
CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def servers() -> Iterator[Callable[[dict[str, bytes]], ArchiveServer]]:
    made: list[ArchiveServer] = []

    def serve(files: dict[str, bytes]) -> ArchiveServer:
        made.append(ArchiveServer(files))
        return made[-1]

    yield serve
    for server in made:
        server.close()


@pytest.fixture
def server(servers: Callable[[dict[str, bytes]], ArchiveServer]) -> ArchiveServer:
    return servers({"file": CONTENT})


def get(folder: Path, *mirrors: str, **options: object) -> Path:
    """Fetches the file, with little patience."""
    given: dict[str, object] = {"checksum": SHA256, "limit": MB, "delay": 0.001, "timeout": 20}
    folder.mkdir(exist_ok=True)
    return fetch("file", mirrors=mirrors, folder=folder, **(given | options))  # type: ignore[arg-type]


# one file


def whole(path: Path) -> bool:
    """Whether the file is right, and nothing of the way there is left."""
    left = {file.name for file in path.parent.glob("file.*")}
    return path.read_bytes() == CONTENT and not left


def test_a_file_is_fetched_in_one_piece(server: ArchiveServer, tmp_path: Path) -> None:
    assert whole(get(tmp_path, server.address))
    (request,) = server.requests
    assert request.sent == len(CONTENT)
    told = {"Host", "User-Agent", "Accept-Encoding", "Connection"}
    assert set(request.headers) == told
    assert request.headers["User-Agent"] == "segpets"


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_the_length_of_a_checksum_tells_its_algorithm(
    server: ArchiveServer, tmp_path: Path, algorithm: str
) -> None:
    checksum = hashlib.new(algorithm, CONTENT).hexdigest()
    assert whole(get(tmp_path, server.address, checksum=checksum))
    wrong = checksum[:-1] + ("0" if checksum[-1] != "0" else "1")
    with pytest.raises(UserError, match=f"its checksum is {checksum}, not {wrong}"):
        get(tmp_path / "wrong", server.address, checksum=wrong)


def test_dropped_connections_are_resumed_without_asking_twice_for_a_byte(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.answers["file"] = [Serve(drop_after=n) for n in (70_000, 1, 0, 100_000)]
    assert whole(get(tmp_path, server.address))
    assert server.sent("file") == len(CONTENT)
    asked = [request.headers.get("Range") for request in server.requests]
    assert asked == [None, "bytes=70000-", "bytes=70001-", "bytes=70001-", "bytes=170001-"]
    assert [request.headers.get("If-Range") for request in server.requests[1:]] == ['"1"'] * 4


def test_a_server_that_drops_more_often_than_there_are_attempts_but_gets_on(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.usual = Serve(drop_after=70_000)
    assert whole(get(tmp_path, server.address, attempts=2))
    assert server.sent("file") == len(CONTENT)


@pytest.mark.parametrize("drop", [70_000, 1])
def test_a_server_that_drops_and_knows_no_ranges_is_given_up(
    server: ArchiveServer, tmp_path: Path, drop: int
) -> None:
    server.usual = Serve(drop_after=drop, ranges=False)
    with pytest.raises(UserError, match=rf"ended after {drop:,} of 300,000 bytes \(3 attempts\)"):
        get(tmp_path, server.address, attempts=3)
    assert len(server.requests) <= 4


@pytest.mark.parametrize(
    "first",
    [
        [status(500)],
        [status(502), status(503), status(504)],
        [status(429, Retry_After="0")],
        [status(503, Retry_After=formatdate(0, usegmt=True))],
        [status(503, Retry_After="soon")],
        [status(408)],
    ],
    ids=["500", "50x", "429", "503_with_a_date", "503_with_nonsense", "408"],
)
def test_busy_servers_are_asked_again(
    server: ArchiveServer, tmp_path: Path, first: list[Answer]
) -> None:
    server.answers["file"] = list(first)
    assert whole(get(tmp_path, server.address))
    assert len(server.requests) == len(first) + 1


def test_a_pause_that_is_asked_for_is_kept(server: ArchiveServer, tmp_path: Path) -> None:
    server.answers["file"] = [status(429, Retry_After="1")]
    before = time.monotonic()
    assert whole(get(tmp_path, server.address))
    assert time.monotonic() >= before + 1


def test_too_long_a_pause_is_not_waited_for(server: ArchiveServer, tmp_path: Path) -> None:
    server.answers["file"] = [status(503, Retry_After="3600")]
    with pytest.raises(UserError, match=r"503.*asks for a pause of 3600 s"):
        get(tmp_path, server.address)


def test_a_server_that_ignores_the_range_begins_anew(server: ArchiveServer, tmp_path: Path) -> None:
    server.answers["file"] = [Serve(drop_after=70_000), Serve(ranges=False)]
    assert whole(get(tmp_path, server.address))
    assert [request.sent for request in server.requests] == [70_000, len(CONTENT)]


@pytest.mark.parametrize("span", ["bytes 0-299999/300000", "bytes 5-6/7", "nonsense", "bytes */7"])
def test_another_range_than_asked_for_is_not_appended(
    server: ArchiveServer, tmp_path: Path, span: str
) -> None:
    server.answers["file"] = [Serve(drop_after=70_000), Serve(content_range=span)]
    assert whole(get(tmp_path, server.address))
    assert server.requests[-1].headers.get("Range") is None


def test_another_version_of_the_file_begins_anew(server: ArchiveServer, tmp_path: Path) -> None:
    old = Serve(content=bytes(300_000), version='"0"', drop_after=70_000)
    server.answers["file"] = [old]
    assert whole(get(tmp_path, server.address))
    assert [request.sent for request in server.requests] == [70_000, len(CONTENT)]


@pytest.mark.parametrize("version", [None, 'W/"1"'])
def test_without_a_version_pieces_that_dont_fit_together_are_fetched_anew(
    server: ArchiveServer, tmp_path: Path, version: str | None
) -> None:
    server.usual = Serve(version=version)
    server.answers["file"] = [Serve(content=bytes(300_000), version=version, drop_after=70_000)]
    assert whole(get(tmp_path, server.address))
    assert [request.headers.get("If-Range") for request in server.requests] == [None] * 3
    assert [request.sent for request in server.requests] == [70_000, 230_000, 300_000]


def test_a_length_that_promises_more_ends_with_the_end(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.answers["file"] = [Serve(length=100)]
    assert whole(get(tmp_path, server.address))  # 416 says that there is no more
    assert server.sent("file") == len(CONTENT)


def test_a_length_that_promises_less_is_a_wrong_file(server: ArchiveServer, tmp_path: Path) -> None:
    server.usual = Serve(length=-100)
    with pytest.raises(UserError, match="its checksum is"):
        get(tmp_path, server.address)
    assert not list(tmp_path.iterdir())


def test_a_beginning_that_is_longer_than_the_file_is_discarded(
    server: ArchiveServer, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(bytes(400_000))
    assert whole(get(tmp_path, server.address))


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"address": 1}', "[" * 500])
def test_a_damaged_note_does_no_harm(server: ArchiveServer, tmp_path: Path, note: str) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:70_000])
    (tmp_path / "file.note").write_text(note)
    assert whole(get(tmp_path, server.address))
    assert server.sent("file") == len(CONTENT) - 70_000


def test_chunks_may_come_without_a_length_and_be_dropped(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.answers["file"] = [Serve(chunked=True, drop_after=81_920), Serve(chunked=True)]
    assert whole(get(tmp_path, server.address))
    assert server.sent("file") == len(CONTENT)


@pytest.mark.parametrize("name", ["file", "file.part"])
def test_what_is_there_already_is_checked_and_not_asked_for(
    server: ArchiveServer, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    assert whole(get(tmp_path, server.address))
    assert not server.requests


def test_what_is_there_already_and_wrong_is_fetched(server: ArchiveServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:-1])
    assert whole(get(tmp_path, server.address))
    assert server.sent("file") == len(CONTENT)


def test_the_next_address_follows_where_one_gives_another_file_or_none(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path
) -> None:
    absent, wrong, right = servers({}), servers({"file": CONTENT[::-1]}), servers({"file": CONTENT})
    assert whole(get(tmp_path, absent.address, wrong.address, right.address))
    assert [len(s.requests) for s in (absent, wrong, right)] == [1, 1, 1]
    assert right.requests[0].headers.get("Range") is None  # nothing of the wrong file is kept


def test_the_next_address_goes_on_where_the_last_one_stopped(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path
) -> None:
    first, second = servers({"file": CONTENT}), servers({"file": CONTENT})
    first.answers["file"] = [Serve(drop_after=70_000), status(404)]
    assert whole(get(tmp_path, first.address, second.address))
    assert second.requests[0].headers["Range"] == "bytes=70000-"
    assert "If-Range" not in second.requests[0].headers  # another server's versions
    assert first.sent("file") + second.sent("file") == len(CONTENT)


def test_where_all_fail_one_error_says_why_of_each(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path
) -> None:
    absent, wrong, busy = servers({}), servers({"file": b"<html>"}), servers({"file": CONTENT})
    busy.usual = status(500)
    closed = servers({})
    closed.close()
    closed.close = lambda: None  # type: ignore[method-assign]
    folder = tmp_path / "nothing here"
    mirrors = [s.address for s in (absent, wrong, busy, closed)]
    with pytest.raises(UserError) as caught:
        get(
            tmp_path,
            *mirrors,
            f"file://{folder}",
            str(folder),
            "http://127.0.0.1:99999",
            attempts=2,
        )
    lines = str(caught.value).splitlines()
    for line, mirror, reason in zip(
        lines[1:-1],
        [*mirrors, f"file://{folder}", str(folder), "http://127.0.0.1:99999"],
        [
            "it answers 404 Not Found",
            f"its checksum is {hashlib.sha256(b'<html>').hexdigest()}, not {SHA256}",
            "it answers 500 Internal Server Error (2 attempts)",
            "Connection refused (2 attempts)",
            "there is no such file",
            "there is no such file",
            "",
        ],
        strict=True,
    ):
        assert line.startswith(f"  {mirror}/file: {reason}"), line
    assert "data.mirrors takes other addresses" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_redirects_lead_to_the_web_only(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path
) -> None:
    target, server = servers({"elsewhere": CONTENT}), servers({"file": CONTENT})
    secret = tmp_path / "file"
    secret.write_bytes(CONTENT)
    moved = f"{target.address}/elsewhere"
    server.answers["file"] = [status(302, Location=moved), status(308, Location=moved)]
    target.answers["elsewhere"] = [Serve(drop_after=70_000)]
    assert whole(get(tmp_path / "a", server.address))
    assert target.requests[1].headers["Range"] == "bytes=70000-"
    for place in (f"file://{secret}", "ftp://127.0.0.1/file", f"{server.address}/file"):
        server.answers["file"] = [status(301, Location=place)] * 20
        with pytest.raises(UserError, match="file can't be downloaded"):
            get(tmp_path / "b", server.address)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_without_end_is_refused(
    server: ArchiveServer, tmp_path: Path, chunked: bool
) -> None:
    server.usual = Serve(chunked=chunked)
    with pytest.raises(
        UserError, match=r"300,000 bytes, more than 200,000|more than 200,000 bytes"
    ):
        get(tmp_path, server.address, limit=200_000)
    assert not list(tmp_path.glob("*.part"))


def test_a_file_that_no_disk_has_room_for_is_not_begun(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.usual = Serve(length=10**18)
    with pytest.raises(UserError, match=r"no room: about 2\.0 EB more are needed, and .* are free"):
        get(tmp_path, server.address, limit=10**19)
    assert not list(tmp_path.iterdir())


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, server: ArchiveServer) -> None:
    never = threading.Event()
    server.usual = Serve(until=never)
    try:
        with pytest.raises(UserError, match=r"timed out \(2 attempts\)"):
            get(tmp_path, server.address, timeout=0.2, attempts=2)
    finally:
        never.set()


@contextmanager
def dripping(text: bytes, seconds: float) -> Iterator[str]:
    """A server that sends a text a letter at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                while not stop.is_set():
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        for letter in text:
                            connection.sendall(bytes([letter]))
                            if stop.wait(seconds):
                                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            stop.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9999, b"HTTP/1.1 100 Continue\r\n\r\n" * 999],
    ids=["head", "continue"],
)
def test_a_server_that_drips_its_head_is_left_for_the_next(
    tmp_path: Path, server: ArchiveServer, text: bytes
) -> None:
    with dripping(text, 0.05) as slow:
        began = time.monotonic()
        assert whole(get(tmp_path, slow, server.address, timeout=0.5, attempts=1))
        assert time.monotonic() - began < 30


def test_a_server_that_drips_its_content_is_left_for_the_next(
    tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_WINDOW", 0.2)  # a minute
    with dripping(HEAD + CONTENT, 0.005) as slow:
        assert whole(get(tmp_path, slow, server.address, timeout=5, attempts=1))


@pytest.mark.parametrize("form", ["file://{}", "file://localhost{}", "{}", "{}/"])
def test_files_are_copied_and_resumed_in_the_same_way(tmp_path: Path, form: str) -> None:
    mirror = tmp_path / "of mine"
    mirror.mkdir()
    (mirror / "file").write_bytes(CONTENT)
    folder = tmp_path / "to"
    folder.mkdir()
    (folder / "file.part").write_bytes(CONTENT[:70_000])
    address = form.format(str(mirror).replace(" ", "%20") if "file:" in form else mirror)
    assert whole(get(folder, address))
    assert (mirror / "file").read_bytes() == CONTENT
    for wrong in (bytes(70_000), bytes(400_000)):
        (folder / "file").unlink()
        (folder / "file.part").write_bytes(wrong)
        assert whole(get(folder, address))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(UserError, match="there is no such file"):
        get(tmp_path / "to", str(tmp_path))


# what an archive may hold


def member(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    content = b"" if fields.get("type") == tarfile.DIRTYPE else content
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(file.getvalue(), 1, mtime=0)


LINK = {"type": tarfile.SYMTYPE, "size": 0}
HARD = {"type": tarfile.LNKTYPE, "size": 0}
FINE = member("images/a.jpg")
HOSTILE = {
    "parent": (tar(FINE, member("images/../../escaped")), "leads out of its folder"),
    "parent_behind": (tar(FINE, member("images/b/../../../escaped")), "leads out of its folder"),
    "absolute": (tar(FINE, member("/tmp/segpets-escaped")), "leads out of its folder"),
    "hidden_parent": (tar(FINE, member(".x/../../escaped")), "leads out of its folder"),
    "symlink": (
        tar(FINE, member("images/l", linkname="../..", **LINK), member("images/l/escaped")),
        "is a link",
    ),
    "hidden_symlink": (tar(FINE, member("images/.l", linkname="/", **LINK)), "is a link"),
    "hard_link": (tar(FINE, member("images/l", linkname="/etc/passwd", **HARD)), "is a link"),
    "top_is_a_link": (tar(member("images", linkname="/tmp", **LINK), FINE), "is a link"),
    "device": (tar(FINE, member("images/d", type=tarfile.CHRTYPE)), "neither a file nor a folder"),
    "pipe": (tar(FINE, member("images/p", type=tarfile.FIFOTYPE)), "neither a file nor a folder"),
    "elsewhere": (tar(FINE, member("annotations/a.txt")), "doesn't lie in images/"),
    "beside": (tar(FINE, member("escaped")), "doesn't lie in images/"),
    "top_is_a_file": (tar(member("images"), FINE), "must be a folder"),
    "twice": (tar(FINE, FINE), "File exists"),
    "file_and_folder": (tar(FINE, member("images/a.jpg/b")), "is no archive that can be read"),
    "deep": (tar(FINE, member("images/" + "d/" * 900)), "doesn't lie in images/"),
    "long": (tar(FINE, member("images/" + "d" * 300)), "File name too long"),
    "bomb": (tar(FINE, member("images/b", bytes(2 * MB))), "unfolds to more than 1,000,000 bytes"),
    "hidden_bomb": (tar(FINE, member("images/._b", bytes(2 * MB))), "unfolds to more than"),
    "many_small": (tar(*(member(f"images/{n}", bytes(400_000)) for n in range(3))), "unfolds to"),
    "many": (tar(*(member(f"images/{n}", b"") for n in range(101))), "or 100 files"),
    "headers_without_end": (
        tar(member("images/a", pax_headers={"comment": "x" * 2**27})),
        "has headers without end",
    ),
    "slow_header": (
        tar(member("images/a", pax_headers={"comment": "1" * 100_000})),
        "has headers without end",
    ),
    "claims_3_gb": (
        gzip.compress(member("images/b", size=3 * 10**9)[0].tobuf()),
        "unfolds to more than",
    ),
    "cut": (gzip.compress(gzip.decompress(tar(FINE, FINE))[:700], mtime=0), "no archive"),
    "cut_gzip": (tar(FINE)[:-20], "is no archive that can be read"),
    "no_tar": (gzip.compress(b"hello" * 1000, mtime=0), "is no archive that can be read"),
    "html": (b"<html>" * 1000, "is no archive that can be read"),
    "damaged_gzip": (tar(FINE)[:-8] + bytes(8), "is no archive that can be read"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_leave_nothing(tmp_path: Path, kind: str) -> None:
    content, reason = HOSTILE[kind]
    room = tmp_path / "deep" / "deeper"
    room.mkdir(parents=True)
    archive = room / "images.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(FileError, match=reason) as caught:
        unpack(archive, room / "images", top="images", limit=MB, max_files=100)
    assert caught.value.file == archive
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "deeper", "images.tar.gz"]
    assert not Path("/tmp/segpets-escaped").exists()


def test_a_name_with_nul_ends_before_it(tmp_path: Path) -> None:
    """The format has no such names: what follows NUL isn't part of one."""
    raw = bytearray(gzip.decompress(tar(FINE, format=tarfile.USTAR_FORMAT)))
    raw[:14] = b"images/a\0/../b"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32)
    (tmp_path / "images.tar.gz").write_bytes(raw)
    assert unpack(tmp_path / "images.tar.gz", tmp_path / "to", top="images", limit=MB) == ["a"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compressed", [True, False])
def test_archives_of_all_kinds_are_unpacked(tmp_path: Path, format: int, compressed: bool) -> None:
    long = f"images/{'long' * 30}.jpg"
    content = tar(
        *[member("./", type=tarfile.DIRTYPE), member("./images/", type=tarfile.DIRTYPE)],
        *[member("./images/a.jpg", b"a", mode=0o7777), member("images/sub/b.mat", b"")],
        *[member(long if format != tarfile.USTAR_FORMAT else "images/c", b"long")],
        *[member("images/._a.jpg"), member("._images")],
        format=format,
    )
    archive = tmp_path / "images.tar.gz"
    archive.write_bytes(content if compressed else gzip.decompress(content))
    names = unpack(archive, tmp_path / "to", top="images", limit=MB)
    there = [path for path in (tmp_path / "to").rglob("*") if path.is_file()]
    assert sorted(names) == sorted(str(path.relative_to(tmp_path / "to")) for path in there)
    assert next(path.read_bytes() for path in sorted(there)) == b"a"
    assert len(names) == 3
    (tmp_path / "usual").touch()
    assert {path.stat().st_mode for path in there} == {(tmp_path / "usual").stat().st_mode}


def test_damage_anywhere_is_no_crash(tmp_path: Path) -> None:
    whole = gzip.decompress(tar(*(member(f"images/{'long' * 40}{n}", b"x") for n in range(3))))
    noise = random.Random(1)
    for n in range(300):
        damaged = bytearray(whole)
        for _ in range(noise.choice((1, 3, 30))):
            damaged[noise.randrange(len(damaged))] = noise.randrange(256)
        archive = tmp_path / "images.tar.gz"
        archive.write_bytes(damaged[: noise.choice((len(damaged), noise.randrange(9000)))])
        try:
            unpack(archive, tmp_path / f"to{n}", top="images", limit=MB)
        except FileError:
            assert not (tmp_path / f"to{n}").exists()


# the data set


PARTS = {"trainval": (10, 10, 10), "test": (4, 4, 4)}


def official(root: Path) -> dict[str, bytes]:
    """Archives as the official ones are, of real images: 3 breeds, with what else lies there."""
    lists = {}
    for part, counts in PARTS.items():
        lines = (PETS_MINI / "annotations" / f"{part}.txt").read_text().splitlines()
        chosen: list[str] = []
        for breed, count in zip(("Abyssinian_", "beagle_", "Bombay_"), counts, strict=True):
            chosen += [line for line in lines if line.startswith(breed)][:count]
        lists[part] = chosen
    names = [line.split()[0] for lines in lists.values() for line in lines]
    folder = {"type": tarfile.DIRTYPE}
    images, annotations = [member("images/", **folder)], [member("annotations/", **folder)]
    for name in names:
        content = (PETS_MINI / "images" / f"{name}.jpg").read_bytes()
        images += [member(f"images/._{name}.jpg"), member(f"images/{name}.jpg", content)]
        content = (PETS_MINI / "annotations" / "trimaps" / f"{name}.png").read_bytes()
        annotations += [
            member(f"annotations/trimaps/._{name}.png"),
            member(f"annotations/trimaps/{name}.png", content),
            member(f"annotations/xmls/{name}.xml", b"<annotation/>"),
        ]
    images.append(member("images/Abyssinian_100.mat", b"MATLAB 5.0"))
    for part, lines in lists.items():
        annotations.append(member(f"annotations/{part}.txt", "\n".join(lines).encode()))
    annotations.append(member("annotations/README", b"OXFORD-IIIT PET Dataset"))
    return {"images.tar.gz": tar(*images), "annotations.tar.gz": tar(*annotations)}


ARCHIVES = official(PETS_MINI)
SAMPLES = sum(map(sum, PARTS.values()))


def checksums(archives: dict[str, bytes]) -> dict[str, str]:
    return {
        file.removesuffix(".tar.gz"): hashlib.md5(content).hexdigest()
        for file, content in archives.items()
    }


def source(root: Path, *mirrors: str, **options: object) -> OxfordPets:
    given: dict[str, object] = {"download": True, "checksums": checksums(ARCHIVES)}
    return OxfordPets(root=root, mirrors=mirrors, **(given | options))  # type: ignore[arg-type]


@pytest.fixture
def pets_server(servers: Callable[[dict[str, bytes]], ArchiveServer]) -> ArchiveServer:
    return servers(dict(ARCHIVES))


def complete(root: Path) -> bool:
    """Whether all that a listing needs is there, by a source that downloads nothing."""
    splits = OxfordPets(root=root).splits()
    return not splits.problems and SAMPLES == sum(
        len(stage) for stage in (splits.train, splits.val, splits.test)
    )


def visible(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.name[0] != "."} if root.exists() else set()


def test_the_data_set_is_downloaded_once(pets_server: ArchiveServer, tmp_path: Path) -> None:
    root = tmp_path / "new" / "pets"
    splits = source(root, pets_server.address).splits()
    assert splits == OxfordPets(root=root).splits()
    assert complete(root)
    for name in ("trainval.txt", "README", "xmls"):
        assert (root / "annotations" / name).exists()
    hidden = {path.name for path in root.rglob(".*")}
    assert hidden == {FOLDER, RECORD}
    assert [path.name for path in (root / FOLDER).iterdir()] == ["lock"]
    record = json.loads((root / "images" / RECORD).read_text())
    assert record["checksum"] == checksums(ARCHIVES)["images"]
    assert len(record["files"]) == SAMPLES + 1
    for name in record["files"]:
        original = PETS_MINI / "images" / name
        if not name.endswith(".mat"):
            assert (root / "images" / name).read_bytes() == original.read_bytes()
    source(root, pets_server.address).splits()
    assert [request.path for request in pets_server.requests] == [
        "annotations.tar.gz",
        "images.tar.gz",
    ]


def test_archives_in_a_folder_serve_as_well(tmp_path: Path) -> None:
    for file, content in ARCHIVES.items():
        (tmp_path / file).write_bytes(content)
    source(tmp_path / "pets", str(tmp_path)).splits()
    assert complete(tmp_path / "pets")
    assert all((tmp_path / file).read_bytes() == content for file, content in ARCHIVES.items())


def test_without_download_nothing_is_asked_for(pets_server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a folder.*data\.download=true"):
        source(tmp_path / "pets", pets_server.address, download=False).splits()
    with pytest.raises(UserError, match=r"trainval\.txt is missing.*data\.download=true"):
        source(tmp_path, pets_server.address, download=False).splits()
    assert not pets_server.requests
    assert not list(tmp_path.iterdir())


def test_folders_of_the_users_own_are_used_as_they_are(
    pets_server: ArchiveServer, tmp_path: Path
) -> None:
    for file in ARCHIVES:
        with tarfile.open(fileobj=io.BytesIO(ARCHIVES[file])) as archive:
            archive.extractall(tmp_path, filter="data")
    expected = OxfordPets(root=tmp_path).splits()
    before = sorted(tmp_path.rglob("*"))
    assert source(tmp_path, pets_server.address).splits() == expected
    assert sorted(tmp_path.rglob("*")) == before
    assert not pets_server.requests


@pytest.mark.parametrize("lost", ["images/beagle_{}.jpg", "annotations/trimaps/beagle_{}.png"])
def test_an_incomplete_folder_of_the_users_own_is_left_alone(
    pets_server: ArchiveServer, tmp_path: Path, lost: str
) -> None:
    source(tmp_path, pets_server.address).splits()
    folder = lost.partition("/")[0]
    (tmp_path / folder / RECORD).unlink()  # as if unpacked by hand
    number = min(path.stem for path in (tmp_path / "images").glob("beagle*")).partition("_")[2]
    (tmp_path / lost.format(number)).unlink()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        source(tmp_path, pets_server.address).splits()
    told = str(caught.value)
    assert f"{tmp_path / folder} lacks 1 files" in told
    assert Path(lost.format(number)).name in told
    assert "data.download didn't put it there: complete it, or move it away" in told
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / folder).rename(tmp_path / "mine")
    source(tmp_path, pets_server.address).splits()
    assert complete(tmp_path)


def test_an_empty_folder_is_filled(pets_server: ArchiveServer, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    source(tmp_path, pets_server.address).splits()
    assert complete(tmp_path)


@pytest.mark.parametrize("what", ["file", "link", "dangling"])
def test_what_is_no_folder_is_left_alone(
    pets_server: ArchiveServer, tmp_path: Path, what: str
) -> None:
    root, images = tmp_path / "pets", tmp_path / "pets" / "images"
    source(root, pets_server.address).splits()
    images.rename(tmp_path / "elsewhere")
    if what == "file":
        images.write_text("mine")
    else:
        images.symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
        assert what == "dangling" or source(root, pets_server.address).splits()
        for path in (tmp_path / "elsewhere").glob("beagle*"):
            path.unlink()
    with pytest.raises(UserError, match=r"images lacks .*didn't put it there"):
        source(root, pets_server.address).splits()
    assert images.is_symlink() or images.read_text() == "mine"
    assert not list((tmp_path / "elsewhere").glob("beagle*")) or what == "file"


def test_what_was_downloaded_is_mended_and_what_the_user_changed_stays(
    pets_server: ArchiveServer, tmp_path: Path
) -> None:
    source(tmp_path, pets_server.address).splits()
    expected = OxfordPets(root=tmp_path).splits()
    images, annotations = tmp_path / "images", tmp_path / "annotations"
    beagles = sorted(images.glob("beagle*"))
    beagles[0].write_bytes(b"mine")
    for path in beagles[1:]:
        path.unlink()
    (images / "notes.txt").write_text("mine")
    for path in (annotations / "trimaps").iterdir():
        path.unlink()
    (annotations / "trimaps").rmdir()
    assert source(tmp_path, pets_server.address).splits().train == expected.train
    assert complete(tmp_path)
    assert beagles[0].read_bytes() == b"mine"
    assert (images / "notes.txt").read_text() == "mine"
    beagles[1].unlink()
    for part in PARTS:  # an image that the user took out of the lists isn't needed
        listing = annotations / f"{part}.txt"
        lines = [line for line in listing.read_text().splitlines() if beagles[1].stem not in line]
        listing.write_text("\n".join(lines))
    asked = len(pets_server.requests)
    assert not source(tmp_path, pets_server.address).splits().problems
    with (annotations / "test.txt").open("a") as file:  # and one that no archive holds
        file.write("\nbeagle_9999 1 2 1\n")
    (annotations / "trimaps" / "beagle_9999.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"lacks 1 files.*beagle_9999\.jpg, and images\.tar\.gz doesn't"
    ):
        source(tmp_path, pets_server.address).splits()
    assert len(pets_server.requests) == asked


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": [1, null]}', "[" * 10**5])
def test_a_damaged_record_makes_a_folder_the_users_own(
    pets_server: ArchiveServer, tmp_path: Path, text: str
) -> None:
    source(tmp_path, pets_server.address).splits()
    (tmp_path / "images" / RECORD).write_text(text)
    assert source(tmp_path, pets_server.address).splits()
    next((tmp_path / "images").glob("beagle*")).unlink()
    with pytest.raises(UserError, match="didn't put it there"):
        source(tmp_path, pets_server.address).splits()


@pytest.mark.parametrize("kind", ["parent", "symlink", "claims_3_gb", "elsewhere", "html"])
def test_a_hostile_archive_is_refused_in_whole(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path, kind: str
) -> None:
    archives = ARCHIVES | {"images.tar.gz": HOSTILE[kind][0]}
    server = servers(archives)
    root = tmp_path / "pets"
    with pytest.raises(UserError, match=r"images\.tar\.gz"):
        source(root, server.address, checksums=checksums(archives)).splits()
    assert visible(root) == {"annotations"}
    assert visible(tmp_path) == {"pets"}
    assert not (root / FOLDER / "images").exists()


def test_an_archive_of_something_else_is_not_put_in_place(
    servers: Callable[[dict[str, bytes]], ArchiveServer], tmp_path: Path
) -> None:
    archives = ARCHIVES | {"images.tar.gz": tar(FINE)}
    server = servers(archives)
    with pytest.raises(UserError, match=f"lacks {SAMPLES} files that the data set lists"):
        source(tmp_path, server.address, checksums=checksums(archives)).splits()
    assert visible(tmp_path) == {"annotations"}
    source(tmp_path, servers(dict(ARCHIVES)).address).splits()
    assert complete(tmp_path)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["lock"]


@pytest.mark.parametrize("root", ["file", "file/below", "/proc/pets", "/dev/null/pets"])
def test_a_root_that_cant_be_written(pets_server: ArchiveServer, tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"data\.download=true, but .* can't be used \(.*\): give a"
    ):
        source(tmp_path / root, pets_server.address).splits()
    assert not pets_server.requests


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mirrors": ()}, r"data\.mirrors names no address: data=oxford_pets has.*data=pets_mini"),
        ({"mirrors": "http://x"}, r"data\.mirrors=http://x is no list"),
        ({"mirrors": ["ftp://x/"]}, r"'ftp://x/' is no address"),
        ({"mirrors": ["file://host/x"]}, r"'file://host/x' is no address"),
        ({"mirrors": ["http:/x"]}, r"'http:/x' is no address"),
        ({"mirrors": [None]}, r"None is no address"),
        ({"mirrors": [""]}, r"'' is no address"),
        ({"checksums": None}, r"data\.checksums\.annotations=None is no checksum"),
        ({"checksums": {"annotations": "0" * 33}}, r"data\.checksums\.annotations=0+ is no"),
        ({"checksums": {"annotations": "g" * 32}}, r"data\.checksums\.annotations=g+ is no"),
        ({"checksums": {"annotations": "0" * 32}}, r"data\.checksums\.images=None is no"),
        ({"download": "yes"}, r"data\.download=yes must be true or false"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], told: str) -> None:
    given: dict[str, object] = {"mirrors": ["http://x"], "checksums": {}, "download": True}
    with pytest.raises(UserError, match=told):
        OxfordPets(root="x", **(given | options))  # type: ignore[arg-type]


# several processes, and processes that are killed

NURSERY = """
import json, logging, os, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from segpets.data import OxfordPets, SegmentationDataModule
from segpets.errors import UserError
for line in sys.stdin:
    log, options = json.loads(line)
    if log is None:
        print(os.waitstatus_to_exitcode(os.waitpid(options, 0)[1]), flush=True)
        continue
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    logging.basicConfig(level=logging.INFO)
    if options.pop("nobody") and os.geteuid() == 0:  # root may write everywhere
        os.seteuid(65534)
    resource.setrlimit(resource.RLIMIT_FSIZE, (options.pop("file_limit"), -1))
    try:
        module = SegmentationDataModule(
            source=OxfordPets(download=True, **options), augment=None, size=32, batch_size=2,
            num_workers=0, run_seed=1, cache="disk")
        module.setup()
        logging.info("fingerprint %s", module.pixels.fingerprint)
    except UserError as error:
        logging.error(error)
    finally:
        os._exit("module" not in globals() or not hasattr(module, "pixels"))
"""


class Nursery:
    """Processes that have imported everything, so that a kill meets the work.

    Attributes:
        log: What those of a test log.
        address: Where they download from.
    """

    log: Path
    address: str

    def __init__(self) -> None:
        command = [sys.executable, "-c", NURSERY, json.dumps(sys.path)]
        env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def _ask(self, *words: object) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def begin(self, root: Path, *, file_limit: int = -1, nobody: bool = False) -> int:
        """Begins a process, whose files may be so long and which may be nobody's; gives its id."""
        options = {
            "root": str(root),
            "mirrors": [self.address],
            "checksums": checksums(ARCHIVES),
            "file_limit": file_limit,
            "nobody": nobody,
        }
        return self._ask(str(self.log), options)

    def end(self, process: int) -> int:
        """Waits for a process; gives its exit code, -9 if it was killed."""
        return self._ask(None, process)

    def wait_for(self, words: str) -> None:
        """Waits until a process logs some words."""
        deadline = time.monotonic() + 60
        while words not in self.told():
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.005)

    def told(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def fingerprints(self) -> list[str]:
        return re.findall(r"fingerprint (\w+)", self.told())

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def nursery_of_all() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def nursery(nursery_of_all: Nursery, pets_server: ArchiveServer, tmp_path: Path) -> Nursery:
    nursery_of_all.log, nursery_of_all.address = tmp_path / "log", pets_server.address
    return nursery_of_all


def test_of_two_processes_the_second_waits_and_nothing_is_served_twice(
    nursery: Nursery, pets_server: ArchiveServer, tmp_path: Path
) -> None:
    root, go = tmp_path / "pets", threading.Event()
    pets_server.answers["images.tar.gz"] = [Serve(until=go)]
    first = nursery.begin(root)
    nursery.wait_for("images.tar.gz")
    second = nursery.begin(root)
    nursery.wait_for(f"Another process downloads to {root}: waiting for it")
    go.set()
    assert [nursery.end(first), nursery.end(second)] == [0, 0]
    assert len(set(nursery.fingerprints())) == 1
    assert len(nursery.fingerprints()) == 2
    for file, content in ARCHIVES.items():
        assert pets_server.sent(file) == len(content)


def test_who_waits_goes_on_when_the_other_is_killed(
    nursery: Nursery, pets_server: ArchiveServer, tmp_path: Path
) -> None:
    root, never = tmp_path / "pets", threading.Event()
    pets_server.answers["images.tar.gz"] = [Serve(until=never)]
    first = nursery.begin(root)
    nursery.wait_for("images.tar.gz")
    second = nursery.begin(root)
    nursery.wait_for("waiting for it")
    os.kill(first, signal.SIGKILL)
    assert [nursery.end(first), nursery.end(second)] == [-signal.SIGKILL, 0]
    never.set()
    assert complete(root)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_any_moment_change_nothing(
    nursery: Nursery, pets_server: ArchiveServer, tmp_path: Path, kills: int
) -> None:
    pets_server.usual = Serve(pause=0.002)
    process = nursery.begin(tmp_path / "undisturbed")
    begin = time.monotonic()
    assert nursery.end(process) == 0
    duration = time.monotonic() - begin
    (expected,) = nursery.fingerprints()
    noise = random.Random(kills)
    # Some stages are so short that chance would hardly meet them.
    stages = itertools.cycle((None, "images", "annotations", "cache"))
    root, killed, sets, met = tmp_path / "pets0", 0, 1, set()
    while killed < kills:
        process = nursery.begin(root)
        begin = time.monotonic()
        if stage := next(stages):
            while stage_of(root) != stage and time.monotonic() < begin + duration:
                pass
            time.sleep(noise.uniform(0, 0.02))
        else:
            time.sleep(noise.uniform(0, duration))
        met.add(stage_of(root))
        os.kill(process, signal.SIGKILL)
        if nursery.end(process) == -signal.SIGKILL:
            killed += 1
            assert {"images": SAMPLES, "annotations": SAMPLES}.items() >= counts(root).items()
        else:  # it was complete: the next one begins anew
            root, sets = tmp_path / f"pets{sets}", sets + 1
    for made in range(sets):
        assert nursery.end(nursery.begin(tmp_path / f"pets{made}")) == 0
        assert complete(tmp_path / f"pets{made}")
    assert set(nursery.fingerprints()) == {expected}
    print("killed in", sorted(met))


def stage_of(root: Path) -> str:
    """What a process is about, as far as its files tell."""
    own, cache = root / FOLDER, root / CACHE_FOLDER
    if (root / "images").exists():
        return "cache" if cache.exists() else "between"
    files = {path.name for path in own.iterdir()} if own.exists() else set()
    found = [s for s in ("images", "images.tar.gz.part", "annotations") if s in files]
    return found[0] if found else "begin"


def counts(root: Path) -> dict[str, int]:
    """The images and trimaps of the folders that are in their places."""
    places = {"images": "*.jpg", "annotations": "trimaps/*.png"}
    return {
        folder: len(list((root / folder).glob(pattern)))
        for folder, pattern in places.items()
        if (root / folder).exists()
    }


def test_a_full_disk_keeps_what_was_fetched_and_nothing_that_is_half_unpacked(
    nursery: Nursery, pets_server: ArchiveServer, tmp_path: Path
) -> None:
    root = tmp_path / "pets"
    # No file may be longer, which says as much as a full disk does.
    assert nursery.end(nursery.begin(root, file_limit=100_000)) == 1
    assert f"{root / FOLDER} has no room: about " in nursery.told()
    assert visible(root) == {"annotations"}
    part = root / FOLDER / "images.tar.gz.part"
    assert part.read_bytes() == ARCHIVES["images.tar.gz"][:100_000]
    part.write_bytes(ARCHIVES["images.tar.gz"])  # as if all of it had been fetched
    assert nursery.end(nursery.begin(root, file_limit=5000)) == 1
    assert nursery.told().count("has no room") == 2
    assert visible(root) == {"annotations"}
    left = {path.name for path in (root / FOLDER).iterdir()}
    assert left == {"lock", "images.tar.gz"}
    asked = len(pets_server.requests)
    assert nursery.end(nursery.begin(root)) == 0
    assert complete(root)
    assert len(pets_server.requests) == asked


def test_a_folder_without_permission(
    nursery: Nursery, pets_server: ArchiveServer, tmp_path: Path
) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    root.chmod(0o555)
    assert nursery.end(nursery.begin(root, nobody=True)) == 1
    told = nursery.told()
    assert "data.download=true, but " in told
    assert "can't be used (Permission denied): give a data.root that can be written" in told
    assert not pets_server.requests
    assert not list(root.iterdir())


# the command

TINY = (
    *("trainer=cpu", "trainer.precision=32", "model.widths=[4,8]", "data.size=64"),
    *("debug=smoke", "hydra.run.dir=run"),
)


def test_one_word_downloads_and_trains(
    command: Command, pets_server: ArchiveServer, tmp_path: Path
) -> None:
    sums = checksums(ARCHIVES)
    done = command(
        *("data=oxford_pets", "data.download=true", "data.root=pets"),
        f"data.mirrors=[{pets_server.address}/]",
        *(f"data.checksums.{folder}={checksum}" for folder, checksum in sums.items()),
        *TINY,
    )
    assert done.returncode == 0, done.stdout
    assert f"Downloading {pets_server.address}/images.tar.gz" in done.stdout
    assert f"pets/images is complete, with {SAMPLES + 1} files" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed"


def test_the_embedded_images_need_no_download() -> None:
    with pytest.raises(UserError, match=r"data\.mirrors names no address.*data=pets_mini lies in"):
        build_data(compose(["data=pets_mini", "data.download=true"]))


def test_the_config_has_addresses_and_checksums() -> None:
    cfg = compose(["data=oxford_pets", "data.download=true"])
    assert isinstance(build_data(cfg).source, OxfordPets)
    known = {address for address, _ in OxfordIIITPet._RESOURCES}
    ours = {f"{cfg.data.mirrors[0]}{folder}.tar.gz" for folder in cfg.data.checksums}
    assert ours == known
