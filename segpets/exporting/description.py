"""What an exported file says of itself."""

import json

import segpets
from segpets.labels import palette
from segpets.model import MIN_SIZE
from segpets.trained import Trained


def describe(trained: Trained, *, numbers: str, least: int = 1) -> dict[str, str]:
    """Names and values for a file's metadata; each value is JSON.

    Args:
        trained: The model that is exported.
        numbers: What it computes in, such as `float32`.
        least: How many strides height and width must be at least.
    """
    stride, data = trained.stride, trained.config["data"]
    smallest = max(least, -(-MIN_SIZE // stride)) * stride
    facts = {
        "segpets": segpets.__version__,
        "input": f"image: uint8 RGB (B, 3, H, W), H and W multiples of {stride} from {smallest} on",
        "output": "logits: float32 (B, classes, H, W); the class of a pixel is the largest",
        "padding": "repeat the last row and the last column; cut the logits back to the image",
        "classes": list(trained.classes),
        "colours": palette(trained.classes),
        "stride": stride,
        "size": trained.size,
        "normalisation": {
            "place": "inside the file",
            "mean": list(data["mean"]),
            "std": list(data["std"]),
        },
        "numbers": numbers,
        "model": trained.config["model"],
        "run": trained.path.name,
        "checkpoint": trained.checkpoint.name,
        "epoch": trained.epoch,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
