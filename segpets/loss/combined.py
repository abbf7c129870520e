"""A weighted sum of losses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segpets.loss.base import SegmentationLoss


class CombinedLoss(nn.Module):
    """loss = sum_k weights[k] * losses[k](logits, target).

    Each loss keeps its own class weights and its own reduction; the sum isn't divided by the
    weights.

    Args:
        losses: Name to loss.
        weights: Name to a number >= 0, under the same names.
        class_weights: For those of the losses that have none of their own.

    Raises:
        ValueError: If the names differ, or a weight is negative, or none is positive.
    """

    def __init__(
        self,
        *,
        losses: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        class_weights: Sequence[float] | str | None = None,
    ) -> None:
        super().__init__()
        for name in losses.keys() - weights.keys():
            raise ValueError(f"loss.losses.{name} has no weight: set loss.weights.{name}")
        for name in weights.keys() - losses.keys():
            raise ValueError(
                f"loss.weights.{name} has no loss: set loss.losses.{name}, or remove the weight"
            )
        if any(not 0 <= weight < float("inf") for weight in weights.values()) or not any(
            weights.values()
        ):
            raise ValueError(
                f"loss.weights is {dict(weights)}; "
                "give finite numbers >= 0, at least one of them positive"
            )
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: float(weights[name]) for name in losses}
        for part in self.modules():
            if isinstance(part, SegmentationLoss) and part.chosen_weights is None:
                part.choose_weights(class_weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits (B, C, H, W) with class ids (B, H, W)."""
        terms = [self.weights[name] * loss(logits, target) for name, loss in self.losses.items()]
        return torch.stack(terms).sum()
