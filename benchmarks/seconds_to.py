"""Seconds that a training takes to reach a mean IoU on val.

    python benchmarks/seconds_to.py --target 0.70 [--json FILE] [OVERRIDES ...]

They count from before the data are read to the end of the validation that reaches it, so setting
up, the cache and every validation are in it; the imports aren't.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from facts import write_facts
from lightning.pytorch import Callback

from segpets.config import compose
from segpets.hardware import device_name
from segpets.train import train


class Target(Callback):
    """Ends the training when val has reached the target."""

    def __init__(self, target: float) -> None:
        self.target, self.began = target, time.perf_counter()
        self.curve: list[tuple[float, float]] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        value = trainer.callback_metrics.get("val/mean_iou")
        if value is not None:
            self.curve.append((time.perf_counter() - self.began, float(value)))
            trainer.should_stop = trainer.should_stop or float(value) >= self.target

    @property
    def seconds(self) -> float | None:
        return next((second for second, value in self.curve if value >= self.target), None)


def main() -> None:
    """Prints the seconds; ends with code 1 if the target wasn't reached."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="overrides of the training may follow"
    )
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--json", type=Path, help="a file to write")
    args, overrides = parser.parse_known_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        cfg = compose([f"hydra.run.dir={folder}", "test=false", *overrides])
        watch = Target(args.target)
        train(cfg, callbacks=[watch])
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    best = max((value for _, value in watch.curve), default=float("nan"))
    reached = "not reached" if watch.seconds is None else f"after {watch.seconds:.1f} s"
    print(f"{device}: mean IoU {args.target:g} on val {reached} (best {best:.4f})")
    found = {"target": args.target, "seconds": watch.seconds, "curve": watch.curve}
    write_facts(args.json, **found, overrides=overrides)
    sys.exit(watch.seconds is None)


if __name__ == "__main__":
    main()
