"""Steps a second of segpets' training loop against a bare PyTorch loop.

    python benchmarks/train_step.py [--models unet vit_tiny] [--batches 8 64]
                                    [--variants "" trainer.compile=true]
                                    [--json FILE [--resume]] [OVERRIDES ...]

Both train the same net, loss and optimizer, fused where it can be, at the same precision, in one
process, on one device: the GPU if there is one. The bare loop runs over batches that lie on the
device, decoded, augmented and normalised, and does nothing but forward, backward and step; on a GPU
the same is also replayed as one CUDA graph, the fastest loop that can be written by hand, unless it
can't be captured, which is printed. segpets' loop reads, augments, normalises, counts the training
metrics, logs, and shows progress. Each is timed over several rounds in turn, after a warm-up; the
medians are printed with their ratio. Images are taken several times where an epoch has too few.
With --resume, what FILE has of the same commit, versions and words isn't measured again.
"""

import argparse
import functools
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from facts import write_facts
from lightning.pytorch import Callback, seed_everything
from torch import nn

from segpets.build.instantiate import build
from segpets.build.objects import build_data, build_module, build_trainer
from segpets.compiled import Compiled
from segpets.config import compose
from segpets.hardware import device_name, float32_matmul
from segpets.optimizer import made_fused
from segpets.run.versions import versions

WARM_UP = 5
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def now() -> float:
    """The time when the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(Callback):
    """Takes the time between the end of the warm-up and the last step of each epoch."""

    def __init__(self, steps: int) -> None:
        self.steps, self.speeds = steps, list[float]()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, i: int
    ) -> None:
        if i + 1 == WARM_UP:
            self.since = now()
        elif i + 1 == WARM_UP + self.steps:
            self.speeds.append(self.steps / (now() - self.since))


class Alternate(Callback):
    """Runs the bare loops between epochs, so that all see the same machine."""

    def __init__(self, loops: dict[str, Callable[[], float]]) -> None:
        self.loops, self.speeds = loops, {name: list[float]() for name in loops}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        for name, loop in self.loops.items():
            self.speeds[name].append(loop())


def parts(cfg: Any, device: torch.device) -> tuple[nn.Module, nn.Module, Any, Any]:
    """Makes net, loss, optimizer and what casts automatically, as segpets does."""
    module = build_module(cfg, build(cfg.model, "model")).to(device)
    optimizer = made_fused(module.make_optimizer, module.net.parameters())
    precision = str(cfg.trainer.precision)
    kind = torch.bfloat16 if "bf16" in precision else torch.float16
    autocast = functools.partial(torch.autocast, device.type, kind, enabled="mixed" in precision)
    return module.net.train(), module.loss, optimizer, autocast


def bare_loop(cfg: Any, batches: Batches, device: torch.device, steps: int) -> float:
    """Runs forward, backward and step over batches in memory; gives steps a second."""
    net, loss_of, optimizer, autocast = parts(cfg, device)
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            since = now()
        image, mask = batches[step % len(batches)]
        optimizer.zero_grad()
        with autocast():
            loss = loss_of(net(image), mask)
        loss.backward()
        optimizer.step()
    return steps / (now() - since)


def graph_loop(cfg: Any, batches: Batches, device: torch.device, steps: int) -> float:
    """Replays forward, backward and step as one CUDA graph; gives steps a second.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html, whole-network capture.
    """
    net, loss_of, optimizer, autocast = parts(cfg, device)
    image, mask = (one.clone() for one in batches[0])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            loss = loss_of(net(image), mask)
        loss.backward()
        optimizer.step()

    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # loaders pin in theirs
        step()
    for _ in range(WARM_UP):
        graph.replay()
    since = now()
    for at in range(steps):
        image.copy_(batches[at % len(batches)][0])
        mask.copy_(batches[at % len(batches)][1])
        graph.replay()
    return steps / (now() - since)


def measure(words: list[str], *, rounds: int, steps: int) -> dict[str, Any]:
    """Measures steps a second of segpets and of the bare loops, in turns, and says on what."""
    with float32_matmul(compose(words).trainer.float32_matmul):
        return _measure(words, rounds=rounds, steps=steps)


def _measure(words: list[str], *, rounds: int, steps: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"hydra.run.dir={folder}", "test=false", f"trainer.max_epochs={rounds}"]
        fixed += [f"trainer.limit_train_batches={WARM_UP + steps}", "trainer.limit_val_batches=0"]
        cfg = compose([*fixed, *words])
        seed_everything(cfg.seed, verbose=False)
        datamodule = build_data(cfg)
        datamodule.setup()
        train = datamodule.splits.train
        times = -(-(WARM_UP + steps) * int(cfg.data.batch_size) // len(train))
        object.__setattr__(datamodule.splits, "train", [*train] * times)
        datamodule._rows["train"] = np.tile(datamodule._rows["train"], times)
        module = build_module(cfg, build(cfg.model, "model"))
        clock = Clock(steps)
        trainer = build_trainer(cfg, extra_callbacks=[clock])
        device = trainer.strategy.root_device
        batches = [
            (module.preprocess(batch["image"]).to(device), batch["mask"].long().to(device))
            for batch, _ in zip(datamodule.train_dataloader(), range(steps), strict=False)
        ]
        loops = {"bare": lambda: bare_loop(cfg, batches, device, steps)}
        if device.type == "cuda":
            try:
                graph_loop(cfg, batches, device, 1)
                loops["cuda_graph"] = lambda: graph_loop(cfg, batches, device, steps)
            except RuntimeError as error:
                print(f"no CUDA graph of {' '.join(words)}: {error}")
        alternate = Alternate(loops)
        trainer.callbacks.append(alternate)  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=datamodule)
    every = {"segpets": clock.speeds, **alternate.speeds}
    found: dict[str, Any] = {name: statistics.median(speeds) for name, speeds in every.items()}
    if isinstance(module._step, Compiled):
        found["compiled"] = module._step.works
    return found | {"device": device_name(device)}


def measured(file: Path, **regime: Any) -> list[dict[str, Any]]:
    """Reads the rows of a call that the time ended, of the same regime, commit and versions."""
    if not file.exists():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    alike = found.get("versions") == versions() and regime.items() <= found.items()
    return list(found["rows"]) if alike else []


def main() -> None:
    """Prints a table, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["unet", "segnet_dsc", "vit_tiny"])
    parser.add_argument("--batches", nargs="+", type=int, default=[8])
    parser.add_argument("--variants", nargs="+", default=[""], help="overrides, in one word each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--json", type=Path, help="a file to write")
    parser.add_argument("--resume", action="store_true", help="keep the rows that it has")
    args, overrides = parser.parse_known_args()
    for name in ("lightning.pytorch", "segpets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(f"Steps a second, medians of {args.rounds} rounds of {args.steps} steps, {overrides}")
    regime = {"rounds": args.rounds, "steps": args.steps, "overrides": overrides}
    rows = measured(args.json, **regime) if args.resume else []
    for model in args.models:
        for batch in args.batches:
            for variant in args.variants:
                one = {"model": model, "batch": batch, "variant": variant}
                if any(one.items() <= row.items() for row in rows):
                    print(f"{model:<11} {batch:>4}  {variant:<24} measured before")
                    continue
                words = [f"model={model}", f"data.batch_size={batch}", *variant.split()]
                found = measure([*words, *overrides], rounds=args.rounds, steps=args.steps)
                rows.append(one | found)
                speeds = {name: one for name, one in found.items() if isinstance(one, float)}
                rest = ", ".join(f"{name} {speed:.2f}" for name, speed in speeds.items())
                ratio = speeds["segpets"] / speeds["bare"]
                as_it_is = "" if found.get("compiled", True) else ", NOT COMPILED: it couldn't be"
                place = f"{found['device']}{as_it_is}"
                print(f"{model:<11} {batch:>4}  {variant:<24} {rest}; {ratio:.3f} of bare; {place}")
                # At once, as time may end what follows.
                write_facts(args.json, rows=rows, **regime)


if __name__ == "__main__":
    main()
