"""Whole epochs, with validation, of segpets and of what one would write or take instead.

    python benchmarks/epochs.py [--peers article smp torchvision bare] [--models segnet unet]
                                [--root FOLDER] [--images 360] [--rounds 3] [--json FILE]

Both sides train the same net with the same loss and optimizer on the same images for the same
number of epochs. They take turns, each in a process of its own, on all threads that PyTorch takes:
an epoch to warm up, then two that are timed. The medians of all rounds are printed with their
ratio, and the peak of the resident memory of either side. All of it runs on the CPU.

- `article`: the recipe of "Efficient Image Segmentation Using PyTorch", written anew from its
  description: plain Lightning, each picture opened, made a float tensor, resized and jittered at
  each access, float32, channels first, torchmetrics at each step.
- `smp`: segmentation_models_pytorch's U-Net with a ResNet-18 and plain Lightning, as its example
  for this data set does it: pictures by PIL and NumPy, float32, its statistics at each step.
- `torchvision`: torchvision's OxfordIIITPet with v2 transforms and a loop in the style of its
  training references: float32, a confusion matrix, a schedule by the step.
- `bare`: forward, backward and step over batches that lie in memory, decoded, augmented and
  normalised, at segpets' own precision and memory format, with the same fused optimizer; forward
  alone over those of validation.
  Nothing else is done: it is the limit.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from facts import write_facts
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from segpets.build.instantiate import build
from segpets.build.objects import build_data, build_module, build_trainer
from segpets.config import compose
from segpets.data import SegmentationDataModule
from segpets.hardware import device_name, forget_peak_memory, peak_memory_mb
from segpets.optimizer import made_fused

SIZE: Final = 128
MINI: Final = Path(__file__).resolve().parents[1] / "segpets" / "data" / "pets_mini"
TIMED: Final = 2
MODELS: Final = {
    "article": ("segnet", "segnet_dsc", "vit"),
    "smp": ("smp",),
    "torchvision": ("unet",),
    "bare": ("unet", "segnet_dsc", "vit_tiny"),
}
"""The nets that each peer is compared with, unless others are named."""


class Done(Exception):
    """Enough epochs are timed."""


class Clock(Callback):
    """Takes the time from the start of each epoch to that of the next; the first is a warm-up."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.starts.append(time.perf_counter())
        if len(self.starts) == TIMED + 2:
            raise Done

    @property
    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self.starts[1:], self.starts[2:], strict=False)]


class Task:
    """The net and the images of a comparison.

    Args:
        model: The name of the net.
        root: The data set.
        images: How many images to train on; a ninth of them is for validation.
        folder: Where runs are written.
    """

    def __init__(self, model: str, root: Path, images: int, folder: Path) -> None:
        self.root = root
        words = [f"model={model}", "data=oxford_pets", f"data.root={root}", f"data.size={SIZE}"]
        words += [f"data.cache_dir={folder / 'cache'}", f"hydra.run.dir={folder / 'run'}"]
        words += [f"trainer.max_epochs={TIMED + 2}", "loss=cross_entropy", "scheduler=none"]
        words += ["trainer=cpu"]  # as the peers are
        self.cfg = compose([*words, "optimizer=adam", "optimizer.lr=1e-4"])
        self.data = self._few(images)
        self.batch = int(self.cfg.data.batch_size)
        seed_everything(1, verbose=False)

    def _few(self, images: int) -> SegmentationDataModule:
        data = build_data(self.cfg)
        data.setup()
        splits = data.splits
        object.__setattr__(splits, "train", splits.train[:images])
        object.__setattr__(splits, "val", splits.val[: images // 9])
        return data

    def names(self, stage: str) -> list[str]:
        """The names of a stage's images."""
        return [sample.name for sample in getattr(self.data.splits, stage)]

    def net(self) -> nn.Module:
        """A new net."""
        net: nn.Module = build(self.cfg.model, "model")
        return net

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """What all sides train with."""
        return torch.optim.Adam(net.parameters(), lr=1e-4)

    def loaders(self, make: Callable[[str], Dataset[Any]]) -> list[DataLoader[Any]]:
        """A loader of training, shuffled and without a last part, and one of validation."""
        return [
            DataLoader(make("train"), batch_size=self.batch, shuffle=True, drop_last=True),
            DataLoader(make("val"), batch_size=self.batch),
        ]


def segpets(task: Task) -> list[float]:
    """The product as it is by default."""
    clock = Clock()
    module = build_module(task.cfg, task.net())
    trainer = build_trainer(task.cfg, extra_callbacks=[clock])
    _fit(trainer, module, datamodule=task.data)
    return clock.seconds


def _fit(trainer: Trainer, module: LightningModule, **data: Any) -> None:
    try:
        trainer.fit(module, **data)
    except Done:
        pass


def _plain_lightning(module: LightningModule, loaders: list[DataLoader[Any]]) -> list[float]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=TIMED + 2,
            callbacks=[clock],
            log_every_n_steps=1,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        _fit(trainer, module, **{"train_dataloaders": loaders[0], "val_dataloaders": loaders[1]})
    return clock.seconds


class ArticleData(Dataset[Any]):
    """Opens, resizes and jitters float tensors at each access."""

    def __init__(self, task: Task, stage: str) -> None:
        from torchvision.transforms import v2

        self.root, self.names = task.root, task.names(stage)
        self.resize = v2.Resize((SIZE, SIZE), v2.InterpolationMode.NEAREST)
        self.flip = v2.functional.horizontal_flip
        self.jitter = v2.ColorJitter(contrast=0.3)
        self.tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self.names[index]
        image = Image.open(self.root / "images" / f"{name}.jpg").convert("RGB")
        trimap = Image.open(self.root / "annotations" / "trimaps" / f"{name}.png")
        pixels, target = self.tensor(image), torch.from_numpy(np.array(trimap)).long()[None]
        pixels, target = self.resize(pixels), self.resize(target)
        if torch.rand(()) < 0.5:
            pixels, target = self.flip(pixels), self.flip(target)
        return self.jitter(pixels), target[0] - 1


class ArticleModule(LightningModule):
    """Net, loss, and metrics of torchmetrics at each step."""

    def __init__(self, task: Task) -> None:
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        super().__init__()
        self.task, self.net, self.loss = task, task.net(), nn.CrossEntropyLoss()
        self.accuracy = MulticlassAccuracy(3, average="micro")
        self.iou = MulticlassJaccardIndex(3, average="micro", ignore_index=1)

    def _step(self, batch: Any, stage: str) -> Tensor:
        image, target = batch
        logits = self.net(image)
        loss: Tensor = self.loss(logits, target)
        preds = logits.softmax(1).argmax(1)
        named = {"loss": loss, "acc": self.accuracy(preds, target), "iou": self.iou(preds, target)}
        self.log_dict({f"{stage}/{k}": v for k, v in named.items()}, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        return self.task.optimizer(self.net)


def article(task: Task) -> list[float]:
    """The article's recipe."""
    return _plain_lightning(
        ArticleModule(task), task.loaders(lambda stage: ArticleData(task, stage))
    )


class SmpData(Dataset[Any]):
    """Pictures by PIL and NumPy, as smp's SimpleOxfordPetDataset reads them; here of 3 classes."""

    def __init__(self, task: Task, stage: str) -> None:
        self.root, self.names = task.root, task.names(stage)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        image = np.array(Image.open(self.root / "images" / f"{name}.jpg").convert("RGB"))
        mask = np.array(Image.open(self.root / "annotations" / "trimaps" / f"{name}.png")) - 1
        image = np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        mask = np.array(Image.fromarray(mask).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        return {"image": np.moveaxis(image, -1, 0), "mask": mask.astype(np.int64)}


class SmpModule(LightningModule):
    """As smp's example: Dice, and counts of true and false positives at each step."""

    def __init__(self, task: Task) -> None:
        import segmentation_models_pytorch as smp

        super().__init__()
        self.task, self.smp = task, smp
        self.model = smp.Unet("resnet18", encoder_weights=None, classes=3)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.loss = nn.CrossEntropyLoss()
        self.counts: list[Any] = []

    def _step(self, batch: Any, stage: str) -> Tensor:
        image = (batch["image"].float() / 255 - self.mean) / self.std
        logits = self.model(image)
        loss: Tensor = self.loss(logits, batch["mask"])
        preds = logits.softmax(1).argmax(1)
        self.counts.append(
            self.smp.metrics.get_stats(preds, batch["mask"], mode="multiclass", num_classes=3)
        )
        self.log(f"{stage}_loss", loss, prog_bar=True)
        return loss

    def _end(self, stage: str) -> None:
        counts = [torch.cat(one) for one in zip(*self.counts, strict=True)]
        for reduction in ("micro", "micro-imagewise"):
            iou = self.smp.metrics.iou_score(*counts, reduction=reduction)
            self.log(f"{stage}_{reduction}_iou", iou, prog_bar=True)
        self.counts.clear()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def on_validation_epoch_start(self) -> None:
        self.counts.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._step(batch, "valid")

    def on_validation_epoch_end(self) -> None:
        self._end("valid")

    def configure_optimizers(self) -> Any:
        return self.task.optimizer(self.model)


def smp(task: Task) -> list[float]:
    """segmentation_models_pytorch with plain Lightning."""
    return _plain_lightning(SmpModule(task), task.loaders(lambda stage: SmpData(task, stage)))


def torchvision(task: Task) -> list[float]:
    """Torchvision's data set, transforms and style of loop."""
    from torchvision import tv_tensors
    from torchvision.datasets import OxfordIIITPet, wrap_dataset_for_transforms_v2
    from torchvision.transforms import v2

    common = [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
    common += [v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), v2.ToPureTensor()]
    resize = [v2.ToImage(), v2.Resize((SIZE, SIZE))]
    augment = [v2.RandomHorizontalFlip(), v2.ColorJitter(contrast=0.3)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "oxford-iiit-pet").symlink_to(task.root.absolute())

        def make(stage: str) -> Dataset[Any]:
            steps = [*resize, *(augment if stage == "train" else []), *common]
            whole = OxfordIIITPet(folder, target_types="segmentation", transforms=v2.Compose(steps))
            at = {path.stem: index for index, path in enumerate(whole._images)}
            dataset = wrap_dataset_for_transforms_v2(whole)
            return Subset(dataset, [at[name] for name in task.names(stage)])

        train, val = task.loaders(make)
        net, loss_of = task.net(), nn.CrossEntropyLoss()
        optimizer = task.optimizer(net)
        schedule = torch.optim.lr_scheduler.PolynomialLR(
            optimizer, total_iters=len(train) * (TIMED + 2), power=0.9
        )
        return _timed(lambda: _reference_epoch(net, loss_of, optimizer, schedule, train, val))


def _mask(target: Any) -> Tensor:
    mask = target["mask"] if isinstance(target, dict) else target
    return mask.view(len(mask), SIZE, SIZE).long() - 1  # type: ignore[no-any-return]


def _reference_epoch(
    net: nn.Module, loss_of: nn.Module, optimizer: Any, schedule: Any, train: Any, val: Any
) -> None:
    net.train()
    for image, target in train:
        loss = loss_of(net(image), _mask(target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        loss.item()  # the references' meters read it
    net.eval()
    matrix = torch.zeros(3, 3, dtype=torch.int64)
    with torch.inference_mode():
        for image, target in val:
            found, truth = net(image).argmax(1).flatten(), _mask(target).flatten()
            matrix += torch.bincount(3 * truth + found, minlength=9).view(3, 3)


def bare(task: Task) -> list[float]:
    """Nothing but forward, backward and step over tensors in memory."""
    module = build_module(task.cfg, task.net())
    batches = {
        stage: [(module.preprocess(b["image"]), b["mask"].long()) for b in loader]
        for stage, loader in (
            ("train", task.data.train_dataloader()),
            ("val", task.data.val_dataloader()),
        )
    }
    net, loss_of = module.net, module.loss
    optimizer = made_fused(module.make_optimizer, module.parameters())
    bf16 = "bf16" in str(task.cfg.trainer.precision)

    def epoch() -> None:
        net.train()
        for image, mask in batches["train"]:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = loss_of(net(image), mask)
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            for image, mask in batches["val"]:
                loss_of(net(image), mask)

    return _timed(epoch)


def _timed(epoch: Callable[[], None]) -> list[float]:
    epoch()
    seconds = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - begun)
    return seconds


SIDES: Final = {"segpets": segpets, "article": article, "smp": smp, "torchvision": torchvision}
SIDES["bare"] = bare


def one_side(args: argparse.Namespace) -> None:
    """Runs one side of a comparison in this process, and prints what was measured as JSON."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        task = Task(args.models[0], args.root, args.images, Path(folder))
        task.data.train_dataloader()
        forget_peak_memory(torch.device("cpu"))
        seconds = SIDES[args.side](task)
    measured = {"seconds": seconds, "peak_mb": peak_memory_mb(torch.device("cpu"))}
    print(json.dumps(measured | {"device": device_name(torch.device("cpu"))}))


def measure(side: str, model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Runs one side in a process of its own."""
    words = ["--side", side, "--models", model, "--root", args.root, "--images", args.images]
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each peer and net."""
    for peer in args.peers:
        for model in MODELS[peer] if peer == "smp" else args.models or MODELS[peer]:
            rounds = [
                {side: measure(side, model, args) for side in ("segpets", peer)}
                for _ in range(args.rounds)
            ]
            row: dict[str, Any] = {"peer": peer, "model": model, "images": args.images}
            for name, side in (("segpets", "segpets"), ("peer", peer)):
                seconds = [s for one in rounds for s in one[side]["seconds"]]
                row[f"{name}_seconds"] = statistics.median(seconds)
                row[f"{name}_peak_mb"] = statistics.median(one[side]["peak_mb"] for one in rounds)
            row["device"] = rounds[0]["segpets"]["device"]
            row["times_as_fast"] = row["peer_seconds"] / row["segpets_seconds"]
            yield row


def main() -> None:
    """Prints a table, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--models", nargs="+", help="names of conf/model; smp has its own")
    parser.add_argument("--root", type=Path, default=MINI)
    parser.add_argument("--images", type=int, default=360, help="to train on in an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file to write")
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        one_side(args)
        return
    size = f"{args.images} images of {SIZE}x{SIZE}"
    device = device_name(torch.device("cpu"))
    print(f"epochs of {size} with validation, {device} of {os.cpu_count()} cores")
    print(f"{'peer':<12} {'net':<11} {'segpets':>9} {'peer':>9} {'ratio':>6}   peak memory, MB")
    rows = []
    for row in compared(args):
        rows.append(row)
        print(
            f"{row['peer']:<12} {row['model']:<11} {row['segpets_seconds']:>7.2f} s "
            f"{row['peer_seconds']:>7.2f} s {row['times_as_fast']:>6.2f}   "
            f"{row['segpets_peak_mb']:.0f}, {row['peer_peak_mb']:.0f}",
            flush=True,
        )
    write_facts(args.json, rows=rows, rounds=args.rounds, images=args.images, device=device)


if __name__ == "__main__":
    main()
