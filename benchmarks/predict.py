"""Seconds that predicting a folder of originals takes, beside a plain loop over the same files.

    python benchmarks/predict.py --run RUN [--source FOLDER] [--json FILE]

The plain loop opens a file by PIL, resizes it to the training size, runs the net in eager float32
on one NCHW image, resizes the logits back bilinearly, takes the largest and saves it by PIL as
PNG, as one would write it. segpets does the same by `segpets.predict`, as the command
`segpets.predict` calls it: JPEGs decoded at a fraction of their size where that is enough, batches
in threads, channels_last, and the precision that the run was tested in. Both write a mask a file.

Models are loaded, and everything has run once, before the clock starts; the two take turns for
several rounds, on as many threads as PyTorch takes, and medians are printed. Then what all outputs
take (masks, overlays, cutouts), how far the masks of the two agree, and where the time goes.
Without --source, full-size JPEGs are made from the embedded images.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from facts import write_facts
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

import segpets
from segpets.inference import logits as enlarge
from segpets.inference.trained import Trained
from segpets.predict.batch import Wanted, predict_all, save
from segpets.predict.sources import PictureFile, find_sources

ROUNDS = 5
MADE = 181
PETS_MINI = Path(segpets.__file__).parent / "data" / "pets_mini" / "images"


def seen(trained: Trained, file: Path) -> tuple[torch.Tensor, tuple[int, int]]:
    """What the net sees of a file, and the file's height and width."""
    with trained.reader.opened([file]) as picture:
        return picture.fitted(), picture.size


def plain_loop(net: nn.Module, trained: Trained, sources: list[PictureFile], folder: Path) -> None:
    """What one writes in ten lines."""
    mean, std = trained.config["data"]["mean"], trained.config["data"]["std"]
    folder.mkdir(exist_ok=True)
    height, width = trained.size
    for source in sources:
        image = Image.open(source.path).convert("RGB")
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        tensor = F.to_dtype(F.pil_to_tensor(small), torch.float32, scale=True)
        with torch.no_grad():
            logits = net(F.normalize(tensor, mean, std)[None])
        size = (image.height, image.width)
        ids = interpolate(logits, size=size, mode="bilinear")[0].argmax(0)
        Image.fromarray(ids.byte().numpy()).save(folder / f"{source.name}.png")


def by_segpets(trained: Trained, sources: list[PictureFile], folder: Path, *outputs: str) -> None:
    wanted = Wanted(
        folder=folder,
        outputs=outputs,
        classes=trained.classes,
        foreground=[name != "background" for name in trained.classes],
        overwrite=True,
    )
    failed = [outcome for outcome in predict_all(trained, sources, wanted) if outcome.error]
    if failed:
        raise SystemExit(f"{len(failed)} files can't be predicted: {failed[0].error}")


def parts(trained: Trained, sources: list[PictureFile], folder: Path) -> dict[str, float]:
    """Milliseconds a picture of each step, one after another, each on one thread."""
    took = dict.fromkeys(("decode and shrink", "net", "enlarge and argmax", "encode"), 0.0)

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        since = time.perf_counter()
        yield
        took[step] += (time.perf_counter() - since) * 1000 / len(sources)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for first in range(0, len(sources), 8):
        some = sources[first : first + 8]
        with timed("decode and shrink"):
            read = [seen(trained, source.path) for source in some]
        with timed("net"):
            logits = trained.logits(torch.stack([image for image, _ in read]))
        for one, (_, size), source in zip(logits, read, some, strict=True):
            with timed("enlarge and argmax"):
                ids = enlarge.class_ids(one, size)
            with timed("encode"):
                save(Image.fromarray(ids.numpy()), folder / f"{source.name}.png")
    torch.set_num_threads(before)
    return took


def agreement(first: Path, second: Path) -> float:
    """The part of all pixels that two folders of masks agree on."""
    same = total = 0
    for file in sorted(first.glob("*.png")):
        a, b = (np.asarray(Image.open(folder / file.name)) for folder in (first, second))
        same, total = same + int((a == b).sum()), total + a.size
    return same / total


def made(folder: Path) -> Path:
    """Full-size images from the embedded ones."""
    folder.mkdir()
    files = sorted(PETS_MINI.glob("*.jpg"))
    for file in files[:: max(len(files) // MADE, 1)][:MADE]:
        with Image.open(file) as image:
            image.resize((500, 375), Image.Resampling.BICUBIC).save(folder / file.name, quality=92)
    return folder


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", required=True, help="a finished run, or latest")
    parser.add_argument("--source", type=Path, help="a folder of originals")
    parser.add_argument("--precision", help="of segpets; without it the run's own")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    args = parser.parse_args()
    trained = segpets.load(args.run, device="cpu", precision=args.precision)
    eager = segpets.load(args.run, device="cpu", precision="32-true")
    net = eager.segmenter.net.to(memory_format=torch.contiguous_format)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = args.source or made(folder / "made")
        sources = find_sources([str(source)], output=folder)
        every = ("masks", "overlays", "cutouts")
        ways: dict[str, Callable[[list[PictureFile]], None]] = {
            "plain loop, masks": lambda s: plain_loop(net, eager, s, folder / "plain"),
            "segpets, masks": lambda s: by_segpets(trained, s, folder / "ours", "masks"),
            "segpets, masks, overlays and cutouts": lambda s: by_segpets(
                trained, s, folder / "all", *every
            ),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for way in ways.values():
            way(sources[:16])
        for _ in range(ROUNDS):
            for name, way in ways.items():
                since = time.perf_counter()
                way(sources)
                seconds[name].append(time.perf_counter() - since)
        same = agreement(folder / "plain", folder / "ours" / "masks")
        steps = parts(trained, sources, folder)
    medians = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    base = medians["plain loop, masks"]
    print(
        f"{len(sources)} pictures, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load "
        f"{os.getloadavg()[0]:.1f}, {trained.precision}; medians of {ROUNDS} rounds"
    )
    for name, median in medians.items():
        print(f"{name:40}{median:8.2f} s{base / median:8.1f} x")
    print(f"Masks agree on {same:.2%} of all pixels")
    listed = ", ".join(f"{step} {took:.1f}" for step, took in steps.items())
    print(f"segpets' steps, ms a picture on one thread: {listed}")
    write_facts(args.json, seconds=medians, rounds=seconds, agreement=same, steps_ms=steps)


if __name__ == "__main__":
    main()
