"""Downloads by several processes, and by processes that are killed."""

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_server import ArchiveServer, Serve
from made_archives import ARCHIVES, SAMPLES, checksums, complete, visible

from segpets.data.download.archives import FOLDER
from segpets.data.pixels import CACHE_FOLDER

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
