"""A PNG that holds fewer rows than it claims is refused; Pillow reads the rest as zeros."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpets.data.decode import load, open_image, read_indices
from segpets.errors import FileError


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: bytes, size: tuple[int, int], *, bits: int = 8, colour: int = 0, passes: int = 0
) -> bytes:
    """A PNG of packed rows, each with the byte of its filter before it."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, passes)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


# Width, height, bits, colour type, interlaced: all bytes of the rows by hand.
WHOLE = {
    "grey": ((5, 4), 8, 0, 0, 4 * (1 + 5)),
    "grey of one bit": ((9, 3), 1, 0, 0, 3 * (1 + 2)),
    "RGB": ((5, 4), 8, 2, 0, 4 * (1 + 15)),
    "RGBA": ((2, 2), 8, 6, 0, 2 * (1 + 8)),
    "RGB of 16 bits": ((2, 3), 16, 2, 0, 3 * (1 + 12)),
    # Passes of 1x1, 1x1, 2x1, 2x2, 4x2, 4x4 and 8x4 pixels.
    "interlaced": ((8, 8), 8, 0, 1, 2 + 2 + 3 + 6 + 10 + 20 + 36),
    # The first and the sixth pass, of a pixel each.
    "interlaced, small": ((2, 1), 8, 0, 1, 2 + 2),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_png_is_read_whole_and_refused_when_a_byte_of_its_rows_is_missing(
    kind: str, tmp_path: Path
) -> None:
    size, bits, colour, passes, length = WHOLE[kind]
    file = tmp_path / "picture.png"
    given = {"bits": bits, "colour": colour, "passes": passes}
    file.write_bytes(png(bytes(length), size, **given))
    with open_image(file) as image:
        assert not np.asarray(load(image, file)).any()
    file.write_bytes(png(bytes(length - 1), size, **given))
    with (
        open_image(file) as image,
        pytest.raises(FileError, match=r"picture\.png can't be decoded"),
    ):
        load(image, file)


def test_a_mask_that_ends_after_its_first_rows_is_refused(tmp_path: Path) -> None:
    file, row = tmp_path / "mask.png", b"\0" + bytes([2] * 64)
    file.write_bytes(png(row * 64, (64, 64)))
    assert (read_indices(file) == 2).all()
    file.write_bytes(png(row * 20, (64, 64)))
    with pytest.raises(FileError, match=r"its pixels end after 1,300 of 4,160 bytes"):
        read_indices(file)


def test_a_black_photograph_saved_by_pillow_is_read(tmp_path: Path) -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
        file = tmp_path / f"{mode.replace(';', '')}.png"
        Image.new(mode, (300, 200)).save(file)
        with open_image(file) as image:
            assert load(image, file).size == (300, 200)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    content = io.BytesIO()
    frames = [Image.new("L", (9, 9), shade) for shade in (0, 90)]
    frames[0].save(content, "PNG", save_all=True, append_images=frames[1:])
    file = tmp_path / "moving.png"
    file.write_bytes(content.getvalue())
    with open_image(file) as image:
        assert not np.asarray(load(image, file)).any()
