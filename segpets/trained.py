"""A trained model, from its run directory alone.

>>> import segpets
>>> trained = segpets.load("logs/train/latest")
>>> trained.predict("cat.jpg")  # class ids (H, W)
>>> trained.logits(batch)  # of uint8 (B, 3, H, W)
"""

import logging
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn

from segpets.build import build
from segpets.errors import FileError, UserError
from segpets.hardware import usable_device
from segpets.module import Preprocess
from segpets.run import find_run, read_summary, shown
from segpets.stored import stored_config

log = logging.getLogger(__name__)

CHECKPOINTS: Final = ("best", "last")
PRECISIONS: Final = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names, and what autocast computes in."""
_NET = "net."


class Segmenter(nn.Module):
    """uint8 images to logits: what is exported, and what predicts.

    Args:
        net: float (B, 3, H, W) to logits (B, C, H, W).
        preprocess: uint8 (B, 3, H, W) to what the net takes.
    """

    def __init__(self, net: nn.Module, preprocess: nn.Module) -> None:
        super().__init__()
        self.net, self.preprocess = net, preprocess

    def forward(self, image: Tensor) -> Tensor:
        """Maps uint8 (B, 3, H, W) to logits (B, C, H, W)."""
        logits: Tensor = self.net(self.preprocess(image))
        return logits


@dataclass(frozen=True)
class Trained:
    """A trained model, and what its run says of it.

    Attributes:
        path: The run directory.
        config: The run's config, as plain data.
        summary: Its `summary.json`.
        segmenter: The model, in evaluation mode, on `device`.
        checkpoint: Where its weights come from.
        epoch: After how many epochs they were saved.
        classes: Class names, in the order of their ids.
        size: Height and width in pixels that it was trained at.
        device: Where it computes.
        precision: What it computes in, by Lightning's name; one of `PRECISIONS`.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    segmenter: Segmenter
    checkpoint: Path
    epoch: int
    classes: tuple[str, ...]
    size: int
    device: torch.device
    precision: str

    @property
    def stride(self) -> int:
        """The multiple to which the net pads height and width."""
        return int(getattr(self.segmenter.net, "stride", 1))

    def logits(self, images: Tensor) -> Tensor:
        """Computes logits, at the size of the images, without resizing.

        Args:
            images: uint8 RGB (B, 3, H, W), of at least 32 x 32 pixels, on any device.

        Returns:
            float32 (B, C, H, W), on `device`.
        """
        with torch.inference_mode(), autocast(self.device, self.precision):
            logits: Tensor = self.segmenter(images.to(self.device, non_blocking=True))
        return logits.float()

    def predict(self, image: Any, *, tile: int | None = None) -> NDArray[np.uint8]:
        """Predicts the class of each pixel of a picture of any size.

        Args:
            image: A file's path or a PIL image, both turned as their EXIF orientation wants it;
                or pixels as they are: a uint8 array, RGB (H, W, 3) or grey (H, W), or a uint8
                tensor (3, H, W).
            tile: None resizes the whole picture to `size`; N predicts overlapping tiles of N x N of
                its own pixels.

        Returns:
            Class ids, (H, W): indices of `classes`.

        Raises:
            UserError: It is none of these, or a file that can't be used.
        """
        from segpets.prediction.one import class_ids  # late: only who predicts needs it

        return class_ids(self, image, tile=tile)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which a device computes with a precision of `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def load(
    run: str | Path = "latest",
    *,
    log_dir: str | Path = "logs/train",
    checkpoint: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    allow: Sequence[str] | None = None,
    folders: Sequence[str | Path] = (),
    key: str = "run",
) -> Trained:
    """Loads the model that a run trained.

    The config and the weights of a run may come from anyone: nothing is unpickled but tensors
    and plain data, and no class is made that segpets' configs, or the user, don't name.

    Args:
        run: A run directory, a job of a sweep, or `latest`.
        log_dir: Where `latest` is looked for.
        checkpoint: `best` or `last`; None takes the one whose test the run reports.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: One of `PRECISIONS`; None computes as the run's test did.
        allow: Classes of the user's own that the run's config may name.
        folders: Folders with configs of the user's own, whose classes are allowed, too.
        key: The override by which the user gave the run, for the message of an error.

    Raises:
        UserError: There is no such run, its weights are missing, damaged or don't fit its model,
            or its config isn't to be trusted.
    """
    path = find_run(run, log_dir=Path(log_dir), key=key)
    summary = read_summary(path)
    config = stored_config(path, allow=allow, folders=[Path(folder) for folder in folders])
    file = _checkpoint_file(path, summary, checkpoint, config)
    saved = _read_checkpoint(file)
    net = _net(config, path)
    _fill(net, saved["state_dict"], file)
    data = config["data"]
    place = _device(device)
    segmenter = Segmenter(net, Preprocess(mean=data["mean"], std=data["std"])).to(place)
    segmenter.net.to(memory_format=torch.channels_last)
    segmenter.eval().requires_grad_(False)
    if summary.get("status") != "completed":
        log.warning("%s is %s: its weights are those so far", shown(path), summary.get("status"))
    return Trained(
        path=path,
        config=config,
        summary=summary,
        segmenter=segmenter,
        checkpoint=file,
        epoch=int(saved.get("epoch", 0)) + 1,
        classes=tuple(map(str, data["classes"])),
        size=int(data["size"]),
        device=place,
        precision=_precision(precision, config, place),
    )


def _checkpoint_file(
    path: Path, summary: dict[str, Any], checkpoint: str | None, config: dict[str, Any]
) -> Path:
    if checkpoint is not None and checkpoint not in CHECKPOINTS:
        raise UserError(f"checkpoint={checkpoint} is unknown: choose best or last")
    protocol = summary.get("protocol")
    tested = protocol.get("tested_weights") if isinstance(protocol, dict) else None
    name = checkpoint or ("last" if tested == "last epoch" else "best")
    file = path / "checkpoints" / f"{name}.ckpt"
    if file.is_file():
        return file
    if config.get("train") is False:
        raise UserError(
            f"{shown(path)} trained nothing, so it has no weights of its own: give the run that "
            f"it tested, {config.get('init_from')}"
        )
    other = path / "checkpoints" / ("best.ckpt" if name == "last" else "last.ckpt")
    hint = f"checkpoint={other.stem} is there" if other.is_file() else "train it first"
    raise UserError(f"{shown(path)} holds no checkpoints/{name}.ckpt: {hint}")


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """Reads a checkpoint of a training, without running any code that it may hold."""
    other = "last" if file.stem == "best" else "best"
    try:
        saved: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise FileError(
            file,
            "holds more than weights and plain data, or is damaged, and isn't loaded "
            f"({str(error).splitlines()[0].strip()[:200]})",
            f"don't use it, unless checkpoint={other} is sound",
        ) from error
    except Exception as error:  # of damaged bytes: anything
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:200]
        raise FileError(
            file,
            f"can't be read ({reason}); was it cut off?",
            f"take checkpoint={other}, or continue the training with resume=RUN",
        ) from error
    state = saved.get("state_dict") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FileError(file, "is no checkpoint of a training: it has no state_dict", "replace it")
    if not isinstance(saved.get("epoch", 0), int):
        raise FileError(file, "is damaged: its epoch is no number", "replace it")
    if saved.get("global_step") == 0:
        raise FileError(file, "holds untrained weights, of step 0", "train the model first")
    return dict(saved)


def _net(config: dict[str, Any], path: Path) -> nn.Module:
    """The run's net, with weights that the checkpoint is to replace."""
    model = dict(config["model"])
    for key in ("weights", "encoder_weights"):  # they would be downloaded, and then replaced
        if key in model:
            model[key] = None
    state = torch.get_rng_state()
    try:
        net = build(OmegaConf.create(model), "model")
    finally:
        torch.set_rng_state(state)
    if not isinstance(net, nn.Module):
        raise UserError(f"{shown(path)}: model._target_={model.get('_target_')} makes no net")
    return net


def _fill(net: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Puts a checkpoint's weights into a net; all of them must fit.

    Raises:
        FileError: One is missing, too many, of another shape, or no number.
    """
    weights = {k.removeprefix(_NET): v for k, v in state.items() if k.startswith(_NET)}
    own = net.state_dict()
    odd = sorted(own.keys() ^ weights.keys())
    odd += sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape)
    if odd:
        raise FileError(
            file,
            f"doesn't fit the model that the run's config names: {len(odd)} of its "
            f"{len(own)} weights differ, for example {odd[0]}",
            "it belongs to another run; put that run's own file back",
        )
    net.load_state_dict(weights)
    broken = [k for k, v in net.state_dict().items() if v.is_floating_point() and not _finite(v)]
    if broken:
        raise FileError(
            file,
            f"holds weights that are NaN or infinite, for example {broken[0]}",
            "the training diverged: take another checkpoint, or a lower optimizer.lr",
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
