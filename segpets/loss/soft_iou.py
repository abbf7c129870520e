"""Soft IoU: intersection over union with probabilities instead of decisions.

Optimizing Intersection-Over-Union in Deep Neural Networks for Image Segmentation. Md Atiqur
Rahman, Yang Wang, ISVC 2016 (not on arXiv). The paper's loss is 1 - IoU of one foreground class.
Here the default pools all classes of an image into one IoU and takes -log of the batch mean:
1 - M flattens out where M is near 0, at the start of a training, whereas the slope of -log M
is steepest there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide


class SoftIoULoss(SegmentationLoss):
    """-log M or 1 - M, where M is the mean soft IoU of the images of the batch.

    With p the probabilities and t the one-hot truth, summed over the pixels n of one image:

        I_c = sum_n p_nc t_nc        U_c = sum_n p_nc + t_nc - p_nc t_nc
        all classes together:  IoU = (sum_c w_c I_c + s) / (sum_c w_c U_c + s)
        per class:             IoU = sum_c w_c (I_c + s) / (U_c + s) / sum_c w_c

    An image without any pixel that counts is left out of M; if there is no other, the loss is 0.
    All classes together, a class that the image's truth lacks still enlarges the union by its
    probabilities. Per class, it is left out of both sums: its own IoU would be about 0 however
    little of it is predicted, and a wrongly predicted pixel already costs the class it belongs to.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`. All classes
            together, a weight multiplies what the class's channel adds to intersection and union;
            per class, it is that of a mean.
        ignore_index: The target value of pixels that don't count.
        per_class: Average the IoU of the classes instead of pooling their pixels.
        log: -log M; false gives 1 - M.
        smooth: s > 0, in pixels.

    Raises:
        ValueError: If the weights don't fit the classes, or smooth isn't positive.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        per_class: bool = False,
        log: bool = True,
        smooth: float = 0.001,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        if smooth <= 0:
            raise ValueError(
                f"loss.smooth is {smooth}; it must be positive, or log(0) and 0 / 0 can occur"
            )
        self.per_class = per_class
        self.log = log
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        intersection, predicted, true = self.soft_counts(logits, target, valid)  # each (B, C)
        union = predicted + true - intersection
        if self.per_class:
            weights = self.class_weights * (true > 0)  # (B, C)
            ious = (intersection + self.smooth) / (union + self.smooth)
            iou = safe_divide((weights * ious).sum(1), weights.sum(1))
            counts = weights.sum(1) > 0
        else:
            weighted_intersection = (self.class_weights * intersection).sum(1)
            weighted_union = (self.class_weights * union).sum(1)
            iou = (weighted_intersection + self.smooth) / (weighted_union + self.smooth)
            counts = true.sum(1) > 0
        total, images = self.summed((counts * iou).sum(), counts.sum())
        mean_iou = torch.where(images > 0, safe_divide(total, images), 1.0)
        return -mean_iou.log() if self.log else 1 - mean_iou
