"""Files of any depth, number of bands, pages and orientation, with values worked out by hand."""

import os
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from segpets.data.picture import DepthError, Picture
from segpets.data.reader import Reader
from segpets.errors import FileError

SIZE = (4, 6)
PHOTO = {1: "minisblack", 3: "rgb"}
WHOLE = Reader((32, 32), fit="none")


def read(file: Path | list[Path], reader: Reader, **options: object) -> Picture:
    files = file if isinstance(file, list) else [file]
    with reader.opened(files, **options) as picture:  # type: ignore[arg-type]
        return picture


def values(picture: Picture) -> NDArray[np.float32]:
    """The pixels, (H, W, C)."""
    return picture.rows(0, picture.size[0]).permute(1, 2, 0).numpy()


def ramp(channels: int, dtype: str, *, step: int = 1) -> NDArray[np.int64]:
    """0, 1, 2 ... in rows, columns and channels."""
    return (step * np.arange(24 * channels).reshape(4, 6, channels)).astype(dtype)


# depth


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [("png", 1), ("png", 3), ("tif", 1), ("tif", 3), ("npy", 1), ("npy", 3), ("ppm", 3)],
)
def test_16_bits_are_mapped_by_the_range_without_loss(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    array = ramp(channels, "uint16", step=100) + 1000
    file = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(file, array)
    elif suffix == "tif":
        tifffile.imwrite(
            file, array if channels > 1 else array[..., 0], photometric=PHOTO[channels]
        )
    else:
        cv2.imwrite(str(file), array[:, :, ::-1] if channels == 3 else array[..., 0])
    picture = read(file, Reader((32, 32), fit="none", channels=channels, range=(1000, 8000)))
    expected = ((array.astype(np.float64) - 1000) / 7000).clip(0, 1)
    found = values(picture)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert len(np.unique(found)) == 24 * channels - (array > 8000).sum()
    assert picture.clipped == (array > 8000).sum()


def test_what_is_deeper_than_8_bits_asks_for_its_range(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-3.5, 7.25]], dtype=np.float32))
    with pytest.raises(
        DepthError, match=r"from -3.5 to 7.25, .*data.range=\[-3.5,7.25\]"
    ) as caught:
        values(read(tmp_path / "a.npy", Reader((32, 32), fit="none", channels=1)))
    assert (caught.value.low, caught.value.high) == (-3.5, 7.25)


def test_8_bits_would_be_nearly_black_in_a_range_of_more(tmp_path: Path) -> None:
    Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(tmp_path / "a.png")
    reader = Reader((32, 32), fit="none", channels=1, range=(0, 4095))
    with pytest.raises(FileError, match="8 bits, and its white would be nearly black"):
        values(read(tmp_path / "a.png", reader))
    wide = Reader((32, 32), fit="none", channels=1, range=(0, 510))
    assert np.allclose(values(read(tmp_path / "a.png", wide)), 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_counted_and_refused(tmp_path: Path, bad: float) -> None:
    array = np.zeros(SIZE, dtype=np.float32)
    array[1, 2:4] = bad
    np.save(tmp_path / "a.npy", array)
    reader = Reader((32, 32), fit="none", channels=1, range=(0, 1))
    with pytest.raises(FileError, match=r"a\.npy holds 2 values that are NaN or infinite"):
        values(read(tmp_path / "a.npy", reader))


@pytest.mark.parametrize("content", ["object", "text", "1d", "4d", "junk", "pickle"])
def test_an_array_that_is_no_picture_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "a.npy"
    arrays = {
        "text": np.array([["a", "b"]]),
        "1d": np.zeros(9),
        "4d": np.zeros((2, 2, 2, 2)),
        "object": np.array([[{}, None]], dtype=object),
    }
    if content in arrays:
        np.save(file, arrays[content], allow_pickle=True)
    else:
        file.write_bytes(b"\x93NUMPY" + bytes(99) if content == "junk" else b"\x80\x04.")
    with pytest.raises(FileError, match=r"a\.npy can't be read .*numpy.save"):
        read(file, Reader((32, 32), channels=1, range=(0, 1)))


def test_a_header_that_claims_gigabytes_allocates_nothing(tmp_path: Path) -> None:
    header = (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000)}".ljust(117) + b"\n"
    )
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + b"\x76\x00" + header)
    with pytest.raises(FileError, match="its shape is"):
        read(tmp_path / "a.npy", WHOLE)


# channels


def test_bands_in_files_of_their_own_are_stacked_in_order(tmp_path: Path) -> None:
    array = ramp(4, "uint8")
    files = [tmp_path / f"b{band}.png" for band in range(4)]
    for band, file in enumerate(files):
        Image.fromarray(array[..., band]).save(file)
    picture = read(files, Reader((32, 32), fit="none", channels=4))
    assert np.array_equal(values(picture), array)


def test_bands_of_different_sizes_are_refused_with_both(tmp_path: Path) -> None:
    files = [tmp_path / "red.png", tmp_path / "nir.png"]
    Image.new("L", (6, 4)).save(files[0])
    Image.new("L", (3, 2)).save(files[1])
    with pytest.raises(FileError, match=r"nir\.png has 3x2 pixels, but .*red\.png has 6x4"):
        read(files, Reader((32, 32), channels=2))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_of_many_bands(tmp_path: Path, planar: str, compression: str | None) -> None:
    array = ramp(7, "uint8")
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    options = {"photometric": "minisblack", "planarconfig": planar, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(stored), **options)
    picture = read(tmp_path / "a.tif", Reader((32, 32), fit="none", channels=7))
    assert np.array_equal(values(picture), array)
    with pytest.raises(FileError, match=r"a\.tif has 7 channels, but data.channels=3"):
        values(read(tmp_path / "a.tif", WHOLE))


def test_the_fourth_channel_is_alpha_only_for_three(tmp_path: Path) -> None:
    array = ramp(4, "uint8")
    Image.fromarray(array).save(tmp_path / "a.png")
    four = read(tmp_path / "a.png", Reader((32, 32), fit="none", channels=4))
    assert np.array_equal(values(four), array)
    three = read(tmp_path / "a.png", WHOLE)
    assert np.array_equal(values(three), array[..., :3])
    assert three.lost_alpha and not four.lost_alpha
    array[..., 3] = 255  # opaque: nothing is lost
    Image.fromarray(array).save(tmp_path / "b.png")
    opaque = read(tmp_path / "b.png", WHOLE)
    values(opaque)
    assert not opaque.lost_alpha


def test_grey_from_colours_is_pillows(tmp_path: Path) -> None:
    image = Image.fromarray(ramp(3, "uint8", step=3))
    image.save(tmp_path / "a.png")
    grey = values(read(tmp_path / "a.png", Reader((32, 32), fit="none", channels=1)))
    assert np.array_equal(grey[..., 0], np.asarray(image.convert("L")))


# pages


def stack(file: Path, pages: int = 3) -> NDArray[np.int64]:
    array = ramp(pages, "uint8")
    with tifffile.TiffWriter(file) as writer:
        for page in range(pages):
            writer.write(array[..., page], photometric="minisblack")
    return array


def test_pages_are_refused_with_their_number_or_used(tmp_path: Path) -> None:
    array = stack(tmp_path / "a.tif")
    with pytest.raises(FileError, match=r"a\.tif has 3 pages: data\.pages=each"):
        read(tmp_path / "a.tif", WHOLE)
    stacked = read(tmp_path / "a.tif", Reader((32, 32), fit="none", pages="channels"))
    assert np.array_equal(values(stacked), array)
    one = read(tmp_path / "a.tif", Reader((32, 32), fit="none", channels=1), page=2)
    assert np.array_equal(values(one)[..., 0], array[..., 2])


def test_smaller_copies_of_a_page_are_no_pages(tmp_path: Path) -> None:
    array = ramp(1, "uint16", step=9)[..., 0]
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(array, photometric="minisblack")
        writer.write(array[::2, ::2], photometric="minisblack", subfiletype=1)
    reader = Reader((32, 32), fit="none", channels=1, range=(0, 9 * 23))
    np.testing.assert_allclose(
        values(read(tmp_path / "a.tif", reader))[..., 0] * 9 * 23, array, atol=1e-4
    )


def test_a_page_of_another_size_is_named(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for size in ((4, 6), (4, 6), (5, 6)):
            writer.write(np.zeros(size, np.uint8), photometric="minisblack")
    with pytest.raises(FileError, match=r"of different sizes: page 3 has 6x5 .* first 6x4"):
        read(tmp_path / "a.tif", Reader((32, 32), pages="channels"))


# orientation


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_a_picture_is_turned_where_its_mask_says_so(tmp_path: Path, turn: int, deep: bool) -> None:
    upright = ramp(1, "uint8", step=9)[..., 0]
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = np.asarray(_stored(Image.fromarray(upright), turn))
    file = tmp_path / ("a.tif" if deep else "a.png")
    if deep:
        wide = np.ascontiguousarray(stored.astype(np.uint16))
        tifffile.imwrite(
            file, wide, photometric="minisblack", extratags=[(274, "H", 1, turn, False)]
        )
    else:
        Image.fromarray(stored).save(file, exif=exif)

    def pixels(**options: object) -> tuple[NDArray[np.int64], Picture]:
        limits = (0, 255) if deep else None
        exif_mode = options.pop("exif", "auto")
        reader = Reader((32, 32), fit="none", channels=1, range=limits, exif=exif_mode)
        picture = read(file, reader, **options)
        scale = 255 if deep else 1
        return (values(picture)[..., 0] * scale).round().astype(np.uint8), picture

    alone, _ = pixels()
    assert np.array_equal(alone, upright)  # as a prediction sees it
    seen, picture = pixels(masked=upright.shape)
    assert np.array_equal(seen, upright)
    assert picture.turned
    assert picture.undecided == (turn < 5)  # only a quarter turn shows in the size
    if turn >= 5:
        left, picture = pixels(masked=stored.shape)
        assert np.array_equal(left, stored)
        assert not picture.turned
    assert np.array_equal(pixels(masked=upright.shape, exif="ignore")[0], stored)
    assert np.array_equal(pixels(masked=stored.shape, exif="apply")[0], upright)


def _stored(upright: Image.Image, turn: int) -> Image.Image:
    """The way back from what EXIF's orientation makes of a picture."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright.transpose(back[turn])


# sizes


def test_a_letterbox_keeps_the_shape_in_the_middle(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), (9, 9, 9)).save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png", Reader((40, 60), fit="letterbox"))
    image, place = picture.fitted(), picture.geometry
    assert image.shape == (3, 40, 60)
    assert (place.height, place.width, place.top, place.left) == (30, 60, 5, 0)
    assert (image[:, 5:35] == 9).all()
    assert (image[:, :5] == 0).all() and (image[:, 35:] == 0).all()
    ids = place.fitted(np.ones((50, 100), np.uint8))
    assert (ids[5:35] == 1).all()
    assert (ids[:5] == 255).all() and (ids[35:] == 255).all()
    assert torch.equal(place.inside(image), image[:, 5:35])


@pytest.mark.parametrize(
    ("fit", "size", "seen"),
    [
        ("stretch", (40, 60), (40, 60)),
        ("shorter", (40, 40), (40, 80)),
        ("shorter", (60, 40), (40, 80)),
        ("none", (40, 40), (50, 100)),
    ],
)
def test_other_fits(tmp_path: Path, fit: str, size: tuple[int, int], seen: tuple[int, int]) -> None:
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png", Reader(size, fit=fit))  # type: ignore[arg-type]
    assert picture.fitted().shape == (3, *seen)


def test_a_tiny_picture_is_padded_to_what_a_net_takes(tmp_path: Path) -> None:
    Image.new("RGB", (6, 50), (9, 9, 9)).save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png", WHOLE)
    assert picture.fitted().shape == (3, 50, 32)
    assert picture.geometry.inside(picture.fitted()).shape == (3, 50, 6)
    assert (picture.geometry.inside(picture.fitted()) == 9).all()


# hostile and odd files


def test_a_header_of_comments_is_read_once(tmp_path: Path) -> None:
    """A pattern that tries each way to part it would not come to an end."""
    (tmp_path / "a.ppm").write_bytes(b"P6\n" + b"#\n\n" * 84 + b"x")
    with pytest.raises(FileError):
        read(tmp_path / "a.ppm", WHOLE)


@pytest.mark.parametrize("magic", [b"P5", b"P6"])
@pytest.mark.parametrize("comment", [b"", b"# by a camera\n"])
def test_pnm_of_12_bits_counts_as_it_is_stored(
    tmp_path: Path, magic: bytes, comment: bytes
) -> None:
    channels = 3 if magic == b"P6" else 1
    pixels = np.full((4, 6, channels), 2000, dtype=">u2")
    header = magic + b"\n6 4\n" + comment + b"4095\n"
    (tmp_path / "a.ppm").write_bytes(header + pixels.tobytes())
    reader = Reader((32, 32), fit="none", channels=channels, range=(0, 4095))
    assert np.allclose(values(read(tmp_path / "a.ppm", reader)), 2000 / 4095)


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_a_sparse_file_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    array = ramp(1, "uint16")[..., 0]
    np.save(file, array) if suffix == "npy" else tifffile.imwrite(file, array)
    os.truncate(file, 3_000_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = Reader((32, 32), fit="none", channels=1, range=(0, 23))
    if suffix == "npy":
        with pytest.raises(FileError, match="more than"):
            read(file, reader)
    else:
        assert np.allclose(values(read(file, reader))[..., 0] * 23, array)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_picture_within_a_tiff_is_refused(tmp_path: Path) -> None:
    options = {"photometric": "minisblack", "compression": "png"}
    tifffile.imwrite(tmp_path / "a.tif", ramp(1, "uint16")[..., 0], **options)
    with pytest.raises(FileError, match=r"compression is .*PNG.*store it with deflate"):
        read(tmp_path / "a.tif", Reader((32, 32), channels=1, range=(0, 9)))


def test_many_pages_are_counted_before_they_are_decoded(tmp_path: Path) -> None:
    stack(tmp_path / "a.tif", pages=12)
    with pytest.raises(FileError, match=r"has 12 channels, but data\.channels=3"):
        read(tmp_path / "a.tif", Reader((32, 32), pages="channels"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_may_be_zero(tmp_path: Path, dtype: str) -> None:
    array = ramp(1, dtype)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    top = np.iinfo(dtype).max
    reader = Reader((32, 32), fit="none", channels=1, range=(0, int(top)))
    assert np.allclose(
        values(read(tmp_path / "a.tif", reader))[..., 0] * top, top - array, atol=0.01
    )


def test_a_page_behind_a_smaller_copy_is_found(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for value, options in ((200, {}), (10, {"subfiletype": 1}), (100, {})):
            size = (2, 3) if options else (4, 6)
            writer.write(np.full(size, value, np.uint8), photometric="minisblack", **options)
    reader = Reader((32, 32), fit="none", channels=1)
    assert (values(read(tmp_path / "a.tif", reader, page=1)) == 100).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_four_bands_that_are_no_transparency_are_said(tmp_path: Path, planar: str) -> None:
    array = ramp(4, "uint8")
    stored = array if planar == "contig" else np.ascontiguousarray(np.moveaxis(array, -1, 0))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar)
    with pytest.raises(FileError, match=r"a\.tif has 4 channels, but data\.channels=3"):
        values(read(tmp_path / "a.tif", WHOLE))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (16, 16)}])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_tiff_without_some_of_its_strips_or_tiles_is_refused(
    tmp_path: Path, dtype: str, layout: dict[str, int], compression: str | None
) -> None:
    file = tmp_path / "a.tif"
    array = np.arange(1, 64 * 64 + 1).reshape(64, 64).astype(dtype)
    tifffile.imwrite(file, array, compression=compression, **layout)  # type: ignore[arg-type]
    rules = {"channels": 1, "range": None if dtype == "uint8" else (0, 65_535)}
    reader = Reader((64, 64), fit="none", **rules)  # type: ignore[arg-type]
    expected = array / (1 if dtype == "uint8" else 65_535)
    np.testing.assert_allclose(values(read(file, reader))[..., 0], expected, atol=1e-7)
    content = bytearray(file.read_bytes())
    with tifffile.TiffFile(file) as opened:
        tags = opened.pages[0].tags
        for code in (273, 279, 324, 325):
            if code in tags:
                content[tags[code].offset + 4 : tags[code].offset + 8] = (3).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(FileError, match=r"a\.tif can't be (opened|decoded)"):
        read(file, reader)
