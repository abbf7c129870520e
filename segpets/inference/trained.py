"""A trained model, from its run directory alone.

>>> import segpets
>>> trained = segpets.load("logs/train/latest")
>>> trained.predict("cat.jpg")  # class ids (H, W)
>>> trained.logits(batch)  # of uint8 (B, C, H, W)
"""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn

from segpets.build.instantiate import build
from segpets.data.geometry import Size, as_size_or_none
from segpets.data.reader import Reader
from segpets.errors import FileError, UserError
from segpets.hardware import usable_device
from segpets.inference.single import class_ids
from segpets.model.windows import by_windows
from segpets.module import Preprocess
from segpets.reading import in_one_line
from segpets.run.checkpoint import read_checkpoint
from segpets.run.files import shown
from segpets.run.protocol import tested_weights
from segpets.run.stored import StoredRun

log = logging.getLogger(__name__)

CHECKPOINTS: Final = ("best", "last")
PRECISIONS: Final = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names, and what autocast computes in."""
_NET = "net."


class Segmenter(nn.Module):
    """A module from images to logits, for export and prediction.

    Args:
        net: float (B, C, H, W) to logits (B, K, H, W).
        preprocess: uint8 or float32 (B, C, H, W) to what the net takes.
    """

    def __init__(self, net: nn.Module, preprocess: nn.Module) -> None:
        super().__init__()
        self.net, self.preprocess = net, preprocess

    def forward(self, image: Tensor) -> Tensor:
        """Maps uint8 or float32 (B, C, H, W) to logits (B, K, H, W)."""
        logits: Tensor = self.net(self.preprocess(image))
        return logits


@dataclass(frozen=True)
class Trained:
    """A trained model, and what its run says about it.

    Attributes:
        path: The run directory.
        config: The run's config, as plain data.
        summary: Its summary.
        segmenter: The model, in evaluation mode, on `device`.
        checkpoint: Where its weights come from.
        epoch: The number of epochs after which they were saved.
        classes: Class names, in the order of their ids.
        reader: The rules by which it sees pictures.
        window: Height and width of the windows by which it predicts; None predicts at once.
        device: Where it computes.
        precision: The precision that it computes in, by Lightning's name; one of `PRECISIONS`.
        members: The models of an ensemble; `path` and what follows are those of the first.
        decide: Weights of the classes, which its logits carry; empty without any.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    segmenter: Segmenter
    checkpoint: Path
    epoch: int
    classes: tuple[str, ...]
    reader: Reader
    window: Size | None
    device: torch.device
    precision: str
    members: tuple["Trained", ...] = ()
    decide: tuple[float, ...] = ()

    @property
    def size(self) -> Size:
        """Height and width in pixels of what it was trained to see."""
        return self.reader.size

    @property
    def stride(self) -> int:
        """The multiple to which the net pads height and width."""
        return int(getattr(self.segmenter.net, "stride", 1))

    def seeing(self, reader: Reader, window: Size | None) -> "Trained":
        """Returns the same model for data of other sizes, such as `data.fit=letterbox`.

        Raises:
            UserError: They have other channels, or another range, than it was trained with.
        """
        for key in ("channels", "range"):
            here, there = getattr(self.reader, key), getattr(reader, key)
            if here != there:
                raise UserError(
                    f"data.{key}={_word(there)}, but {shown(self.path)} was trained with "
                    f"data.{key}={_word(here)}: give data of the same kind"
                )
        return replace(self, reader=reader, window=window)

    def logits(self, images: Tensor) -> Tensor:
        """Computes logits, at the size of the images, without resizing.

        Args:
            images: uint8 (B, C, H, W), or float32 in [0, 1] where `reader.range` is given, of at
                least 32 x 32 pixels, on any device.

        Returns:
            float32 (B, K, H, W), on `device`; by windows where the model was judged by them.
        """
        images = images.to(self.device, non_blocking=True)
        with torch.inference_mode(), autocast(self.device, self.precision):
            if self.window is None:
                logits: Tensor = self.segmenter(images)
            else:
                logits = by_windows(self.segmenter, images, self.window, stride=self.stride)
        return logits.float()

    def predict(self, image: Any, *, tile: int | None = None) -> NDArray[np.uint8]:
        """Predicts the class of each pixel of a picture of any size.

        Args:
            image: A file's path or a PIL image, both turned as their EXIF orientation wants it;
                or pixels as they are: an array (H, W, C) or, of one channel, (H, W), or a tensor
                (C, H, W). They are uint8, or of any type where `reader.range` is given.
            tile: None fits the picture as in the training; N predicts overlapping tiles of N x N
                of its own pixels.

        Returns:
            Class ids, (H, W): indices of `classes`.

        Raises:
            UserError: It is none of these, or a file that can't be used.
        """
        return class_ids(self, image, tile=tile)


def _word(value: object) -> str:
    if value is None:
        return "null"
    return f"[{value[0]:g},{value[1]:g}]" if isinstance(value, tuple) else str(value)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Makes the context in which a device computes with a precision of `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def load(
    run: StoredRun,
    *,
    checkpoint: str | None = None,
    device: str = "auto",
    precision: str | None = None,
) -> Trained:
    """Loads the model that a run trained; see `segpets.load` for one by its directory alone.

    Args:
        run: The run.
        checkpoint: `best` or `last`; None takes the one whose test the run reports.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: One of `PRECISIONS`; None computes as the run's test did.

    Raises:
        UserError: Its weights are missing, damaged or don't fit its model.
    """
    file = _checkpoint_file(run, checkpoint)
    saved = read_checkpoint(file)
    if saved.get("global_step") == 0:
        raise FileError(file, "holds untrained weights, of step 0", "train the model first")
    net = _net(run, saved["state_dict"], file)
    data = run.config["data"]
    place = _device(device)
    reader = Reader.of(data)
    preprocess = Preprocess(mean=data["mean"], std=data["std"], white=reader.white)
    segmenter = Segmenter(net, preprocess).to(place)
    segmenter.net.to(memory_format=torch.channels_last)
    segmenter.eval().requires_grad_(False)
    if (status := run.summary.get("status")) != "completed":
        log.warning("%s is %s: its weights are those so far", shown(run.path), status)
    return Trained(
        path=run.path,
        config=run.config,
        summary=run.summary,
        segmenter=segmenter,
        checkpoint=file,
        epoch=int(saved.get("epoch", 0)) + 1,
        classes=tuple(map(str, data["classes"])),
        reader=reader,
        window=as_size_or_none(data.get("window")),
        device=place,
        precision=_precision(precision, run.config, place),
    )


def _checkpoint_file(run: StoredRun, checkpoint: str | None) -> Path:
    if checkpoint is not None and checkpoint not in CHECKPOINTS:
        raise UserError(f"checkpoint={checkpoint} is unknown: choose best or last")
    tested = tested_weights(run.summary).get("checkpoint")
    name = checkpoint or (tested if tested in CHECKPOINTS else "best")
    file = run.files.checkpoint(name)
    if file.is_file():
        return file
    if run.config.get("train") is False:
        raise UserError(
            f"{shown(run.path)} trained nothing, so it has no weights of its own: give the run "
            f"that it tested, {run.config.get('init_from')}"
        )
    other = run.files.checkpoint("best" if name == "last" else "last")
    hint = f"checkpoint={other.stem} is there" if other.is_file() else "train it first"
    raise UserError(f"{shown(run.path)} holds no {file.relative_to(run.path)}: {hint}")


def _net(run: StoredRun, state: Mapping[str, Tensor], file: Path) -> nn.Module:
    """Makes the run's net with the weights of a checkpoint.

    Raises:
        UserError: The config names no net, or the weights don't fit it.
    """
    model = OmegaConf.create(without_pretrained(run.config["model"]))
    weights = {k.removeprefix(_NET): v for k, v in state.items() if k.startswith(_NET)}
    before = torch.get_rng_state()
    try:
        net = _of_weights(model, run, weights, file)
        if net is None:
            net = _built(model, run)
            _check_fit(net, weights, file)
            net.load_state_dict(weights)
    finally:
        torch.set_rng_state(before)
    broken = [k for k, v in net.state_dict().items() if v.is_floating_point() and not _finite(v)]
    if broken:
        raise FileError(
            file,
            f"holds weights that are NaN or infinite, for example {broken[0]}",
            "the training diverged: take another checkpoint, or a lower optimizer.lr",
        )
    return net


def _of_weights(
    model: Any, run: StoredRun, weights: Mapping[str, Tensor], file: Path
) -> nn.Module | None:
    """Makes a net of ours without memory of its own, and gives it the checkpoint's tensors.

    A config may name a net that no machine could hold, and weights to begin with take time to draw.

    Returns:
        The net; None if it isn't ours, or holds tensors that no checkpoint has.
    """
    if not str(model._target_).startswith("segpets."):
        return None
    with torch.device("meta"):
        net = _built(model, run)
    _check_fit(net, weights, file)
    types = {name: value.dtype for name, value in net.state_dict().items()}
    net.load_state_dict({k: v.to(types[k]) for k, v in weights.items()}, assign=True)
    every = (*net.parameters(), *net.buffers())
    return None if any(value.is_meta for value in every) else net


def _built(model: Any, run: StoredRun) -> nn.Module:
    net = build(model, "model")
    if not isinstance(net, nn.Module):
        raise UserError(f"{shown(run.path)}: model._target_={model._target_} makes no net")
    return net


def without_pretrained(model: Mapping[str, Any]) -> dict[str, Any]:
    """Copies a model's config without the weights that would be downloaded, and then replaced."""
    return {k: None if k in ("weights", "encoder_weights") else v for k, v in model.items()}


def _check_fit(net: nn.Module, weights: Mapping[str, Tensor], file: Path) -> None:
    """Compares a checkpoint's weights with a net's.

    Raises:
        FileError: A weight is missing, superfluous, or of another shape.
    """
    own = net.state_dict()
    odd = sorted(own.keys() ^ weights.keys())
    odd += sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
    if odd:
        raise FileError(
            file,
            f"doesn't fit the model that the run's config names: {len(odd)} of its "
            f"{len(own)} weights differ, for example {in_one_line(odd[0])[:100]}",
            "it belongs to another run; put that run's own file back",
        )


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return usable_device(device, key="device")


def _precision(precision: str | None, config: dict[str, Any], device: torch.device) -> str:
    aliases = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "bf16-true": "bf16-mixed"}
    wanted = str(config["trainer"].get("precision")) if precision is None else str(precision)
    name = aliases.get(wanted, wanted)
    if name not in PRECISIONS:
        if precision is not None:
            raise UserError(f"precision={precision} is unknown: choose {', '.join(PRECISIONS)}")
        name = "32-true"
    if precision is None and name == "16-mixed" and device.type == "cpu":
        name = "32-true"  # a GPU's
    return name
