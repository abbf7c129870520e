import io
import random
import resource
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from made_pictures import seen as read_image
from numpy.typing import NDArray
from pet_folder import PetFolder
from PIL import Image

from segpets.data import OxfordPets, Sample
from segpets.data.decode import load, open_image, read_indices
from segpets.data.decoded import read_sample
from segpets.data.reader import Reader
from segpets.data.source import Source
from segpets.errors import FileError, UserError

SIZE = 32
COLOURS = np.array([[[200, 30, 40], [20, 180, 60]], [[30, 50, 220], [240, 230, 90]]], np.uint8)
QUARTERS = COLOURS.repeat(SIZE // 2, axis=0).repeat(SIZE // 2, axis=1)


def read_pair(sample: Sample, source: Source, size: int) -> tuple[NDArray[np.uint8], ...]:
    """Image and mask as a net of this size sees them."""
    decoded = read_sample(sample, source, Reader((size, size)))
    assert decoded.image.dtype == np.uint8
    return decoded.image, decoded.mask


def shown(file: Path, size: int = SIZE) -> NDArray[np.uint8]:
    """The decoded image as one would plot it, (size, size, 3)."""
    return np.moveaxis(read_image(file, size)[0], 0, -1)


def trimap(file: Path, size: int) -> NDArray[np.uint8]:
    """The class ids of a trimap, resized; beside it lies an image of its size."""
    with Image.open(file) as mask:
        Image.new("RGB", mask.size).save(file.parent / "pet.png")
    sample = Sample("pet", file.parent / "pet.png", file, {"species": "cat"})
    return read_pair(sample, OxfordPets(root=file.parent), size)[1]


def message(pets: PetFolder) -> str:
    """What is told of the first sample that can't be read."""
    source = OxfordPets(root=pets.root)
    splits = source.splits()
    with pytest.raises(UserError) as caught:
        for sample in sorted([*splits.train, *splits.val, *splits.test], key=lambda s: s.name):
            read_pair(sample, source, SIZE)
    return str(caught.value)


def saved(path: Path, values: list[list[int]]) -> Path:
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)
    return path


# sizes


@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        ((5, 4), "it belongs to another image, or was resized; .* or export it anew with 4x2 pix"),
        ((2, 4), "turn the mask, or say data.exif=ignore if viewers turn"),
    ],
)
def test_a_mask_of_another_size_comes_with_a_remedy(
    tmp_path: Path, size: tuple[int, int], remedy: str
) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "image.png")
    Image.new("L", size, 1).save(tmp_path / "mask.png")
    sample = Sample("a", tmp_path / "image.png", tmp_path / "mask.png", {"species": "cat"})
    with pytest.raises(FileError, match=r"image\.png has 4x2 pixels, but its mask .*: " + remedy):
        read_pair(sample, OxfordPets(root=tmp_path), SIZE)


# resizing


def test_images_are_resized_bilinearly_with_antialiasing(tmp_path: Path) -> None:
    file = saved(tmp_path / "image.png", [[0, 0, 0, 255]] * 4)
    # At half the size the triangle is two pixels wide on either side: pixels 1, 2, 3 count by
    # 0.25, 0.75, 0.75 for the second column. Without antialiasing it would be 127.
    second = round(255 * 0.75 / (0.25 + 0.75 + 0.75))
    assert shown(file, 2).tolist() == [[[0] * 3, [second] * 3]] * 2


def test_masks_are_resized_by_nearest_neighbour(tmp_path: Path) -> None:
    file = saved(tmp_path / "mask.png", [[1, 1, 2, 2], [1, 3, 2, 1], [3, 3, 1, 1], [2, 2, 1, 3]])
    assert trimap(file, 2).tolist() == [[2, 0], [1, 2]]
    small = saved(tmp_path / "small.png", [[1, 2], [3, 1]])
    assert trimap(small, 4).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [2, 2, 0, 0],
        [2, 2, 0, 0],
    ]


@pytest.mark.parametrize("size", [7, 33, 100])
def test_resizing_invents_no_label_between_pet_and_border(tmp_path: Path, size: int) -> None:
    noise = np.random.default_rng(0).choice([1, 3], (41, 53))
    mask = trimap(saved(tmp_path / "mask.png", noise.tolist()), size)
    assert set(np.unique(mask)) == {0, 2}


def test_at_their_own_size_pixels_stay_as_they_are(tmp_path: Path) -> None:
    pets = PetFolder(tmp_path / "pets", width=SIZE, height=SIZE)
    source = OxfordPets(root=pets.root)
    for sample in source.splits().train:
        image, mask = read_pair(sample, source, SIZE)
        with Image.open(sample.image) as file:
            assert np.array_equal(np.moveaxis(image, 0, -1), np.asarray(file))
        with Image.open(sample.mask) as file:
            assert np.array_equal(mask, np.asarray(file) - 1)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (300, 40), (33, 31), (7, 5)])
def test_resizing_agrees_with_pillow(tmp_path: Path, width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = tmp_path / "image.png"
    Image.fromarray(noise).save(file)
    expected = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    assert np.abs(shown(file).astype(int) - np.asarray(expected)).max() <= 1


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_only_where_that_is_exact_enough(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0)
    smooth = Image.fromarray(noise.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    large = smooth.resize((1600, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    image, shape = read_image(tmp_path / "large.jpg", SIZE)
    assert shape == (1200, 1600)  # of the file, not of the draft
    with Image.open(tmp_path / "large.jpg") as file:
        whole = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    off = np.abs(np.moveaxis(image, 0, -1).astype(int) - np.asarray(whole))
    assert off.mean() < 0.5
    assert off.max() <= 4


# files that work


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_alpha() -> Image.Image:
    alpha = np.full((SIZE, SIZE, 1), 7, dtype=np.uint8)
    return Image.fromarray(np.concatenate([QUARTERS, alpha], axis=2))


def palette() -> Image.Image:
    return Image.fromarray(QUARTERS).quantize(4)


RGB = Image.fromarray(QUARTERS)
WORKING = {
    "jpeg": (encoded(RGB, "JPEG", quality=95, subsampling=0), 40),
    "gif": (encoded(RGB, "GIF"), 0),
    "png": (encoded(RGB, "PNG"), 0),
    "alpha": (encoded(with_alpha(), "PNG"), 0),
    "palette": (encoded(palette(), "PNG"), 0),
    "palette_transparent": (encoded(palette(), "PNG", transparency=b"\0\x80\xff\0"), 0),
    "palette_one_transparent": (encoded(palette(), "PNG", transparency=2), 0),
    "cmyk": (encoded(RGB.convert("CMYK"), "JPEG", quality=95), 40),
    "tiff": (encoded(RGB, "TIFF"), 0),
    "webp": (encoded(RGB, "WEBP", lossless=True), 0),
    "bmp": (encoded(RGB, "BMP"), 0),
}


@pytest.mark.parametrize("kind", WORKING)
def test_files_named_jpg_that_hold_something_else(tmp_path: Path, kind: str) -> None:
    content, tolerance = WORKING[kind]
    file = tmp_path / "pet.jpg"
    file.write_bytes(content)
    image = shown(file)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8
    off = np.abs(image.astype(int) - QUARTERS)
    assert off.max() <= tolerance
    assert off.mean() <= tolerance / 20


@pytest.mark.parametrize("kind", ["L.png", "L.jpg", "LA.png", "1.png"])
def test_grey_files(tmp_path: Path, kind: str) -> None:
    mode = kind.partition(".")[0]
    grey = np.repeat([[0, 255] if mode == "1" else [3, 250]], SIZE, axis=0).repeat(SIZE // 2, 1)
    file = tmp_path / kind
    Image.fromarray(grey.astype(np.uint8)).convert(mode).save(file)
    tolerance = 4 if kind.endswith("jpg") else 0
    assert np.abs(shown(file).astype(int) - grey[..., None]).max() <= tolerance


def test_a_palette_mask_counts_by_its_indices(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[1, 2], [3, 1]], dtype=np.uint8))
    mask.putpalette([9, 9, 9, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    mask.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as file:
        assert file.mode == "P"
    assert trimap(tmp_path / "mask.png", 2).tolist() == [[0, 1], [2, 0]]


# files that don't


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60000x60000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(2_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (truncated, "can't be decoded"),
    "text": (lambda _: b"<html>404 Not Found</html>\n", "not an image that can be read"),
    "empty": (lambda _: b"", "not an image that can be read"),
    "bomb": (lambda _: bomb(), "claims too many pixels (Image size (3600000000 pixels)"),
    "postscript": (lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.parametrize("path", ["image", "trimap"])
@pytest.mark.parametrize("damage", BROKEN)
def test_a_file_that_cannot_be_read_is_named(pets: PetFolder, path: str, damage: str) -> None:
    change, words = BROKEN[damage]
    file: Path = getattr(pets, path)("beagle_3")
    file.write_bytes(change(file.read_bytes()))
    told = message(pets)
    assert str(file) in told
    assert words in told


def claimed(kind: str, width: int, height: int) -> bytes:
    """A file of less than 5 kB whose header claims a size."""
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        data = chunk(b"IDAT", zlib.compress(bytes(2_000)))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
    if kind == "WEBP":  # 14 bits a side; 24 in the extended header
        extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        frame = encoded(RGB, "WEBP", lossless=True)[12:]
        body = b"WEBPVP8X" + struct.pack("<I", 10) + extended + frame
        return b"RIFF" + struct.pack("<I", len(body)) + body
    content = bytearray(encoded(RGB, kind))
    if kind == "JPEG":
        at = content.index(b"\xff\xc0") + 5  # behind marker, length and precision
        content[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    else:  # the tags 256 and 257 of a TIFF, which hold one short or long each
        for tag, side in ((256, width), (257, height)):
            for type_ in (3, 4):
                entry = struct.pack("<HHI", tag, type_, 1)
                if entry in content:
                    at = content.index(entry)
                    content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    return bytes(content)


CLAIMING = ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"]


@pytest.mark.parametrize("side", [60_000, 10_000])  # what Pillow refuses, and what it warns of
@pytest.mark.parametrize("kind", CLAIMING)
@pytest.mark.parametrize("warning", ["error", "ignore"])  # ignored is what reading makes it
def test_an_absurd_size_is_refused_before_anything_is_allocated(
    tmp_path: Path, kind: str, side: int, warning: Literal["error", "ignore"]
) -> None:
    file = tmp_path / "bomb"
    file.write_bytes(claimed(kind, side, side))
    assert file.stat().st_size < 5_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as caught, pytest.raises(FileError) as refused:
        warnings.simplefilter(warning, Image.DecompressionBombWarning)
        read_image(file, SIZE)
    assert not caught
    assert refused.value.file == file
    if kind != "WEBP":  # whose own decoder notices that frame and canvas contradict each other
        assert f"claims too many pixels (Image size ({side * side} pixels)" in str(refused.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_large_image_within_the_limit_is_read(tmp_path: Path) -> None:
    Image.new("L", (9_400, 9_400), 7).save(tmp_path / "large.png")
    image, shape = read_image(tmp_path / "large.png", SIZE)
    assert shape == (9_400, 9_400)
    assert (image == 7).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
def test_damaged_bytes_are_read_or_refused_but_nothing_else_happens(
    tmp_path: Path, kind: str
) -> None:
    noise = np.random.default_rng(0)
    small = Image.fromarray(noise.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    content, refused = encoded(small, kind), 0
    file = tmp_path / "pet.jpg"
    for attempt in range(60):
        damaged = bytearray(content)
        if attempt % 2:
            del damaged[int(noise.integers(len(damaged))) :]
        else:  # not in the header, whose sizes would only cost time here
            damaged[int(noise.integers(64, len(damaged)))] ^= 1 + int(noise.integers(255))
        file.write_bytes(damaged)
        try:
            assert shown(file).shape == (SIZE, SIZE, 3)
        except UserError as error:
            assert str(file) in str(error)
            refused += 1
    assert refused >= 20


def test_a_folder_in_place_of_a_file(pets: PetFolder) -> None:
    pets.image("beagle_3").unlink()
    pets.image("beagle_3").mkdir()
    assert f"{pets.image('beagle_3')} can't be opened" in message(pets)


@pytest.mark.parametrize("value", [0, 4, 255])
def test_a_trimap_value_out_of_range(pets: PetFolder, value: int) -> None:
    trimap = np.full((pets.height, pets.width), 2, dtype=np.uint8)
    trimap[0, 1] = value  # a single pixel, which resizing would lose
    Image.fromarray(trimap).save(pets.trimap("beagle_3"))
    told = message(pets)
    assert f"{pets.trimap('beagle_3')} has the values [{value}]" in told
    assert "1 (pet), 2 (background) and 3 (border)" in told


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_a_mask_of_several_channels_or_16_bit(pets: PetFolder, mode: str) -> None:
    ones = np.ones((pets.height, pets.width), dtype=np.uint8)
    mask = Image.fromarray(ones)
    mask = Image.fromarray(ones.astype(np.uint16)) if mode == "I;16" else mask.convert(mode)
    mask.save(pets.trimap("beagle_3"))
    told = message(pets)
    assert f"{pets.trimap('beagle_3')} is a mask with pixels of type {mode}" in told
    assert "greyscale or palette PNG" in told


def test_image_and_trimap_of_different_sizes(pets: PetFolder) -> None:
    saved(pets.trimap("beagle_3"), [[1] * 40] * 48)  # turned
    told = message(pets)
    assert f"{pets.image('beagle_3')} has 48x40 pixels" in told
    assert f"{pets.trimap('beagle_3')} has 40x48" in told


def bmp(file: Path, indices: np.ndarray, palette: list[tuple[int, int, int]], bits: int) -> None:
    """Writes a BMP by its specification: palette (blue, green, red, 0), rows from below."""
    height, width = indices.shape
    rows = []
    for row in indices[::-1]:
        packed = (
            bytes(row)
            if bits == 8
            else bytes(
                int(a) << 4 | int(b) for a, b in zip(row[::2], [*row[1::2], 0], strict=False)
            )
        )
        rows.append(packed + bytes(-len(packed) % 4))
    table = b"".join(bytes([b, g, r, 0]) for r, g, b in palette)
    data = b"".join(rows)
    begin = 54 + len(table)
    head = b"BM" + struct.pack("<IHHI", begin + len(data), 0, 0, begin)
    sizes = (40, width, height, 1, bits, 0, len(data), 0, 0, len(palette), 0)
    head += struct.pack("<IiiHHIIiiII", *sizes)
    file.write_bytes(head + table + data)


BLACK_AND_WHITE = [(0, 0, 0), (255, 255, 255)]
RAMP = [(i, i, i) for i in range(16)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("palette", [BLACK_AND_WHITE, RAMP], ids=["two", "ramp"])
def test_bmps_of_greys_are_read_as_they_are(
    tmp_path: Path, bits: int, palette: list[tuple[int, int, int]]
) -> None:
    indices = np.random.default_rng(0).integers(0, len(palette), (40, 52), dtype=np.uint8)
    bmp(tmp_path / "a.bmp", indices, palette, bits)
    assert (read_indices(tmp_path / "a.bmp") == indices).all()
    image, size = read_image(tmp_path / "a.bmp", 64)
    greys = np.array(palette, dtype=np.uint8)[indices][..., 0]
    Image.fromarray(greys).save(tmp_path / "b.png")
    assert size == (40, 52)
    assert (image == read_image(tmp_path / "b.png", 64)[0]).all()


def test_what_phones_append_to_a_jpeg_is_no_scan(tmp_path: Path) -> None:
    """A film, in whose bytes the marker of a scan occurs by chance; and a thumbnail in EXIF."""
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG", progressive=True)
    exif = Image.Exif()
    exif[0x9286] = small.getvalue() * 12  # a comment of 120 scans
    file = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64), (9, 90, 200)).save(file, exif=exif)
    with file.open("ab") as stream:
        stream.write(random.Random(0).randbytes(9_000_000))
    with open_image(file) as image:
        assert load(image, file).size == (64, 64)
