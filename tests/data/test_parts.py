"""Pieces of pictures that are decoded without the rest, where the format allows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from segpets.augment.scale_crop import ScaleCrop
from segpets.augment.torchvision import TorchvisionAugment
from segpets.data import Folder, SegmentationDataModule
from segpets.data.deep import open_npy
from segpets.data.reader import Reader
from segpets.hardware import threads

HEIGHT, WIDTH = 150, 210
Save = Callable[[Path, NDArray[Any]], None]


def tiff(**options: Any) -> Save:
    def save(file: Path, array: NDArray[Any]) -> None:
        photometric = "rgb" if array.shape[-1] == 3 else "minisblack"
        array = array[..., 0] if array.shape[-1] == 1 else array
        if options.get("planarconfig") == "separate" and array.ndim == 3:
            array = np.moveaxis(array, -1, 0)
        tifffile.imwrite(file.with_suffix(".tif"), array, photometric=photometric, **options)

    return save


def npy(order: str = "C", *, first: bool = False) -> Save:
    def save(file: Path, array: NDArray[Any]) -> None:
        array = np.moveaxis(array, -1, 0) if first else array
        np.save(file.with_suffix(".npy"), np.asarray(array, order=order))  # type: ignore[call-overload]

    return save


FORMATS: dict[str, Save] = {
    "tiles": tiff(tile=(32, 48), compression="zlib"),
    "tiles, predicted": tiff(tile=(64, 32), compression="lzw", predictor=True),
    "strips": tiff(rowsperstrip=7, compression="zstd"),
    "one strip": tiff(),
    "big endian": tiff(byteorder=">"),
    "big endian tiles": tiff(byteorder=">", tile=(32, 32), compression="zlib"),
    "planes": tiff(planarconfig="separate", tile=(32, 32)),
    "npy": npy(),
    "npy, channels first": npy(first=True),
    "npy, column by column": npy("F"),
}


def datamodule(root: Path, *, cache: str, **options: Any) -> SegmentationDataModule:
    data = SegmentationDataModule(
        source=Folder(root=root, classes=["a", "b"]),
        augment=TorchvisionAugment(transforms=[ScaleCrop([48, 64], rare=0.5)]),
        size=64,
        fit="none",
        batch_size=2,
        num_workers=0,
        run_seed=3,
        cache=cache,
        **options,
    )
    data.setup()
    return data


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_pieces_are_those_of_the_whole_picture(
    tmp_path: Path, name: str, channels: int, bits: int
) -> None:
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(10):
        shape = (HEIGHT + index, WIDTH - index, channels)
        array = generator.integers(0, 2**bits, shape).astype(f"uint{bits}")
        FORMATS[name](tmp_path / "images" / f"{index}", array)
        mask = generator.integers(0, 2, shape[:2]).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    limits = None if bits == 8 else [0, 65535]
    options = {"channels": channels, "range": limits}
    whole = datamodule(tmp_path, cache="disk", **options).dataset("train")
    parts = datamodule(tmp_path, cache="none", **options).dataset("train")
    with threads(2):  # each decodes files
        for epoch in range(4):
            keys = [(epoch, index) for index in range(len(whole))]
            for one, other in zip(whole.__getitems__(keys), parts.__getitems__(keys), strict=True):
                assert torch.equal(one["image"], other["image"])
                assert torch.equal(one["mask"], other["mask"])
                assert one["image"].float().std() > 0


def test_what_a_piece_does_not_touch_is_not_decoded(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, array, tile=(64, 64), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(file) as opened:
        page = opened.pages[0]
        places = dict(enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)))
    content = bytearray(file.read_bytes())
    touched = {5, 6, 9, 10}  # rows and columns 64 to 191, of four tiles a row
    for index, (begin, length) in places.items():
        if index not in touched:
            content[begin : begin + length] = bytes(length)  # no zlib data
    file.write_bytes(content)
    reader = Reader((64, 64), fit="none")
    part = reader.part([file], (70, 80, 100, 90), page=None, size=(256, 256))
    assert part is not None
    np.testing.assert_array_equal(part.permute(1, 2, 0), array[70:170, 80:170])


def test_bands_of_several_files_are_read_in_parts(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 256, (3, 100, 120)).astype(np.uint8)
    files = [tmp_path / "0.npy", tmp_path / "1.tif", tmp_path / "2.npy"]
    np.save(files[0], bands[0])
    tifffile.imwrite(files[1], bands[1], tile=(16, 16))
    np.save(files[2], bands[2])
    reader = Reader((64, 64), fit="none")
    part = reader.part(files, (10, 20, 30, 40), page=None, size=(100, 120))
    assert part is not None
    np.testing.assert_array_equal(part, bands[:, 10:40, 20:60])
    assert reader.part(files, (0, 0, 9, 9), page=None, size=(100, 119)) is None


def test_an_array_that_ends_too_early_is_no_piece(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.ones((100, 100, 3), dtype=np.uint8))
    file.write_bytes(file.read_bytes()[:-5000])
    assert open_npy(file).read((0, 0, 10, 10)).min() == 1
    with pytest.raises(Exception, match=r"a\.npy can't be read .*save it by numpy\.save"):
        open_npy(file).read((95, 0, 5, 5))
