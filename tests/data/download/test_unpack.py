"""What an archive may hold."""

import gzip
import random
import tarfile
from pathlib import Path

import pytest
from made_archives import FINE, HOSTILE, MB, member, tar

from segpets.data.download.unpack import unpack
from segpets.errors import FileError


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
