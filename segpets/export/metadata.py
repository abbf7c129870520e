"""The metadata of an exported file."""

import json

from segpets.inference.trained import Trained
from segpets.model.pad import MIN_SIZE, fitting
from segpets.report.palette import palette
from segpets.run.versions import package_version


def describe(trained: Trained, *, numbers: str, least: int = 1) -> dict[str, str]:
    """Makes the names and values of a file's metadata; each value is JSON.

    Args:
        trained: The model that is exported.
        numbers: The type that it computes in, such as `float32`.
        least: The least height and width, in strides.
    """
    stride, data = trained.stride, trained.config["data"]
    reader = trained.reader
    low, high = reader.range or (0, 255)
    kind = f"float32 in [0, 1], which stands for {low:g} to {high:g}," if reader.range else "uint8"
    if reader.channels == 3:
        kind += " RGB"
    smallest = fitting(max(MIN_SIZE, least * stride), stride)
    facts = {
        "segpets": package_version("segpets"),
        "input": f"image: {kind} (B, {reader.channels}, H, W), H and W multiples of {stride} from "
        f"{smallest} on",
        "output": "logits: float32 (B, classes, H, W); the class of a pixel is the largest",
        "padding": "repeat the last row and the last column; cut the logits back to the image",
        "classes": list(trained.classes),
        "colours": palette(trained.classes),
        "stride": stride,
        "size": list(trained.size),
        "fit": reader.fit,
        "window": trained.window,
        "channels": reader.channels,
        "range": reader.range,
        "normalisation": {
            "place": "inside the file",
            "mean": list(data["mean"]),
            "std": list(data["std"]),
        },
        "decision_weights": list(trained.decide) or None,
        "numbers": numbers,
        "model": trained.config["model"],
        "run": trained.path.name,
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
