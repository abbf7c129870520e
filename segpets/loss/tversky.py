"""Tversky: an overlap in which false positives and false negatives have prices of their own.

Tversky loss function for image segmentation using 3D fully convolutional deep networks. Seyed
Sadegh Mohseni Salehi, Deniz Erdogmus, Ali Gholipour, 2017, arXiv 1706.05721. The paper has one
foreground class; here every class is in turn the foreground, and the mean is taken.
"""

from collections.abc import Sequence

from torch import Tensor

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide


class TverskyLoss(SegmentationLoss):
    """Weighted mean over the classes of 1 - Tversky index, pixels pooled over the whole batch.

    With p the probabilities and t the one-hot truth, summed over all pixels n of the batch:

        TP_c = sum_n p_nc t_nc    FP_c = sum_n p_nc (1 - t_nc)    FN_c = sum_n (1 - p_nc) t_nc
        T_c = TP_c / (TP_c + alpha FP_c + beta FN_c)
        loss = sum_c w_c (1 - T_c) / sum_c w_c

    alpha = beta = 1/2 is Dice, alpha = beta = 1 is IoU; beta > alpha asks for recall, which helps
    thin classes such as a border. A class that the batch's truth lacks is left out of both sums
    over c: its index would be 0 however little of it is predicted, and a wrongly predicted pixel
    already costs the class it belongs to. No smoothing is needed: for a class that is there,
    TP + FN is at least 1.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`.
        ignore_index: The target value of pixels that don't count.
        alpha: Price of a false positive, > 0.
        beta: Price of a false negative, > 0.

    Raises:
        ValueError: If the weights don't fit the classes, or alpha or beta isn't positive.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        alpha: float = 0.3,
        beta: float = 0.7,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        for name, price in (("alpha", alpha), ("beta", beta)):
            if price <= 0:
                raise ValueError(f"loss.{name} is {price}; give a positive number")
        self.alpha = alpha
        self.beta = beta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        counts = self.soft_counts(logits, target, valid)  # each (B, C)
        overlap, predicted, true = self.summed(*(count.sum(0) for count in counts))  # each (C,)
        false_positives, false_negatives = predicted - overlap, true - overlap
        denominator = overlap + self.alpha * false_positives + self.beta * false_negatives
        tversky = safe_divide(overlap, denominator)
        weights = self.class_weights * (true > 0)
        return safe_divide((weights * (1 - tversky)).sum(), weights.sum())
