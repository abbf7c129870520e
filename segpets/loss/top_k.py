"""Cross-entropy of the pixels that are predicted worst.

Bridging Category-level and Instance-level Semantic Image Segmentation. Zifeng Wu, Chunhua Shen,
Anton van den Hengel, 2016, arXiv 1605.06885: online bootstrapping; nnU-Net has it as its TopK loss.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide


class TopKLoss(SegmentationLoss):
    """Mean cross-entropy of the share of a batch's pixels whose weighted cross-entropy is largest.

        loss = sum_(n in K) w_(y_n) (-log p_(n, y_n)) / sum_(n in K) w_(y_n)

    With several processes each chooses K among its own pixels, and the sums are over all: another
    choice than that of one process with the whole batch.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`.
        ignore_index: The target value of pixels that don't count.
        share: The size of K as a part of the pixels that count, in (0, 1]; 1 is cross-entropy. A
            small one suits weights that are brought: a net that begins at random makes all pixels
            equally bad instead, and stays there.

    Raises:
        ValueError: If the weights don't fit the classes, or share its range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        share: float = 0.5,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        if not 0 < share <= 1:
            raise ValueError(f"loss.share is {share}; give a part of the pixels in (0, 1]")
        self.share = share

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        losses = F.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            reduction="none",
        ).flatten()
        weights = self.pixel_weights(target, valid).flatten()
        losses, places = losses.sort(descending=True)
        # A fixed number of pixels would be a part of all, and not of those that count.
        ranks = torch.arange(len(losses), device=losses.device)
        among = ranks < (self.share * valid.sum()).round().clamp(min=1)
        total, weight = (losses * among).sum(), (weights[places] * among).sum()
        return safe_divide(*self.summed(total, weight))
