"""Class ids in the colours of their classes."""

import numpy as np
from numpy.typing import NDArray

from segpets.labels import palette

RGB = NDArray[np.uint8]
IGNORED = (128, 128, 128)


def painted(ids: NDArray[np.uint8], num_classes: int) -> RGB:
    """Paints class ids, (..., H, W), in their classes' colours, (..., H, W, 3); 255 is grey."""
    colours = np.full((256, 3), IGNORED, dtype=np.uint8)
    colours[:num_classes] = palette(num_classes)
    picture: RGB = colours[ids]
    return picture
