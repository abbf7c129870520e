"""Predicts class ids for one picture given from Python."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segpets.errors import UserError
from segpets.inference.layers import Net, collected, whole_layers
from segpets.inference.picture import Picture, read_picture, read_shrunk, upright
from segpets.inference.tiles import tiled

_TAKEN = (
    "predict takes a file's path, a PIL image, a uint8 array (H, W, 3) or (H, W), or a uint8 "
    "tensor (3, H, W)"
)


def class_ids(net: Net, image: Any, *, tile: int | None = None) -> NDArray[np.uint8]:
    """Predicts class ids, (H, W); see `segpets.trained.Trained.predict`.

    Raises:
        UserError: The image is of no type that can be predicted, or a file that can't be used.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 32):
        raise UserError(f"tile={tile} must be a whole number of at least 32, or None")
    if isinstance(image, (str, Path)):
        path = Path(image).expanduser()
        if tile is None:
            shrunk, size = read_shrunk(path, net.size)
            return whole_layers(net.logits(shrunk[None])[0], size).ids
        picture = read_picture(path)
    else:
        picture = Picture(as_image(image), Path("the image"))
    if tile is None:
        shrunk = picture.resized((net.size, net.size))
        return whole_layers(net.logits(shrunk[None])[0], picture.size).ids
    return collected(tiled(net, picture, tile), picture.size).ids


def as_image(image: Any) -> Image.Image:
    """Turns a Python object into an upright image.

    Raises:
        UserError: It is of another type or shape, or has no pixels.
    """
    if isinstance(image, Image.Image):
        try:
            image.load()
        except Exception as error:  # of damaged bytes: anything
            raise UserError(f"the image can't be decoded ({error})") from error
        return upright(image)
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            raise UserError(_of_another_type(str(image.dtype), "image.mul(255).byte()"))
        if image.ndim != 3 or image.shape[0] != 3:
            raise UserError(f"the tensor has the shape {tuple(image.shape)}: {_TAKEN}")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise UserError(f"the image is of type {type(image).__name__}: {_TAKEN}")
    if image.dtype != np.uint8:
        raise UserError(_of_another_type(str(image.dtype), "(255 * image).astype(np.uint8)"))
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != 3):
        raise UserError(f"the array has the shape {image.shape}: {_TAKEN}")
    if not image.size:
        raise UserError(f"the array has the shape {image.shape}, so no pixels")
    return Image.fromarray(np.ascontiguousarray(image))


def _of_another_type(dtype: str, remedy: str) -> str:
    return (
        f"the image holds {dtype}: {_TAKEN}. What holds 0 to 1 becomes that by {remedy}, what "
        "holds 0 to 255 without the factor"
    )
