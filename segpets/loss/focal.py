"""Focal loss: cross-entropy that turns its back on what is already well classified.

Focal Loss for Dense Object Detection. Tsung-Yi Lin, Priya Goyal, Ross Girshick, Kaiming He, Piotr
Dollár, 2017, arXiv 1708.02002. The paper has independent sigmoids and divides by the number of
anchors assigned to an object; here the classes share a softmax and the sum is divided by the
weights of all pixels that count, as in cross-entropy, which gamma = 0 gives.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide


class FocalLoss(SegmentationLoss):
    """Weighted mean over all pixels of the batch, each pixel weighing what its true class weighs.

    With p_n the probability that pixel n gives to its true class y_n:

        loss = sum_n w_(y_n) (1 - p_n)^gamma (-log p_n) / sum_n w_(y_n)

    A class that the target lacks has no pixels, and so no term.

    Args:
        num_classes: C.
        class_weights: w, the paper's alpha; null stands for ones.
        ignore_index: The target value of pixels that don't count.
        gamma: >= 0, how fast a pixel loses its weight as p grows.

    Raises:
        ValueError: If the weights don't fit the classes, or gamma is negative.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        gamma: float = 2.0,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        if gamma < 0:
            raise ValueError(f"loss.gamma is {gamma}; give a number >= 0")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        surprise = F.cross_entropy(  # (B, H, W), -log p, 0 where ignored
            logits, target, ignore_index=self.ignore_index, reduction="none"
        )
        # 1 - p without cancellation. The clamp is for gamma < 1, whose slope is infinite at p = 1.
        miss = -torch.expm1(-surprise).clamp_max(-torch.finfo(torch.float32).tiny)
        weights = self.pixel_weights(target, valid)
        total = (weights * miss**self.gamma * surprise).sum()
        return safe_divide(*self.summed(total, weights.sum()))
