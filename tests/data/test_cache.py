import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pet_folder import PetFolder
from PIL import Image
from test_pixels import SIZE, names, pixels

from segpets.data import Folder, OxfordPets
from segpets.data.cache import Shape
from segpets.data.pixels import CACHE_FOLDER, Pixels
from segpets.data.reader import Reader
from segpets.data.source import Mask, Sample, merged
from segpets.errors import UserError
from segpets.run.lock import waiting


def caches(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pixels"))


def bytes_needed(pets: PetFolder, size: int) -> int:
    return Shape(len(names(pets)), 3, "uint8", (size, size)).bytes


def own(pets: PetFolder) -> Path:
    return pets.root / CACHE_FOLDER


def equal(pets: PetFolder, **more: object) -> bool:
    """Whether the cache gives what the files hold."""
    cached, decoded = pixels(pets, **more), pixels(pets)  # type: ignore[arg-type]
    assert cached.cache is not None
    return cached.fingerprint == decoded.fingerprint and all(
        torch.equal(a, b)
        for name in names(pets)
        for a, b in zip(cached.of(name), decoded.of(name), strict=True)
    )


def test_the_second_opening_builds_nothing(pets: PetFolder) -> None:
    pixels(pets, cache="disk")
    inode = caches(own(pets))[0].stat().st_ino
    assert equal(pets, cache="disk")
    assert caches(own(pets))[0].stat().st_ino == inode  # not written anew


def other_pixels(pets: PetFolder) -> None:
    pets.image("beagle_1").write_bytes(pets.image("beagle_2").read_bytes())


def other_mask(pets: PetFolder) -> None:
    pets.trimap("beagle_1").write_bytes(pets.trimap("beagle_2").read_bytes())


def same_size_and_date(pets: PetFolder) -> None:
    file = pets.trimap("beagle_1")
    stat = file.stat()
    content = bytearray(pets.trimap("beagle_2").read_bytes())
    content = content[: stat.st_size].ljust(stat.st_size, b"\0")
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [other_pixels, other_mask, same_size_and_date])
def test_a_changed_file_is_noticed(
    pets: PetFolder, change: Callable[[PetFolder], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = pixels(pets, cache="disk").fingerprint
    change(pets)
    assert equal(pets, cache="disk")
    assert pixels(pets).fingerprint != before
    assert "files have changed" in caplog.text
    assert len(caches(own(pets))) == 1


def test_other_settings_have_other_caches_and_other_splits_the_same(pets: PetFolder) -> None:
    pixels(pets, cache="disk")
    pixels(pets, cache="disk", size=40)
    assert len(caches(own(pets))) == 2
    for split in ("holdout", "article"):
        module = OxfordPets(root=pets.root, split=split, seed=3).splits()
        assert {s.name for s in [*module.train, *module.val, *module.test]} == set(names(pets))
    pixels(pets, cache="disk")
    assert len(caches(own(pets))) == 2


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut_in_half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another_version": lambda content: b"SEGPETS0" + content[8:],
    "header": lambda content: content[:20] + b"\xff" * 30 + content[50:],
    "header_of_no_json_object": lambda content: content[:12] + b"[]".ljust(4096) + content[4108:],
    "table": lambda content: content[:4110] + bytes([content[4110] ^ 0xFF]) + content[4111:],
    "no_cache_at_all": lambda content: b"\x89PNG\r\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_built_anew(
    pets: PetFolder, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pixels(pets, cache="disk")
    (file,) = caches(own(pets))
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    assert equal(pets, cache="disk")
    assert f"{file} is built anew" in caplog.text


def test_a_damaged_record_is_read_from_its_files(
    pets: PetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    pixels(pets, cache="disk")
    (file,) = caches(own(pets))
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    assert equal(pets, cache="disk")
    assert f"{file} was damaged: the next run builds it anew" in caplog.text


def test_a_bad_image_leaves_no_cache(pets: PetFolder) -> None:
    pets.image("beagle_2").write_bytes(b"")
    with pytest.raises(UserError, match=r"beagle_2\.jpg is not an image"):
        pixels(pets, cache="disk")
    assert [file.suffix for file in own(pets).iterdir()] == [".lock"]


# where


def test_a_folder_that_cannot_be_written_sends_the_cache_elsewhere_and_says_where(
    pets: PetFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    own(pets).write_text("a file where the folder should be")
    assert equal(pets, cache="disk")
    (file,) = caches(tmp_path / "home" / "segpets")
    assert f"{own(pets)}/" in caplog.text
    assert str(file) in caplog.text


def test_where_nothing_can_be_written_auto_decodes_and_disk_refuses(
    pets: PetFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    found = pixels(pets, cache="auto", cache_dir=blocked)
    assert found.cache is None
    assert "without a cache" in caplog.text
    assert str(blocked) in caplog.text
    with pytest.raises(UserError, match=r"data\.cache=disk, but no cache can be kept: .*blocked"):
        pixels(pets, cache="disk", cache_dir=blocked)


def test_what_does_not_fit_is_decoded_each_time(
    pets: PetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    needed = bytes_needed(pets, 32)
    assert pixels(pets, cache="auto", cache_gb=(needed - 1) / 1e9).cache is None
    assert "data.cache_gb allows" in caplog.text
    assert not caches(own(pets))
    assert pixels(pets, cache="auto", cache_gb=needed / 1e9).cache is not None
    assert caches(own(pets))[0].stat().st_size <= needed


def test_the_cache_that_was_unused_the_longest_gives_way(pets: PetFolder) -> None:
    for size in (32, 33, 34):
        pixels(pets, cache="disk", size=size)
        time.sleep(0.01)  # so that the dates differ
    pixels(pets, cache="disk", size=32)  # used again
    limit = sum(bytes_needed(pets, size) for size in (32, 34, 35)) / 1e9
    pixels(pets, cache="disk", size=35, cache_gb=limit)
    assert [file.name[:2] for file in caches(own(pets))] == ["32", "34", "35"]


def _set_up(pets: PetFolder, cache_dir: Path | None, cache: str) -> str:
    """Code that lists and caches, and prints where and the fingerprint, or the user's error."""
    return f"""
import logging, sys
sys.path[:0] = {sys.path!r}
logging.basicConfig(level=logging.INFO)
from segpets.data import OxfordPets
from segpets.data.pixels import Pixels
from segpets.data.reader import Reader
from segpets.data.source import merged
from segpets.errors import UserError
source = OxfordPets(root={str(pets.root)!r})
samples, _ = merged(source.splits())
print("begin", flush=True)
try:
    pixels = Pixels(samples, source=source, reader=Reader((32, 32)), cache={cache!r},
                    cache_dir={cache_dir and str(cache_dir)!r})
except UserError as error:
    print("UserError", error)
else:
    print(pixels.cache and pixels.cache.path, pixels.fingerprint)
"""


def _mounted(options: str, folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where a folder is mounted otherwise, which only that process sees."""
    command = f'mount {options} "$0" && exec "$1" -c "$2"'
    words = ["unshare", "--mount", "sh", "-c", command, str(folder), sys.executable, code]
    try:
        tried = subprocess.run([*words[:-1], ""], capture_output=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if tried.returncode:
        pytest.skip("only root may mount")
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


def test_a_read_only_data_folder_sends_the_cache_elsewhere_and_says_where(
    pets: PetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    options = f"--bind -o ro '{pets.root}'"
    done = _mounted(options, pets.root, _set_up(pets, None, "auto"))
    (file,) = caches(tmp_path / "home" / "segpets")
    assert done.stdout.split()[1:] == [str(file), pixels(pets).fingerprint], done.stderr
    assert f"Decoded pixels are kept in {file} (0 MB)" in done.stderr
    assert not own(pets).exists()


@pytest.mark.slow
def test_a_cache_in_a_folder_that_has_become_read_only_is_used(pets: PetFolder) -> None:
    built = pixels(pets, cache="disk")
    assert built.cache is not None
    done = _mounted(f"--bind -o ro '{pets.root}'", pets.root, _set_up(pets, None, "disk"))
    assert done.stdout.split()[1:] == [str(built.cache.path), built.fingerprint], done.stderr


@pytest.mark.parametrize("cache", ["auto", "disk"])
def test_on_a_full_disk_auto_goes_on_and_disk_refuses(
    pets: PetFolder, tmp_path: Path, cache: str
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    done = _mounted("-t tmpfs -o size=64k tmpfs", folder, _set_up(pets, folder, cache))
    if cache == "auto":
        assert done.stdout.split()[1:] == ["None", pixels(pets).fingerprint], done.stderr
        assert "without a cache" in done.stderr
    else:
        assert "UserError data.cache=disk, but no cache can be kept" in done.stdout
    assert str(folder) in done.stderr + done.stdout


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(pets: PetFolder, tmp_path: Path) -> None:
    # A limit on the size of files is what a process can set for itself; the error is another
    # number, so the cache is tried with it through the same path as a full disk's.
    limit = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
"""
    code = limit + _set_up(pets, tmp_path / "c", "auto")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["begin", "None", pixels(pets).fingerprint], done.stderr
    assert [file.suffix for file in (tmp_path / "c").iterdir()] == [".lock"]


# processes


def _fingerprint(pets: PetFolder) -> tuple[str, int]:
    found = pixels(pets, cache="disk")
    assert found.cache is not None
    return found.fingerprint, found.cache.path.stat().st_ino


def test_processes_at_once_build_one_cache(pets: PetFolder) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(_fingerprint, [pets] * 3, chunksize=1)
    (file,) = caches(own(pets))
    assert set(found) == {(pixels(pets).fingerprint, file.stat().st_ino)}  # nobody built anew
    assert equal(pets, cache="disk")


def test_a_process_waits_for_the_one_that_builds(
    pets: PetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    built = pixels(pets, cache="disk")
    assert built.cache is not None
    path = built.cache.path
    path.unlink()
    thread = threading.Thread(target=pixels, args=[pets], kwargs={"cache": "disk"})
    with waiting(path.with_suffix(".lock")):
        thread.start()
        while "waiting for it" not in caplog.text:
            time.sleep(0.01)
        assert thread.is_alive()
        assert not path.exists()
    thread.join()
    assert path.exists()


def test_files_that_change_while_the_cache_is_built_are_never_taken_for_what_they_were(
    pets: PetFolder,
) -> None:
    class Changing(OxfordPets):
        """Another program writes a trimap after it has been read."""

        changes = 1

        def mask(self, sample: Sample) -> Mask:
            ids = super().mask(sample)
            if sample.name == "beagle_1" and self.changes:
                self.changes -= 1
                other_mask(pets)
            return ids

    source = Changing(root=pets.root)
    splits = source.splits()
    samples, _ = merged(splits)
    kept = Pixels(samples, source=source, reader=Reader((SIZE, SIZE)), cache="auto")
    assert torch.equal(kept.of("beagle_1")[1], pixels(pets).of("beagle_1")[1])
    assert equal(pets, cache="disk")


def test_a_folder_that_moves_or_is_reached_by_a_link_gives_the_same(
    pets: PetFolder, tmp_path: Path
) -> None:
    expected = pixels(pets, cache="disk").fingerprint
    link = tmp_path / "a link with späces"
    link.symlink_to(pets.root, target_is_directory=True)
    moved = tmp_path / "moved\nhere"
    pets.root = link
    assert pixels(pets, cache="disk").fingerprint == expected
    assert equal(pets, cache="disk")
    pets.root = link.resolve().rename(moved)
    other_mask(pets)  # what the cache of the old place doesn't know
    assert equal(pets, cache="disk")
    assert pixels(pets, cache="disk").fingerprint != expected


def test_names_with_spaces_umlauts_and_line_breaks_are_cached(tmp_path: Path) -> None:
    for number, name in enumerate(["a b", "ä ö", "line\nbreak", "'quoted'", "日本"]):
        for place, suffix in (("images", "png"), ("masks", "png")):
            file = tmp_path / "my set" / place / f"{name}.{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            values = np.full((40, 40), number * 40 if place == "images" else number % 2, np.uint8)
            Image.fromarray(values).save(file)
    source = Folder(root=tmp_path / "my set", classes=["background", "leaf"])
    splits = source.splits()
    samples, _ = merged(splits)
    built = Pixels(samples, source=source, reader=Reader((SIZE, SIZE)), cache="disk")
    opened = Pixels(samples, source=source, reader=Reader((SIZE, SIZE)), cache="disk")
    assert built.cache is not None and opened.fingerprint == built.fingerprint
    shades = {int(opened[row][0].unique().item()) for row in range(len(samples))}
    assert shades == {0, 40, 80, 120, 160}


def test_a_worker_process_opens_the_cache_for_itself(pets: PetFolder) -> None:
    cached = pixels(pets, cache="disk")
    passed = pickle.loads(pickle.dumps(cached))
    assert len(pickle.dumps(cached.cache)) < 1000
    assert all(
        torch.equal(a, b)
        for name in names(pets)
        for a, b in zip(cached.of(name), passed.of(name), strict=True)
    )


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_the_next_one_takes_for_whole(tmp_path: Path) -> None:
    pets = PetFolder(tmp_path / "pets", trainval=100, test=20, width=300, height=300)
    expected = pixels(pets).fingerprint
    fork = multiprocessing.get_context("fork")  # any other would import the libraries each time
    for delay in np.random.default_rng(0).uniform(0, 0.3, 6):
        child = fork.Process(target=pixels, args=[pets], kwargs={"cache": "disk"})
        child.start()
        time.sleep(delay)
        child.kill()
        child.join()
    assert pixels(pets, cache="disk").fingerprint == expected
    assert equal(pets, cache="disk")
    assert sorted(file.suffix for file in own(pets).iterdir()) == [".lock", ".pixels"]


def test_files_of_others_in_the_folder_are_left_alone(pets: PetFolder, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    theirs = [folder / name for name in ("thesis.tmp", "photo.pixels", "32px-notes.pixels")]
    for file in theirs:
        file.write_bytes(bytes(10_000))
    limit = bytes_needed(pets, SIZE) / 1e9
    for size in (SIZE, SIZE - 1):  # the second only fits when the first gives way
        pixels(pets, cache="disk", size=size, cache_dir=folder, cache_gb=limit)
    assert all(file.read_bytes() == bytes(10_000) for file in theirs)
    assert len(caches(folder)) == 3
    assert len(list(folder.glob("*.lock"))) == 2


def test_what_a_mask_means_by_the_list_is_part_of_the_cache(pets: PetFolder) -> None:
    def ids() -> set[int]:
        source = OxfordPets(root=pets.root, labels="species")
        splits = source.splits()
        samples, _ = merged(splits)
        kept = Pixels(samples, source=source, reader=Reader((SIZE, SIZE)), cache="disk")
        return set(kept.of("beagle_1")[1].unique().tolist())

    assert ids() == {0, 2, 255}  # a dog
    listing = pets.listing("trainval")
    listing.write_text(listing.read_text().replace("beagle_1 3 2 3", "beagle_1 3 1 3"))
    assert ids() == {0, 1, 255}  # a cat, now that the list is corrected
