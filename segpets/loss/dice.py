"""Soft Dice: the harmonic mean of precision and recall, with probabilities.

V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation. Fausto
Milletari, Nassir Navab, Seyed-Ahmad Ahmadi, 2016, arXiv 1606.04797. The paper squares both terms
of the denominator and has one foreground class; here nothing is squared, so that Dice is Tversky
with alpha = beta = 1/2, and every class counts, the background too.
"""

from torch import Tensor

from segpets.loss.base import SegmentationLoss, safe_divide


class DiceLoss(SegmentationLoss):
    """Weighted mean over the classes of 1 - Dice, pixels pooled over the whole batch.

    With p the probabilities and t the one-hot truth, summed over all pixels n of the batch:

        Dice_c = 2 sum_n p_nc t_nc / (sum_n p_nc + sum_n t_nc)
        loss = sum_c w_c (1 - Dice_c) / sum_c w_c

    A class that the batch's truth lacks is left out of both sums over c: its Dice would be 0
    however little of it is predicted, and a wrongly predicted pixel already costs the class it
    belongs to. No smoothing is needed: the denominator of a class that is there is at least 1.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`.
        ignore_index: The target value of pixels that don't count.

    Raises:
        ValueError: If the weights don't fit the classes.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        counts = self.soft_counts(logits, target, valid)  # each (B, C)
        overlap, predicted, true = self.summed(*(count.sum(0) for count in counts))  # each (C,)
        dice = safe_divide(2 * overlap, predicted + true)
        weights = self.class_weights * (true > 0)
        return safe_divide((weights * (1 - dice)).sum(), weights.sum())
