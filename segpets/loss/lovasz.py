"""Lovász-Softmax: the IoU of the prediction, extended to probabilities so that it can be descended.

The Lovász-Softmax loss: A tractable surrogate for the optimization of the intersection-over-union
measure in neural networks. Maxim Berman, Amal Rannen Triki, Matthew B. Blaschko, 2017, arXiv
1705.08790.
"""

import torch
from torch import Tensor

from segpets.loss.base import SegmentationLoss, safe_divide


class LovaszLoss(SegmentationLoss):
    """Weighted mean over the classes of the Lovász extension of 1 - IoU, over the whole batch.

    With m_n the error |t_nc - p_nc| of each pixel, sorted so that the largest is first:

        loss_c = sum_n m_n (J_n - J_(n-1)),    J_n = 1 - (T - T_n) / (T + F_n)

    where T counts the pixels of class c, and T_n and F_n those of the first n that are and aren't
    of class c: J_n is 1 - IoU if the first n are wrong. A class that the batch's truth lacks is
    left out. It isn't a sum over pixels, so several processes have the mean of their losses.

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
        classes = torch.arange(self.num_classes, device=target.device).view(-1, 1)
        true = ((target.flatten() == classes) & valid.flatten()).float()  # (C, N)
        probs = logits.softmax(1).transpose(0, 1).flatten(1)  # (C, N)
        errors = torch.where(valid.flatten(), (true - probs).abs(), 0.0)
        errors, order = errors.sort(dim=1, descending=True)
        hit = true.gather(1, order)
        total = true.sum(1, keepdim=True)
        kept = total - hit.cumsum(1)
        union = total + (1 - hit).cumsum(1)
        jaccard = 1 - kept / union.clamp(min=1)
        steps = torch.diff(jaccard, dim=1, prepend=jaccard.new_zeros(self.num_classes, 1))
        weights = self.class_weights * (total[:, 0] > 0)
        return safe_divide((weights * (errors * steps).sum(1)).sum(), weights.sum())
