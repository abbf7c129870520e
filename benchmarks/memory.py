"""Memory while a data set is listed, cached and read for an epoch, by the number of its images.

    python benchmarks/memory.py [--counts 1000 10000 100000] [--json FILE]
    python benchmarks/memory.py --train [--counts 1000 4000 16000] [--json FILE]

Sets of small JPEGs and PNG masks in two folders are generated and deleted again. For each count,
one process lists the set, builds its cache of 64x64 pixels, and reads a shuffled epoch with
`augment=torchvision`, all through the DataModule. What is printed is the largest resident memory
of the process, in MB, and how much of it came after the imports. With `--train`, it trains a small
U-Net instead; an epoch is its third, with validation and checkpoints.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE, VARIANTS = 64, 64


def made(root: Path, count: int) -> None:
    """Writes pairs of 32x32: ramps with noise, and a disc as the second class."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(VARIANTS):
        y, x = np.mgrid[:32, :32]
        rgb = 80 + 2 * x[..., None] + 2 * y[..., None] + rng.integers(0, 40, (32, 32, 3))
        disc = np.hypot(x - rng.integers(8, 24), y - rng.integers(8, 24)) < 8
        image, mask = io.BytesIO(), io.BytesIO()
        Image.fromarray(rgb.astype(np.uint8)).save(image, "JPEG", quality=90)
        Image.fromarray(disc.astype(np.uint8)).save(mask, "PNG")
        files.append((image.getvalue(), mask.getvalue()))
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for row in range(count):
        image_bytes, mask_bytes = files[row % VARIANTS]
        (root / "images" / f"photo_{row:06}.jpg").write_bytes(image_bytes)
        (root / "masks" / f"photo_{row:06}.png").write_bytes(mask_bytes)


def resident() -> tuple[float, float]:
    """Resident memory of this process now, and the most since the last call, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    words = dict(line.split(":", 1) for line in lines)
    now, most = (int(words[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    return now, most


def measure(root: Path) -> dict[str, float]:
    """Memory and seconds of each step, in this process."""
    from segpets.build.instantiate import build
    from segpets.config import compose
    from segpets.data import Folder, SegmentationDataModule

    # A little set first, so that what any reading imports and allocates counts as the baseline.
    cfg = compose(["augment=torchvision", f"data.size={SIZE}", f"hydra.run.dir={root}"])
    augment = build(cfg.augment, "augment")
    found: dict[str, float] = {}
    for step, folder in (("warm_up", root.parent / "little"), ("all", root)):
        source = Folder(root=folder, classes=["background", "disc"])
        found["before"], _ = resident()
        since = time.perf_counter()
        splits = source.splits()
        found["list_seconds"] = time.perf_counter() - since
        kept, found["list"] = resident()
        found["list_kept"] = kept - found["before"]
        images = sum(map(len, (splits.train, splits.val, splits.test)))
        del splits
        datamodule = SegmentationDataModule(
            source=source,
            augment=augment,
            size=SIZE,
            batch_size=8,
            num_workers=0,
            run_seed=1,
            cache="disk",
        )
        since = time.perf_counter()
        datamodule.setup()
        found["build_seconds"] = time.perf_counter() - since
        _, found["build"] = resident()
        since = time.perf_counter()
        for _ in datamodule.train_dataloader():
            pass
        found["epoch_seconds"] = time.perf_counter() - since
        _, found["epoch"] = resident()
        if step == "warm_up":
            del datamodule
    found["peak"] = max(found[key] for key in ("list", "build", "epoch"))
    found["more"] = found["peak"] - found["before"]
    return {"images": images, **found}


def measure_training(root: Path) -> dict[str, float]:
    """Peak memory, and seconds of an epoch, of a training in this process."""
    from lightning.pytorch import Callback

    from segpets.config import compose
    from segpets.train import train

    class Clock(Callback):
        """Takes the time when each epoch begins."""

        def __init__(self) -> None:
            self.began: list[float] = []

        def on_train_epoch_start(self, *args: Any) -> None:
            self.began.append(time.perf_counter())

    data = ["data=folder", f"data.root={root}", "data.classes=[background,disc]"]
    net = ["model.widths=[8,16]", "trainer=cpu", "trainer.max_epochs=4", "test=false"]
    clock = Clock()
    folder = root.parent / "run"
    cfg = compose([*data, f"data.size={SIZE}", *net, f"hydra.run.dir={folder}"])
    images = len(train(cfg, callbacks=[clock]).datamodule.splits.train)
    _, peak = resident()
    return {"images": images, "epoch_seconds": clock.began[3] - clock.began[2], "peak": peak}


def measured(count: int, how: str) -> dict[str, float]:
    """The same of a set of that many images, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder) / "little", 64)
        made(Path(folder) / "set", count)
        command = [sys.executable, __file__, how, str(Path(folder) / "set")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--train", action="store_true", help="train, and take the time of an epoch")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure-training", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure or args.measure_training:
        root = args.measure or args.measure_training
        print(json.dumps((measure if args.measure else measure_training)(root)))
        return
    rows = trainings(args.counts) if args.train else readings(args.counts)
    print(f"peak of the last against the first: {rows[-1]['peak'] / rows[0]['peak'] - 1:+.1%}")
    from facts import write_facts  # here, as its imports take memory

    write_facts(args.json, rows=rows)


def trainings(counts: Sequence[int] | None) -> list[dict[str, float]]:
    """Prints a line for a training of each number of images."""
    rows: list[dict[str, float]] = []
    print("training images   peak MB   s an epoch   ms an image")
    for count in counts or (1_000, 4_000, 16_000):
        rows.append(row := measured(count, "--measure-training"))
        a_thousand = 1000 * row["epoch_seconds"] / row["images"]
        print(
            f"{row['images']:15}{row['peak']:10.1f}{row['epoch_seconds']:13.2f}{a_thousand:14.3f}",
            flush=True,
        )
    return rows


def readings(counts: Sequence[int] | None) -> list[dict[str, float]]:
    """Prints a line for the reading of each number of images."""
    rows: list[dict[str, float]] = []
    print("  images   peak MB   of it after imports: listing  kept  building  epoch   list s")
    for count in counts or (1_000, 10_000, 100_000):
        rows.append(row := measured(count, "--measure"))
        steps = [row[step] - row["before"] for step in ("list", "build", "epoch")]
        print(
            f"{row['images']:8}{row['peak']:10.1f}{steps[0]:29.1f}{row['list_kept']:6.1f}"
            f"{steps[1]:10.1f}{steps[2]:7.1f}{row['list_seconds']:9.2f}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
