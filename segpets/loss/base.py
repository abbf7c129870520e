"""Parts shared by all losses: checks, the mask of pixels that count, weights and soft counts.

The rules are the same for all losses:

- A pixel whose target is `ignore_index` changes neither the value nor the gradient, whatever its
  logits are, NaN included. A batch in which nothing counts has the loss 0 and the gradient 0.
- Arithmetic is float32, also under bf16 autocast, whose softmax and sums would stay in bf16.
- A mean is a weighted mean, sum(w * value) / sum(w), so only ratios of class weights matter.
- Several processes that train together have one loss, that of all their batches as one: what is
  summed over a batch goes through `summed`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size, is_initialized
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F

from segpets.labels import IGNORE_INDEX

AUTO: Final = "auto"
"""The word for weights by the training's pixels."""


class SegmentationLoss(nn.Module, ABC):
    """A scalar that says how far logits are from the true classes.

    Args:
        num_classes: C, the number of channels of the logits.
        class_weights: One number >= 0 for each class; each loss documents what it weighs. None
            stands for ones; `auto` for those that `weigh` is given before the training.
        ignore_index: The target value of pixels that don't count.

    Raises:
        ValueError: If the weights don't fit the classes.
    """

    class_weights: Tensor

    def __init__(
        self,
        *,
        num_classes: int,
        class_weights: Sequence[float] | str | None = None,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"loss.num_classes is {num_classes}; a softmax needs at least 2 classes: "
                "name the background in data.classes, too"
            )
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        # The config holds the weights; a copy in the checkpoint could only contradict it.
        self.register_buffer("class_weights", torch.ones(num_classes), persistent=False)
        self.chosen_weights: Sequence[float] | str | None = None
        self.choose_weights(class_weights)

    @property
    def wants_weights(self) -> bool:
        """True with `class_weights=auto`, until and after `weigh` has set them."""
        return self.chosen_weights == AUTO

    def choose_weights(self, class_weights: Sequence[float] | str | None) -> None:
        """Sets `class_weights`, as the constructor does.

        Raises:
            ValueError: If the weights don't fit the classes.
        """
        self.chosen_weights = class_weights
        if class_weights is None or class_weights == AUTO:
            return
        kind = "loss.class_weights is"
        if isinstance(class_weights, str | Mapping) or not all(map(_is_number, class_weights)):
            given = dict(class_weights) if isinstance(class_weights, Mapping) else class_weights
            raise ValueError(
                f"{kind} {given}; give auto, null, or a list of a number for each class"
            )
        weights = torch.tensor([float(weight) for weight in class_weights])
        if len(weights) != self.num_classes:
            raise ValueError(
                f"loss.class_weights has {len(weights)} values, "
                f"but the data has {self.num_classes} classes"
            )
        if not (weights.isfinite() & (weights >= 0)).all() or not weights.any():
            raise ValueError(
                f"{kind} {weights.tolist()}; "
                "give finite numbers >= 0, at least one of them positive"
            )
        self.class_weights.copy_(weights)

    def weigh(self, weights: Sequence[float]) -> None:
        """Sets the weights of the classes, for `class_weights=auto`."""
        self.class_weights.copy_(torch.tensor([*weights]))

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            logits: (B, C, H, W), any floating type.
            target: (B, H, W), int64 class ids and `ignore_index`.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: If the shapes don't fit.
        """

    def prepare(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check the shapes and cut ignored pixels off.

        Returns:
            The logits in float32, 0 where ignored, and the mask (B, H, W) of pixels that count.
        """
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"the logits have shape {tuple(logits.shape)}, but the loss expects "
                f"(B, {self.num_classes}, H, W): model.num_classes and loss.num_classes must agree"
            )
        if target.shape != (logits.shape[0], *logits.shape[2:]):
            raise ValueError(
                f"the target has shape {tuple(target.shape)}, "
                f"but the logits have shape {tuple(logits.shape)}: expected (B, H, W)"
            )
        valid = target != self.ignore_index
        # Multiplying by 0 would let NaN through; where() stops it, backwards too.
        return torch.where(valid.unsqueeze(1), logits.float(), 0.0), valid

    def summed(self, *sums: Tensor) -> tuple[Tensor, ...]:
        """Return sums over the batch; in training, over those of all processes together.

        The processes evaluate unequal numbers of batches, each by itself.
        """
        return over_processes(*sums) if self.training else sums

    def pixel_weights(self, target: Tensor, valid: Tensor) -> Tensor:
        """Return the weight of each pixel's true class, 0 where ignored: (B, H, W)."""
        return torch.where(valid, self.class_weights[torch.where(valid, target, 0)], 0.0)

    def soft_counts(
        self, logits: Tensor, target: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Count pixels by class, the prediction by its probabilities p = softmax(logits).

        Args:
            logits: (B, C, H, W), as `prepare` returns them.
            target: (B, H, W).
            valid: (B, H, W), as `prepare` returns it.

        Returns:
            For each image and class, (B, C): sum(p * t), sum(p) and sum(t), where t is the
            one-hot truth.
        """
        classes = torch.arange(self.num_classes, device=target.device).view(1, -1, 1, 1)
        valid = valid.unsqueeze(1)  # (B, 1, H, W)
        true = (target.unsqueeze(1) == classes) & valid  # (B, C, H, W), bool
        probs = logits.softmax(1)
        overlap = (probs * true).sum((2, 3))
        predicted = (probs * valid).sum((2, 3))
        return overlap, predicted, true.sum((2, 3), dtype=probs.dtype)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def weighted_parts(loss: nn.Module) -> list[SegmentationLoss]:
    """Lists the parts of a loss, or itself, that want weights by the training's pixels."""
    parts = [part for part in loss.modules() if isinstance(part, SegmentationLoss)]
    return [part for part in parts if part.wants_weights]


def balanced(pixels: Sequence[int]) -> list[float]:
    """Computes weights of classes from their pixels: 1 / ln(1.02 + p), as ENet does.

    ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation. Adam Paszke,
    Abhishek Chaurasia, Sangpil Kim, Eugenio Culurciello, 2016, arXiv 1606.02147.

    Args:
        pixels: How many pixels of the training each class has.

    Returns:
        Weights with the mean 1; 0 for a class without a pixel.
    """
    total = max(sum(pixels), 1)
    weights = [1 / math.log(1.02 + count / total) if count else 0.0 for count in pixels]
    there = sum(weight > 0 for weight in weights)
    return [weight * there / sum(weights) if weight else 0.0 for weight in weights]


def softened(target: Tensor, valid: Tensor, classes: int, sigma: float) -> Tensor:
    """Blurs the one-hot truth, so that at an edge between classes both are true in part.

    Annotators draw an edge a pixel further in or out. Boundary label smoothing in Z. Wang et al.,
    "Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels", NeurIPS 2023, arXiv
    2302.05666.

    Args:
        target: Class ids, (B, H, W).
        valid: The pixels that count, bool (B, H, W); others lend nothing to their neighbours.
        classes: C.
        sigma: The standard deviation of the blur in pixels; 0 leaves the truth as it is.

    Returns:
        The parts of each class, float32 (B, C, H, W), which sum to 1; 0 where ignored.
    """
    ids = torch.arange(classes, device=target.device).view(1, -1, 1, 1)
    counts = valid.unsqueeze(1)
    truth = ((target.unsqueeze(1) == ids) & counts).float()
    if sigma == 0:
        return truth
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, device=target.device, dtype=torch.float32)
    kernel = (-(places**2) / (2 * sigma**2)).exp()
    planes = torch.cat([truth, counts.float()], dim=1)
    groups = planes.shape[1]
    with torch.autocast(planes.device.type, enabled=False):
        for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
            weight = kernel.view(shape).expand(groups, 1, *kernel.view(shape).shape[2:])
            planes = F.conv2d(planes, weight, padding="same", groups=groups)
    soft: Tensor = planes[:, :-1] / planes[:, -1:].clamp(min=1e-6)
    return torch.where(counts, soft, 0.0)


def over_processes(*sums: Tensor) -> tuple[Tensor, ...]:
    """Add sums up over the processes that train together, so that their batches are one."""
    if not is_initialized() or get_world_size() == 1:
        return sums
    flat = torch.cat([one.float().flatten() for one in sums])
    total: Tensor = all_reduce(flat)  # type: ignore[no-untyped-call]
    parts = torch.split(total, [one.numel() for one in sums])
    return tuple(part.view(one.shape) for part, one in zip(parts, sums, strict=True))


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide, with value 0 and gradient 0 where the denominator is 0."""
    nonzero = denominator != 0  # true for NaN, which must reach the result
    return torch.where(nonzero, numerator / torch.where(nonzero, denominator, 1.0), 0.0)
