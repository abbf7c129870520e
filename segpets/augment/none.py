"""No augmentation."""

import torch
from torch import Tensor


class NoAugment:
    """Copies image and mask."""

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Returns copies of image, (C, H, W), and mask, uint8 (H, W), whatever the seed."""
        # NumPy copies, on this thread; torch would wake others for it, which may be busy elsewhere.
        return torch.from_numpy(image.numpy().copy()), torch.from_numpy(mask.numpy().copy())
