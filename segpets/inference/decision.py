"""Weights of the classes by which a decision serves a metric other than pixel accuracy.

The largest probability is the best guess of a pixel. IoU doesn't count pixels alike: a pixel gained
for a rare class is worth more. For a metric that is a ratio of counts the best decision compares
weighted probabilities: S. Nowozin, "Optimal Decisions from Probabilistic Models: the
Intersection-over-Union Case", CVPR 2014; O. Koyejo et al., "Consistent Binary Classification with
Generalized Performance Metrics", NeurIPS 2014.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from segpets.errors import UserError
from segpets.inference.trained import Segmenter, Trained


class Decided(nn.Module):
    """Adds the logarithm of each class's weight to the logits of a net.

    Args:
        net: float (B, C, H, W) to logits (B, K, H, W).
        weights: Those of the K classes.
    """

    bias: Tensor

    def __init__(self, net: nn.Module, weights: Sequence[float]) -> None:
        super().__init__()
        self.net, self.stride = net, int(getattr(net, "stride", 1))
        self.register_buffer("bias", as_bias(weights).view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, C, H, W) to logits (B, K, H, W)."""
        logits: Tensor = self.net(image) + self.bias
        return logits


def as_bias(weights: Sequence[float]) -> Tensor:
    """Returns what weights add to logits, float32 (K,)."""
    return torch.tensor([math.log(weight) for weight in weights])


def check_weights(weights: Sequence[float], classes: Sequence[str]) -> None:
    """Refuses weights that don't fit the classes.

    Raises:
        UserError: There is another number of them, or one isn't positive.
    """
    if len(weights) != len(classes):
        raise UserError(
            f"decide has {len(weights)} weights, but the model has {len(classes)} classes: give "
            f"one for each of {', '.join(classes)}"
        )
    if any(not 0 < weight < math.inf for weight in weights):
        raise UserError(f"decide={list(weights)} must hold positive numbers")


def deciding(trained: Trained, weights: Sequence[float] | None) -> Trained:
    """Returns a model whose logits carry the weights of the classes; the same one without any.

    Raises:
        UserError: They don't fit its classes.
    """
    if weights is None:
        return trained
    check_weights(weights, trained.classes)
    segmenter = trained.segmenter
    net = Decided(segmenter.net, weights).to(trained.device).eval()
    segmenter = Segmenter(net, segmenter.preprocess).eval()
    return replace(trained, segmenter=segmenter, decide=tuple(weights))
