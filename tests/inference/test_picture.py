"""Files of all kinds become upright RGB, or are refused in words."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import GREEN, RED, left_red, turned
from made_pictures import seen as seen_at
from PIL import Image, ImageOps

from segpets.data import picture as room
from segpets.data.picture import DepthError, Picture
from segpets.data.reader import Reader
from segpets.errors import FileError
from segpets.inference.picture import read_picture as read_by

RGB = Reader((8, 8))


def read_picture(path: Path, **options: int) -> Picture:
    return read_by([path], RGB, **options)


def read_shrunk(path: Path, size: int, **options: int) -> tuple[torch.Tensor, tuple[int, int]]:
    pixels, whole = seen_at(path, size, **options)
    return torch.from_numpy(pixels), whole


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(picture.strip(0, picture.size[0]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_stands_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = turned(tmp_path / f"a.{suffix}", orientation, **options)
    with Image.open(path) as image:
        image.load()
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape[0] == (40 if orientation >= 5 else 20)
    whole = read_picture(path)
    assert np.array_equal(pixels(whole), expected)
    for size in (8, 64):  # with and without a draft
        shrunk, seen = read_shrunk(path, size)
        assert seen == expected.shape[:2]
        close = whole.resized((size, size)).int() - shrunk.int()
        assert close.abs().max() < 40


def test_orientation_6_has_its_first_row_on_the_right(tmp_path: Path) -> None:
    seen = pixels(read_picture(turned(tmp_path / "a.png", 6)))
    assert seen.shape == (40, 20, 3)  # what was left is at the top
    assert (seen[:10] == RED).all()
    assert (seen[10:] == GREEN).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    left_red().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_picture(tmp_path / "a.jpg").size == (20, 40)


def test_strips_shrink_to_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    picture = Picture(Image.fromarray(values), Path("a"), RGB)
    whole = picture.resized((16, 24))
    monkeypatch.setattr(room, "LARGE", 1000)
    monkeypatch.setattr(room, "STRIP", 700)
    assert whole.shape == (3, 16, 24)
    assert (picture.resized((16, 24)).int() - whole.int()).abs().max() <= 1  # rounded once more


KINDS = {
    "1": ((0, 0, 0), (255, 255, 255)),
    "L": ((76, 76, 76), (150, 150, 150)),
    "LA": ((76, 76, 76), (150, 150, 150)),
    "P": (RED, GREEN),
    "RGBA": (RED, GREEN),
    "CMYK": (RED, GREEN),
}


@pytest.mark.parametrize("mode", KINDS)
def test_all_types_of_pixels_are_understood(mode: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    left_red().convert(mode, dither=Image.Dither.NONE).save(path)
    seen = pixels(read_picture(path))
    left, right = KINDS[mode]
    assert (seen[:, :10] == left).all()
    assert (seen[:, 10:] == right).all()


def test_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    left_red().convert("P").save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert (pixels(read_picture(tmp_path / "a.png"))[:, :10] == RED).all()


def test_16_bits_need_a_range(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 257, 257 * 128, 65535], dtype=np.uint16), (5, 1))
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(DepthError, match=r"values from 0 to 65535.*data.range=\[0,65535\]"):
        seen_at(tmp_path / "a.png", 8)
    picture = read_by([tmp_path / "a.png"], Reader((8, 8), range=(0, 65535)))
    assert pixels(picture)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert picture.rows(2, 4).shape == (3, 2, 4)


def test_an_animation_is_refused_with_its_number_of_frames(tmp_path: Path) -> None:
    others = [Image.new("RGB", (40, 20), "blue")]
    left_red().save(tmp_path / "a.gif", save_all=True, append_images=others)
    with pytest.raises(FileError, match=r"a\.gif has 2 frames: data\.pages=each"):
        seen_at(tmp_path / "a.gif", 8)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1)])
def test_a_picture_of_one_pixels_width_is_read(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, RED).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    shrunk, seen = read_shrunk(tmp_path / "a.jpg", 8)
    assert seen == size[::-1]
    assert shrunk.shape == (3, 8, 8)
    assert (shrunk[0] > 250).all()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def test_what_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(200_000, 200_000))
    with pytest.raises(FileError, match=r"claims too many pixels .* more than 178,956,970"):
        read_picture(tmp_path / "bomb.png")
    left_red().save(tmp_path / "a.png")
    with pytest.raises(FileError, match=r"800 pixels.*more than 799"):
        read_shrunk(tmp_path / "a.png", 8, max_pixels=799)
    assert read_picture(tmp_path / "a.png", max_pixels=800).size == (20, 40)


@pytest.mark.parametrize("content", [b"", b"no picture", b"<svg/>", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_picture, lambda path: read_shrunk(path, 8)):
        with pytest.raises(FileError, match=r"a\.jpg (is not an image|can't be)"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp"])
def test_a_truncated_picture_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    for read in (read_picture, lambda path: read_shrunk(path, 8)):
        with pytest.raises(FileError, match=r"can't be"):
            read(path)


def test_torch_gives_strips_of_rgb() -> None:
    rows = Picture(left_red(), Path("a"), RGB).rows(3, 5)
    assert rows.dtype == torch.uint8
    assert rows[:, 0, 0].tolist() == list(RED)
    assert rows.shape == (3, 2, 40)
