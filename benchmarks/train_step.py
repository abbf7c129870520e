"""Steps a second of segpets' training loop against a bare PyTorch loop.

    python benchmarks/train_step.py [OVERRIDES ...]

Both train the same net, loss and optimizer at the same precision, in one process, on one device.
The bare loop runs over batches that lie in memory, decoded, augmented and normalised, and does
nothing but forward, backward and step; segpets' loop reads, augments, normalises, counts the
training metrics, logs, and shows progress. Each is timed over several rounds in turn, after a
warm-up; the medians are printed with their ratio.
"""

import logging
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything

from segpets.build.instantiate import build
from segpets.build.objects import build_data, build_module, build_trainer
from segpets.config import compose

WARM_UP = 5
STEPS = 40
ROUNDS = 5


class Clock(Callback):
    """Takes the time between the end of the warm-up and the last step of each epoch."""

    def __init__(self) -> None:
        self.speeds: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, i: int
    ) -> None:
        if i + 1 == WARM_UP:
            self.since = time.perf_counter()
        elif i + 1 == WARM_UP + STEPS:
            self.speeds.append(STEPS / (time.perf_counter() - self.since))


def bare_loop(cfg: Any, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Runs forward, backward and step over batches in memory; gives steps a second."""
    module = build_module(cfg, build(cfg.model, "model"))
    net, loss_of = module.net.train(), module.loss
    optimizer = module.make_optimizer(net.parameters())
    bf16 = "bf16" in str(cfg.trainer.precision)
    for step in range(WARM_UP + STEPS):
        if step == WARM_UP:
            since = time.perf_counter()
        image, mask = batches[step % len(batches)]
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(net(image), mask)
        loss.backward()
        optimizer.step()
    return STEPS / (time.perf_counter() - since)


def main() -> None:
    """Prints both speeds and their ratio."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        fixed = [f"hydra.run.dir={folder}", "trainer.accelerator=cpu", "test=false"]
        fixed += [f"trainer.max_epochs={ROUNDS}", f"trainer.limit_train_batches={WARM_UP + STEPS}"]
        cfg = compose([*fixed, "trainer.limit_val_batches=0", *sys.argv[1:]])
        seed_everything(cfg.seed, verbose=False)
        datamodule = build_data(cfg)
        datamodule.setup()
        module = build_module(cfg, build(cfg.model, "model"))
        batches = [
            (module.preprocess(batch["image"]), batch["mask"].long())
            for batch, _ in zip(datamodule.train_dataloader(), range(STEPS), strict=False)
        ]
        clock = Clock()
        trainer = build_trainer(cfg, extra_callbacks=[clock])
        bare: list[float] = []

        class Alternate(Callback):
            """Runs the bare loop between epochs, so that both see the same machine."""

            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                bare.append(bare_loop(cfg, batches))

        trainer.callbacks.append(Alternate())
        trainer.fit(module, datamodule=datamodule)
    ours, theirs = statistics.median(clock.speeds), statistics.median(bare)
    size = f"batch {cfg.data.batch_size}, {cfg.data.size}x{cfg.data.size}, {cfg.trainer.precision}"
    print(f"{size}, {torch.get_num_threads()} threads, medians of {ROUNDS} rounds of {STEPS} steps")
    print(f"bare PyTorch loop  {theirs:7.2f} steps/s")
    print(f"segpets            {ours:7.2f} steps/s")
    print(f"ratio              {ours / theirs:7.3f}")


if __name__ == "__main__":
    main()
