"""Distillation: a trained model's probabilities as a second truth, softer than the masks.

Distilling the Knowledge in a Neural Network. Geoffrey Hinton, Oriol Vinyals, Jeff Dean, 2015, arXiv
1503.02531. Here for each pixel that counts, as in Structured Knowledge Distillation for Semantic
Segmentation. Yifan Liu et al., 2019, arXiv 1903.04197, section 3.1.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpets.labels import IGNORE_INDEX
from segpets.loss.base import over_processes, safe_divide


class Distillation:
    """A term of the loss: weight T^2 KL(teacher || student), both at the temperature T.

        term = weight T^2 mean_n sum_c q_nc (log q_nc - log p_nc),  q = softmax(teacher / T),
                                                                    p = softmax(student / T)

    It is no module, so that the teacher is in no checkpoint, and stays in evaluation mode.

    Args:
        teacher: Images (B, C, H, W) to logits (B, K, H, W), in evaluation mode.
        weight: Of the term, beside the loss.
        temperature: T; larger ones show more of what the teacher holds for possible.

    Attributes:
        facts: What a summary says of the teacher.

    Raises:
        ValueError: A number isn't positive.
    """

    def __init__(self, teacher: nn.Module, *, weight: float, temperature: float) -> None:
        for name, value in (("weight", weight), ("temperature", temperature)):
            if not 0 < value < float("inf"):
                raise ValueError(f"teacher_{name}={value} must be positive")
        self.teacher = teacher.requires_grad_(False).eval()
        self.weight, self.temperature = weight, temperature
        self.facts: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Distillation":
        """Returns itself, so that the averages of `callback=ema` hold no second teacher."""
        return self

    def to(self, device: torch.device) -> None:
        """Moves the teacher."""
        self.teacher.to(device)

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Returns the teacher's logits of the images that the student sees, (B, K, H, W)."""
        logits: Tensor = self.teacher(image)
        return logits

    def term(self, logits: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """Computes the term.

        Args:
            logits: The student's, (B, K, H, W).
            teacher: The teacher's, (B, K, H, W).
            mask: Class ids, (B, H, W); where it is 255, nothing counts.

        Returns:
            A float32 scalar; 0 without a pixel that counts.
        """
        counts = mask != IGNORE_INDEX  # (B, H, W)
        soft = (teacher.float() / self.temperature).log_softmax(1)
        student = torch.where(counts.unsqueeze(1), logits.float(), 0.0)
        own = (student / self.temperature).log_softmax(1)
        apart = F.kl_div(own, soft, reduction="none", log_target=True).sum(1)
        total, pixels = over_processes(torch.where(counts, apart, 0.0).sum(), counts.sum().float())
        return self.weight * self.temperature**2 * safe_divide(total, pixels)
