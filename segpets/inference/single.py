"""Predicts class ids for one picture given from Python."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segpets.data.picture import Picture
from segpets.data.reader import Reader, upright
from segpets.errors import UserError
from segpets.inference.layers import Net
from segpets.inference.picture import layers_of

_IN_MEMORY = Path("the image")


def class_ids(net: Net, image: Any, *, tile: int | None = None) -> NDArray[np.uint8]:
    """Predicts class ids, (H, W); see `segpets.trained.Trained.predict`.

    Raises:
        UserError: The image is of no type that can be predicted, or a file that can't be used.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 32):
        raise UserError(f"tile={tile} must be a whole number of at least 32, or None")
    if not isinstance(image, (str, Path)):
        return layers_of(net, as_picture(image, net.reader), tile=tile).ids
    with net.reader.opened([Path(image).expanduser()], whole=tile is not None) as picture:
        return layers_of(net, picture, tile=tile).ids


def as_picture(image: Any, reader: Reader) -> Picture:
    """Turns a Python object into an upright picture.

    Raises:
        UserError: It is of another type or shape, or has no pixels.
    """
    taken = _taken(reader)
    if isinstance(image, Image.Image):
        try:
            image.load()
        except Exception as error:  # of damaged bytes: anything
            raise UserError(f"the image can't be decoded ({error})") from error
        image = image if reader.exif == "ignore" else upright(image)
        if image.mode == "F" or image.mode.startswith("I"):
            return Picture(np.asarray(image)[:, :, None], _IN_MEMORY, reader)
        return Picture(image, _IN_MEMORY, reader)
    kind = str(getattr(image, "dtype", ""))
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != reader.channels:
            raise UserError(f"the tensor has the shape {tuple(image.shape)}: {taken}")
        image = image.detach().cpu().permute(1, 2, 0).numpy()
    if not isinstance(image, np.ndarray):
        raise UserError(f"the image is of type {type(image).__name__}: {taken}")
    if reader.range is None and image.dtype != np.uint8:
        raise UserError(_of_another_type(kind, taken))
    if image.dtype.kind not in "uif":
        raise UserError(f"the image holds {image.dtype}: {taken}")
    if image.ndim != 2 and (image.ndim != 3 or image.shape[2] != reader.channels):
        raise UserError(f"the array has the shape {image.shape}: {taken}")
    if not image.size:
        raise UserError(f"the array has the shape {image.shape}, so no pixels")
    return Picture(np.atleast_3d(image), _IN_MEMORY, reader)


def _taken(reader: Reader) -> str:
    kind = "uint8" if reader.range is None else "numeric"
    channels = reader.channels
    return (
        f"predict takes a file's path, a PIL image, a {kind} array (H, W, {channels}) or (H, W), "
        f"or a {kind} tensor ({channels}, H, W)"
    )


def _of_another_type(dtype: str, taken: str) -> str:
    return (
        f"the image holds {dtype}: {taken}. What holds 0 to 1 becomes that by "
        "(255 * image).astype(np.uint8), or image.mul(255).byte(), what holds 0 to 255 without the "
        "factor"
    )
