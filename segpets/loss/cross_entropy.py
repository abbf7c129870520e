"""Cross-entropy of every pixel, with class weights and label smoothing.

Label smoothing: Rethinking the Inception Architecture for Computer Vision. Szegedy, Vanhoucke,
Ioffe, Shlens, Wojna, 2015, arXiv 1512.00567.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import SegmentationLoss, safe_divide


class CrossEntropyLoss(SegmentationLoss):
    """Weighted mean over all pixels of the batch, each pixel weighing what its true class weighs.

        loss = sum_n sum_c w_c q_nc (-log p_nc) / sum_n w_(y_n)
        q_nc = (1 - label_smoothing) [c = y_n] + label_smoothing / C

    This is `torch.nn.functional.cross_entropy` with reduction="mean", except that a batch without
    any pixel that counts gives 0 instead of NaN. A class that the target lacks has no pixels, and
    so no term.

    Args:
        num_classes: C.
        class_weights: w; null stands for ones, `auto` for those of `balanced`.
        ignore_index: The target value of pixels that don't count.
        label_smoothing: In [0, 1): the share of the truth that is spread over all classes.

    Raises:
        ValueError: If the weights don't fit the classes, or label_smoothing its range.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            num_classes=num_classes, class_weights=class_weights, ignore_index=ignore_index
        )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing is {label_smoothing}; give a number in [0, 1)")
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        logits, valid = self.prepare(logits, target)
        # PyTorch refuses to sum within the kernel on a GPU under deterministic algorithms.
        apart = torch.are_deterministic_algorithms_enabled()
        total = F.cross_entropy(
            logits,
            target,
            weight=self.class_weights,
            ignore_index=self.ignore_index,
            reduction="none" if apart else "sum",
            label_smoothing=self.label_smoothing,
        ).sum()
        return safe_divide(*self.summed(total, self.pixel_weights(target, valid).sum()))
