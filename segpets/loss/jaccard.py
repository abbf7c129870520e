"""Jaccard metric loss: the IoU between probabilities, which also takes a truth in parts.

Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels. Zifu Wang, Xuefei Ning,
Matthew B. Blaschko, NeurIPS 2023, arXiv 2302.05666.
"""

from collections.abc import Sequence

from torch import Tensor

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide, softened


class JaccardLoss(SegmentationLoss):
    """Weighted mean over the classes of 1 - IoU of probabilities p and truth q, over the batch.

        IoU_c = sum_n (p_nc + q_nc - |p_nc - q_nc|) / sum_n (p_nc + q_nc + |p_nc - q_nc|)

    It is 0 if and only if p is q, also where q is in parts, as it is at edges with
    `edge_sigma`; sum p q / sum (p + q - p q), as in `soft_iou`, then isn't. A class that the
    batch's truth lacks is left out.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`.
        ignore_index: The target value of pixels that don't count.
        edge_sigma: Standard deviation in pixels by which the truth is blurred; 0 doesn't.

    Raises:
        ValueError: If the weights don't fit the classes, or edge_sigma its range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        edge_sigma: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        if not 0 <= edge_sigma <= 10:
            raise ValueError(f"loss.edge_sigma is {edge_sigma}; give pixels from 0 to 10")
        self.edge_sigma = edge_sigma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        truth = softened(target, valid, self.num_classes, self.edge_sigma)  # (B, C, H, W)
        probs = logits.softmax(1) * valid.unsqueeze(1)
        apart = (probs - truth).abs().sum((0, 2, 3))  # (C,)
        both = (probs + truth).sum((0, 2, 3))
        apart, both, true = self.summed(apart, both, truth.sum((0, 2, 3)))
        iou = safe_divide(both - apart, both + apart)
        weights = self.class_weights * (true > 0)
        return safe_divide((weights * (1 - iou)).sum(), weights.sum())
