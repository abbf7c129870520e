"""One file, from a server that does whatever servers do."""

import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from archive_server import Answer, ArchiveServer, Serve, status

from segpets.data.download import fetch as fetching
from segpets.data.download.fetch import fetch
from segpets.errors import UserError

MB = 10**6
CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(servers: Callable[[dict[str, bytes]], ArchiveServer]) -> ArchiveServer:
    return servers({"file": CONTENT})


def get(folder: Path, *mirrors: str, **options: object) -> Path:
    """Fetches the file, with little patience."""
    given: dict[str, object] = {"checksum": SHA256, "limit": MB, "delay": 0.001, "timeout": 20}
    folder.mkdir(exist_ok=True)
    return fetch("file", mirrors=mirrors, folder=folder, **(given | options))  # type: ignore[arg-type]


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
def dripping(text: bytes, seconds: float) -> Iterator[tuple[str, list[int]]]:
    """A server that sends a text a letter at a time, and what it has sent."""
    sent = list[int]()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                while not stop.is_set():
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        for letter in text:
                            connection.sendall(bytes([letter]))
                            sent.append(letter)
                            if stop.wait(seconds):
                                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/", sent
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
    with dripping(text, 0.05) as (slow, sent):
        assert whole(get(tmp_path, slow, server.address, timeout=0.5, attempts=1))
        assert len(sent) < len(text), "it is waited for"


def test_a_server_that_drips_its_content_is_left_for_the_next(
    tmp_path: Path, server: ArchiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_WINDOW", 0.2)  # a minute
    with dripping(HEAD + CONTENT, 0.005) as (slow, _):
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
