"""What sliding windows cost, and what their seams change: `python benchmarks/windows.py`.

A scene of 2048 x 1024 is predicted by windows, and beside it, in turns, the same crops without
placing and blending, and the scene at once. A net of random weights costs what a trained one does;
a trained run (`--run DIR`) shows the error of its seams.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from facts import write_facts
from omegaconf import OmegaConf
from torch import Tensor

import segpets
from segpets.build.instantiate import build
from segpets.config import compose
from segpets.model.windows import by_windows, starts

HEIGHT, WIDTH = 1024, 2048


def seconds(passes: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Times passes in turns; the median of each."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, one in passes.items():
            begun = time.perf_counter()
            one()
            taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in taken.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="unet")
    parser.add_argument("--run", help="a trained run, for the error of the seams")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file to write")
    args = parser.parse_args()
    if args.run:
        trained = segpets.load(args.run, device="cpu", precision="32-true")
        net, stride = trained.segmenter, trained.stride
    else:
        torch.manual_seed(0)
        cfg = compose([f"model={args.model}", f"data.size={args.window}"])
        net = build(OmegaConf.create(OmegaConf.to_container(cfg.model, resolve=True)), "model")
        net = net.eval().to(memory_format=torch.channels_last)
        stride = net.stride
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, HEIGHT // 32, WIDTH // 32, generator=generator)
    scene = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")
    scene = (255 * scene.clamp(0, 1)).to(torch.uint8) if args.run else scene
    side = args.window
    tops, lefts = starts(HEIGHT, side), starts(WIDTH, side)
    crops = torch.cat([scene[..., t : t + side, x : x + side] for t in tops for x in lefts])
    with torch.inference_mode():
        passes: dict[str, Callable[[], torch.Tensor]] = {
            "windows, blended": lambda: by_windows(net, scene, (side, side), stride=stride),
            "the same crops alone": lambda: torch.cat([net(crop[None]) for crop in crops]),
            "the scene at once": lambda: net(scene),
        }
        for one in passes.values():
            one()
        taken = seconds(passes, args.rounds)
        blended, whole = passes["windows, blended"](), passes["the scene at once"]()
    print(f"{len(crops)} windows of {side}x{side} over {WIDTH}x{HEIGHT}, medians of {args.rounds}")
    for name, value in taken.items():
        print(
            f"{name:24} {value:6.2f} s   {HEIGHT * WIDTH / value / 1e6:5.2f} Mpixel/s of the scene"
        )
    ratio = taken["the same crops alone"] / taken["windows, blended"]
    print(f"windows run at {ratio:.2f} of the speed of the same crops")
    off = (blended - whole).abs()
    same = (blended.argmax(1) == whole.argmax(1)).float().mean()
    print(
        f"beside the scene at once, logits differ by {off.mean():.4f} on average and "
        f"{off.max():.3f} at most, of up to {whole.abs().max():.2f}; {same:.3%} of the pixels "
        "have the same class"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of the process: {peak:.2f} GB")
    seams = {"mean": float(off.mean()), "max": float(off.max()), "same_class": float(same)}
    write_facts(args.json, seconds=taken, windows=len(crops), seams=seams, peak_gb=peak)


if __name__ == "__main__":
    main()
