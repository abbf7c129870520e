"""Pictures of few bytes that would cost minutes or gigabytes are refused, and large ones wait."""

import io
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_pictures import seen as read_image
from PIL import Image, ImageFile

from segpets.data import decode, reader
from segpets.data.decode import open_image, read_indices
from segpets.errors import FileError
from segpets.inference.picture import claiming


def saved(size: tuple[int, int], kind: str, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def rle_bmp() -> bytes:
    """89 million pixels by two, of which the file holds one."""
    pixels = b"\x01\x00\x00\x00\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, 89_000_000, 2, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return head + header + bytes(1024) + pixels


def many_scans() -> bytes:
    """A progressive JPEG of 9 million pixels with 20,000 scans more, of ten bytes each."""
    whole = saved((3000, 3000), "JPEG", progressive=True)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00"
    return whole[:-2] + scan * 20_000 + whole[-2:]


def huge_tile() -> bytes:
    """A TIFF of 64x64 in one tile of 26,000x26,000."""
    content = zlib.compress(bytes(26_000 * 26_000 // 8), 1)
    tags = [
        (256, 64), (257, 64), (258, 1), (259, 8), (262, 1), (277, 1),
        (322, 26_000), (323, 26_000), (324, 200), (325, len(content)),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + content


def webp() -> bytes:
    """179 million pixels, of which the file holds 64."""
    content = bytearray(saved((8, 8), "WEBP", lossless=True))
    head = content.index(b"VP8L") + 9  # width and height of 14 bits each, less one
    content[head : head + 4] = struct.pack("<I", 16_382 | 10_919 << 14)
    return bytes(content)


def slow_pgm() -> bytes:
    return b"P5 4000 2500 254\n" + bytes(10_000_000)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "rle_bmp": (rle_bmp, "compressed BMP"),
    "many_scans": (many_scans, r"stored in 20,?\d+ scans"),
    "huge_tile": (huge_tile, "its tiles have 676,000,000 pixels"),
    "webp": (webp, "a WebP of 178,902,360 pixels"),
    "slow_pgm": (slow_pgm, "a slow form of PPM"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_wherever_it_is_read_and_not_decoded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = BOMBS[name]
    file = tmp_path / "x.png"
    file.write_bytes(make())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it is decoded"))
    with claiming(200_000_000):
        for read in (
            lambda: read_image(file, 64),
            lambda: read_indices(file),
        ):
            with pytest.raises(FileError, match=rf"{reason}|claims too many pixels"):
                read()


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
def test_what_is_no_picture_s_file_is_not_read_to_its_end(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_bytes(saved((8, 8), "PNG"))
        os.truncate(file, 6_000_000_000)
    with pytest.raises(FileError, match=r"no regular file|more than 64,[\d,]+ bytes"):
        open_image(file)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("WEBP", {}),
        ("PNG", {}),
        ("PPM", {}),
        ("GIF", {}),
    ],
)
def test_ordinary_files_of_each_kind_are_read(
    tmp_path: Path, kind: str, options: dict[str, object]
) -> None:
    file = tmp_path / "x"
    file.write_bytes(saved((1500, 1000), kind, **options))
    assert read_image(file, 32)[1] == (1000, 1500)


def test_what_claims_much_is_decoded_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 10_000)
    file = tmp_path / "x.png"
    file.write_bytes(saved((200, 100), "PNG"))
    inside, most = 0, 0
    count = threading.Lock()
    original = decode.load

    def slow(image: Image.Image, path: Path) -> Image.Image:
        nonlocal inside, most
        with count:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        loaded = original(image, path)
        with count:
            inside -= 1
        return loaded

    monkeypatch.setattr(reader, "load", slow)
    threads = [threading.Thread(target=read_image, args=(file, 16)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert np.array_equal(read_image(file, 16)[0], np.zeros((3, 16, 16), np.uint8))
