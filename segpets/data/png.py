"""Looks whether a PNG holds as many rows as it claims; Pillow fills those it lacks with zeros."""

import zlib
from collections.abc import Iterator
from typing import Final

_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types
_PASSES: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE: Final = 1 << 20


def check_rows(content: bytes) -> None:
    """Checks how many bytes the pixels of a PNG unpack to, which Pillow has decoded before.

    PNG specification, third edition, 2025, section 7 (scanlines) and 8 (passes of interlaced ones).

    Args:
        content: The file's.

    Raises:
        ValueError: They are fewer than its size asks for.
    """
    asked = _size(content[16:29])
    unpacker, stored = zlib.decompressobj(), 0
    for packed in _packed(content):
        while packed and stored < asked:
            stored += len(unpacker.decompress(packed, _PIECE))
            packed = unpacker.unconsumed_tail
    if stored < asked:
        raise ValueError(f"its pixels end after {stored:,} of {asked:,} bytes")


def _packed(content: bytes) -> Iterator[bytes]:
    """Yields the compressed parts of the first frame."""
    place = 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += 12 + length


def _size(header: bytes) -> int:
    """Computes the bytes of all rows, each with one for its filter."""
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (0, 4))
    bits = header[8] * _CHANNELS[header[9]]
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total
