"""Images a second on the way from full-size files to augmented 128x128 pairs, one process each.

    python benchmarks/data.py [--root FOLDER] [--json FILE]

FOLDER has the official layout of the Oxford-IIIT Pet data set; without it, full-size JPEGs are made
from the embedded images. Every way reads the same images, with a flip for half of them and a
contrast of 0.7 to 1.3, and gives batches of 8, without worker processes, on as many threads as
PyTorch takes (OMP_NUM_THREADS=1 measures one, as a worker has). They take turns for several rounds;
medians are printed. Where other programs keep the cores busy, PyTorch's threads wait for each
other, and full-size tensors suffer from it the most: look at the load that is printed.

Then the time of building a cache, and how far JPEG drafts are from decoding whole files.
"""

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from facts import write_facts
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

import segpets
from segpets.build.instantiate import build
from segpets.config import compose
from segpets.data import OxfordPets, SegmentationDataModule, reader
from segpets.data.batches import EpochSampler, collate

SIZE, BATCH = 128, 8
ROUNDS, SECONDS = 7, 1.0
MADE = 200
PETS_MINI = Path(segpets.__file__).parent / "data" / "pets_mini"

Epochs = Callable[[int], Iterator[int]]
Cache = Literal["none", "disk"]
"""Reads the epoch of a number; yields how many images each batch has."""


class ArticlePets(Dataset[Any]):
    """The article's way: image and trimap become tensors at full size, and are resized as such."""

    def __init__(self, pets: Dataset[Any], steps: list[Callable[..., Any]]) -> None:
        self.pets, self.steps = pets, steps

    def __len__(self) -> int:
        return len(self.pets)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, trimap = self.pets[index]
        pair = (
            tv_tensors.Image(F.to_dtype(F.pil_to_tensor(image), torch.float32, scale=True)),
            tv_tensors.Mask(F.pil_to_tensor(trimap)),
        )
        for step in self.steps:
            pair = step(*pair)
        return F.to_dtype(pair[0], torch.uint8, scale=True), pair[1] - 1


def official(root: Path, folder: Path, **transforms: Any) -> Dataset[Any]:
    """Torchvision's data set, which wants its files in a folder of a certain name."""
    folder.mkdir(exist_ok=True)
    link = folder / "oxford-iiit-pet"
    if not link.exists():
        link.symlink_to(root.resolve(), target_is_directory=True)
    pets: Dataset[Any] = datasets.OxfordIIITPet(
        folder, split="trainval", target_types="segmentation", **transforms
    )
    return pets


def loaded(dataset: Dataset[Any]) -> Epochs:
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
    return lambda epoch: (len(image) for image, _ in loader)


def article(root: Path, folder: Path, *, resize_first: bool = False) -> Epochs:
    steps: list[Callable[..., Any]] = [
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(contrast=0.3),
    ]
    steps.insert(0 if resize_first else 2, v2.Resize((SIZE, SIZE)))  # of the mask: nearest
    return loaded(ArticlePets(official(root, folder), steps))


def torchvision(root: Path, folder: Path) -> Epochs:
    steps = v2.Compose(
        [
            v2.Resize((SIZE, SIZE)),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(contrast=0.3),
            v2.PILToTensor(),
        ]
    )
    wrapped = datasets.wrap_dataset_for_transforms_v2(official(root, folder, transforms=steps))
    return loaded(wrapped)


def by_segpets(root: Path, folder: Path, *, cache: Cache, augment: str) -> Epochs:
    only_contrast = {"article": [], "albumentations": ["brightness=0", "saturation=0"]}[augment]
    words = [f"augment.transforms.1.{word}" for word in only_contrast]
    cfg = compose([f"augment={augment}", *words, f"hydra.run.dir={folder}"])
    datamodule = SegmentationDataModule(
        source=OxfordPets(root=root, split="article"),
        augment=build(cfg.augment, "augment"),
        size=SIZE,
        batch_size=BATCH,
        num_workers=0,
        run_seed=1,
        cache=cache,
        cache_dir=folder / "cache",
    )
    datamodule.setup()
    dataset = datamodule.dataset("train")
    sampler = EpochSampler(length=len(dataset), seed=1, shuffle=True)
    loader = DataLoader(dataset, sampler=sampler, batch_size=BATCH, collate_fn=collate)

    def epoch_of(epoch: int) -> Iterator[int]:
        sampler.set_epoch(epoch)
        return (len(batch["name"]) for batch in loader)

    return epoch_of


WAYS: dict[str, Callable[[Path, Path], Epochs]] = {
    "article: full-size tensors, flip, jitter, resize": article,
    "article, but resized before flip and jitter": lambda r, f: article(r, f, resize_first=True),
    "torchvision.datasets.OxfordIIITPet, v2 on PIL": torchvision,
}
_caches: tuple[Cache, ...] = ("none", "disk")
for _cache in _caches:
    for _augment in ("article", "albumentations"):
        _way = partial(by_segpets, cache=_cache, augment=_augment)
        WAYS[f"segpets, data.cache={_cache}, augment={_augment}"] = _way


def serve(way: str, root: Path, folder: Path) -> None:
    """Runs a round for each line that comes in, and answers with images a second."""
    epochs = WAYS[way](root, folder)
    for _ in epochs(0):  # whatever is made once
        pass
    print("ready", flush=True)
    epoch = 0
    for _ in sys.stdin:
        images, since = 0, time.perf_counter()
        while (took := time.perf_counter() - since) < SECONDS:
            epoch += 1
            images += sum(epochs(epoch))
        print(images / took, flush=True)


def measured(root: Path, folder: Path) -> dict[str, list[float]]:
    """Images a second of each way in each round."""
    processes: dict[str, subprocess.Popen[str]] = {}
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}

    def answer(way: str) -> str:
        stdout = processes[way].stdout
        assert stdout is not None
        line = stdout.readline().strip()
        if not line:
            raise SystemExit(f"{way}: its process ended early")
        return line

    try:
        for way in WAYS:
            command = [sys.executable, __file__, "--root", str(root), "--serve", way, str(folder)]
            processes[way] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            answer(way)
        for _ in range(ROUNDS):
            for way, process in processes.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                speeds[way].append(float(answer(way)))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return speeds


def seen(file: Path) -> np.ndarray:
    """What a net sees of a file."""
    with reader.Reader((SIZE, SIZE)).opened([file]) as picture:
        return picture.fitted().numpy()


def drafts(root: Path) -> dict[str, float]:
    """How far draft decoding is from decoding whole: in steps of 255, over the drafted images."""
    means, most, wide = [], 0, 0
    draft: int = vars(reader)["DRAFT"]
    for file in sorted((root / "images").glob("*.jpg")):
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            whole = image.size
            image.draft(None, (draft * SIZE, draft * SIZE))
            if image.size == whole:
                continue
        drafted = seen(file)
        try:
            vars(reader)["DRAFT"] = 10**6  # never small enough
            exact = seen(file)
        finally:
            vars(reader)["DRAFT"] = draft
        off = np.abs(drafted.astype(int) - exact.astype(int))
        means.append(off.mean())
        most = max(most, int(off.max()))
        wide += int((off > 8).sum()) / off.size
    return {
        "images": len(means),
        "mean": float(np.mean(means)) if means else 0.0,
        "max": most,
        "part_above_8": wide / max(len(means), 1),
    }


def building(root: Path, folder: Path) -> dict[str, float]:
    """Seconds that building a cache of the whole folder takes, and opening it again."""
    found = {}
    for what in ("build", "open"):
        since = time.perf_counter()
        datamodule = SegmentationDataModule(
            source=OxfordPets(root=root),
            augment=lambda image, mask, seed: (image, mask),
            size=SIZE,
            batch_size=BATCH,
            num_workers=0,
            run_seed=1,
            cache="disk",
            cache_dir=folder / "built",
        )
        datamodule.setup()
        found[what] = time.perf_counter() - since
    return {"images": len(datamodule.pixels), **found}


def made(root: Path) -> Path:
    """Full-size images from the embedded ones, in the official layout."""
    lines = (PETS_MINI / "annotations" / "trainval.txt").read_text().splitlines()
    chosen = lines[:: max(len(lines) // MADE, 1)][:MADE]
    for folder in ("images", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    # A tenth as test, since a data set needs one.
    parts = {"trainval": chosen[MADE // 10 :], "test": chosen[: MADE // 10]}
    for part, listed in parts.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(listed) + "\n")
        for name in (line.split()[0] for line in listed):
            for place, suffix, how in (
                ("images", "jpg", Image.Resampling.BICUBIC),
                ("annotations/trimaps", "png", Image.Resampling.NEAREST),
            ):
                file = f"{place}/{name}.{suffix}"
                with Image.open(PETS_MINI / file) as image:
                    image.resize((500, 375), how).save(root / file, quality=92)
    return root


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, help="originals in the official layout")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], args.root, Path(args.serve[1]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        root = args.root or made(folder / "made")
        if not args.root:
            print(f"No --root: {MADE} embedded images, enlarged to 500x375, serve as originals")
        speeds = measured(root, folder)
        built, off = building(root, folder), drafts(root)
    medians = {way: statistics.median(rounds) for way, rounds in speeds.items()}
    base = medians[next(iter(WAYS))]
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load "
        f"{os.getloadavg()[0]:.1f}; images a second, medians of {ROUNDS} rounds of {SECONDS:g} s"
    )
    for way, speed in medians.items():
        print(f"{way:52}{speed:9.1f}{speed / base:8.1f} x")
    print(
        f"A cache of {built['images']} images is built in {built['build']:.1f} s and opened in "
        f"{built['open']:.2f} s"
    )
    print(
        f"Drafts against whole decoding, {off['images']} JPEGs: mean {off['mean']:.2f}, max "
        f"{off['max']} of 255; {off['part_above_8']:.2%} of the values are off by more than 8"
    )
    write_facts(args.json, images_per_second=medians, rounds=speeds, cache=built, drafts=off)


if __name__ == "__main__":
    main()
