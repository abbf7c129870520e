"""Class ids in the colours of their classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segpets.report.palette import palette

RGB = NDArray[np.uint8]
IGNORED = (128, 128, 128)


def painted(ids: NDArray[np.uint8], classes: Sequence[str]) -> RGB:
    """Paints class ids, (..., H, W), in their classes' colours, (..., H, W, 3); 255 is grey."""
    colours = np.full((256, 3), IGNORED, dtype=np.uint8)
    colours[: len(classes)] = palette(classes)
    picture: RGB = colours[ids]
    return picture
