"""A server of archives, for the tests of downloads."""

from collections.abc import Callable, Iterator

import pytest
from archive_server import ArchiveServer
from made_archives import ARCHIVES


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
def pets_server(servers: Callable[[dict[str, bytes]], ArchiveServer]) -> ArchiveServer:
    return servers(dict(ARCHIVES))
