"""Archives: hostile ones, those of the pets, and a source that downloads these."""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from segpets.data import OxfordPets

PETS_MINI = Path(__file__).parents[3] / "segpets" / "data" / "pets_mini"
MB = 10**6
PARTS = {"trainval": (10, 10, 10), "test": (4, 4, 4)}


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


def complete(root: Path) -> bool:
    """Whether all that a listing needs is there, by a source that downloads nothing."""
    splits = OxfordPets(root=root).splits()
    return not splits.problems and SAMPLES == sum(
        len(stage) for stage in (splits.train, splits.val, splits.test)
    )


def visible(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.name[0] != "."} if root.exists() else set()
