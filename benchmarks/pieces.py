"""Milliseconds to cut a training piece out of a large picture that no cache holds.

    python benchmarks/pieces.py [--size 4096] [--json FILE]

Writes one picture and its mask in several formats, and cuts pieces of 512x512 at scales of 0.5 to 2
out of it, as `augment=scale_crop` does: once with all of it decoded, once with the piece alone,
where the format allows that. Both ways take turns; medians are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from facts import write_facts
from PIL import Image

from segpets.augment.scale_crop import ScaleCrop
from segpets.augment.torchvision import TorchvisionAugment
from segpets.data import Folder
from segpets.data.decoded import Cut, read_piece
from segpets.data.reader import Reader

ROUNDS, PIECE = 15, 512


def photo(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Makes a picture that compresses about as photographs do."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, size // 32, size // 32, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = 0.02 * torch.randn(smooth.shape, generator=generator)
    pixels = ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)
    return pixels[0].permute(1, 2, 0).contiguous().numpy()


def written(folder: Path, size: int) -> list[tuple[str, Path]]:
    """Writes the picture in each format."""
    image = photo(size)
    writers: dict[str, tuple[str, Callable[[Path], Any]]] = {
        "TIFF, deflate, tiles of 256": (
            "tif",
            lambda f: tifffile.imwrite(f, image, tile=(256, 256), compression="zlib"),
        ),
        "TIFF, deflate, strips of 16": (
            "tif",
            lambda f: tifffile.imwrite(f, image, rowsperstrip=16, compression="zlib"),
        ),
        "TIFF, uncompressed": ("tif", lambda f: tifffile.imwrite(f, image)),
        "npy": ("npy", lambda f: np.save(f, image)),
        "PNG": ("png", lambda f: Image.fromarray(image).save(f, compress_level=1)),
        "JPEG": ("jpg", lambda f: Image.fromarray(image).save(f)),
    }
    files = []
    for index, (name, (suffix, write)) in enumerate(writers.items()):
        root = folder / str(index)
        (root / "images").mkdir(parents=True)
        (root / "masks").mkdir()
        write(root / "images" / f"a.{suffix}")
        mask = Image.fromarray((image[:, :, 0] > 127).astype(np.uint8))
        mask.save(root / "masks" / "a.png")
        for other in "bc":  # a data set is split
            (root / "images" / f"{other}.{suffix}").hardlink_to(root / "images" / f"a.{suffix}")
            (root / "masks" / f"{other}.png").hardlink_to(root / "masks" / "a.png")
        files.append((name, root))
    return files


def main() -> None:
    """Prints a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--json", type=Path, help="a file to write")
    args = parser.parse_args()
    size, rows = args.size, []
    augment = TorchvisionAugment(transforms=[ScaleCrop(PIECE)])
    reader = Reader((PIECE, PIECE), fit="none")
    print(f"{size}x{size}, 3 x 8 bits, {torch.get_num_threads()} threads: ms a piece, mask and all")
    print(f"{'':30}{'whole':>9}{'piece':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for name, root in written(Path(folder), size):
            source = Folder(root=root, classes=["dark", "bright"])
            sample = source.splits().train[0]
            times: dict[str, list[float]] = {"whole": [], "piece": []}
            for seed in range(ROUNDS):
                piece = partial(augment.piece, seed=seed)
                ways: dict[str, Cut] = {"whole": lambda mask: None, "piece": piece}
                results = []
                for way, cut in ways.items():
                    begin = time.perf_counter()
                    image, mask = read_piece(sample, source, reader, cut)
                    pair = augment(torch.from_numpy(image), torch.from_numpy(mask), seed=seed)
                    times[way].append(1000 * (time.perf_counter() - begin))
                    results.append(pair[0])
                if not torch.equal(*results):
                    raise SystemExit(f"{name}: the pieces differ")
            middle = [statistics.median(times[way]) for way in times]
            print(f"{name:30}{middle[0]:9.1f}{middle[1]:9.1f}", flush=True)
            rows.append({"format": name, "whole_ms": middle[0], "piece_ms": middle[1]})
    write_facts(args.json, size=size, rows=rows)


if __name__ == "__main__":
    main()
