"""The download of the whole data set."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_server import ArchiveServer
from fixture_types import Command
from made_archives import (
    ARCHIVES,
    FINE,
    HOSTILE,
    PARTS,
    PETS_MINI,
    SAMPLES,
    checksums,
    complete,
    source,
    tar,
    visible,
)
from torchvision.datasets import OxfordIIITPet

from segpets.build.objects import build_data
from segpets.config import compose
from segpets.data import OxfordPets
from segpets.data.download.archives import FOLDER, RECORD
from segpets.errors import UserError


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
