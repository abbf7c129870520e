"""An estimate, and no measurement, of a training's time on a GPU: operations and bytes are counted.

    python benchmarks/estimate.py [--models unet efficient] [--batch 8] [--images 3312]
                                  [--epochs 20] [--bandwidth 3.35e12] [--flops 990e12]
                                  [--launch 5e-6] [OVERRIDES ...]

A step's forward, backward and optimizer are run on a CPU, and each operation of PyTorch is counted
with the bytes that it reads and writes and its floating-point operations. A GPU needs at least the
time of its memory for the bytes, that of its multipliers for the operations, and in eager mode that
of a launch for each operation; a CUDA graph saves most of the launches. The defaults are the data
sheet of an NVIDIA H100 SXM (3.35 TB/s, 990 TFLOPS in bf16) and five microseconds a launch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from facts import write_facts
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from segpets.build.instantiate import build
from segpets.build.objects import build_module
from segpets.config import compose
from segpets.muon import Muon
from segpets.optimizer import made_fused

_FREE = ("view", "reshape", "detach", "expand", "permute", "transpose", "aten.t.default", "slice")
"""Operations that only look at the same memory in another way."""


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that launch a kernel, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(word in str(func) for word in _FREE):
            self.operations += 1
            every = tree_leaves((args, kwargs or {}, result))
            self.bytes += sum(one.nbytes for one in every if isinstance(one, torch.Tensor))
        return result


def counted(model: str, batch: int, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Operations, bytes and floating-point operations of a step."""
    words = ["experiment=efficient"] if model == "efficient" else [f"model={model}"]
    # As on a GPU, where matrices of as many rows are turned together.
    setattr(Muon, "_turn", Muon._turn_together)  # noqa: B010
    fixed = ["data=pets_mini", "trainer.accelerator=cpu", "hydra.run.dir=unused"]
    cfg = compose([*words, *fixed, *overrides])
    module = build_module(cfg, build(cfg.model, "model")).train()
    optimizer = made_fused(module.make_optimizer, [*module.parameters()])
    height, width = module.window or (128, 128)
    image = torch.zeros(batch, 3, height, width, dtype=torch.uint8)
    mask = torch.zeros(batch, height, width, dtype=torch.int64)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(module(image), mask)
        loss.backward()
        optimizer.step()

    step()
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    return {
        "operations": traffic.operations,
        "bytes": traffic.bytes,
        "flops": float(flops.get_total_flops()),
    }


def main() -> None:
    """Prints the estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["efficient", "unet", "vit_tiny"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=3312, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes a second")
    parser.add_argument("--flops", type=float, default=990e12, help="operations a second")
    parser.add_argument("--launch", type=float, default=5e-6, help="seconds a kernel")
    parser.add_argument("--json", type=Path, help="a file to write")
    args, overrides = parser.parse_known_args()
    rows = []
    steps = args.images // args.batch * args.epochs
    print(f"estimates of {args.epochs} epochs of {args.images} images, batches of {args.batch}")
    for model in args.models:
        found = counted(model, args.batch, overrides)
        device = max(found["bytes"] / args.bandwidth, found["flops"] / args.flops)
        eager = max(device, found["operations"] * args.launch)
        rows.append({"model": model, **found, "eager_seconds": eager, "graph_seconds": device})
        print(
            f"{model:<10} a step: {found['operations']} operations, {found['bytes'] / 1e9:.2f} GB, "
            f"{found['flops'] / 1e9:.1f} GFLOP; eager {eager * 1e3:.1f} ms, in all "
            f"{eager * steps:.0f} s; as one graph {device * 1e3:.1f} ms, {device * steps:.0f} s"
        )
    write_facts(args.json, rows=rows, batch=args.batch, steps=steps)


if __name__ == "__main__":
    main()
