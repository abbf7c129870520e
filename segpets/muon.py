"""Muon: steps whose matrices are made orthogonal, for convolutions and linear layers."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from segpets.hardware import fastest_precision, one_thread_each

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the iteration, as K. Jordan chose them
_ITERATIONS: Final = 5
_GATHERED: Final = 3, 2  # of them; four at once give tiny singular values a size of their own
_LARGE, _WIDE = 128, 4  # rows, and columns by rows, from where that is faster; see docs/LOG.md
_FEW_ZEROS: Final = 1 << 20
_RMS: Final = 0.2  # of a step, as it is of AdamW's


class Muon(Optimizer):
    """Muon for weights that are matrices, AdamW for the rest.

    The momentum of a matrix is replaced by the nearest matrix whose singular values are all about
    one, so that a step changes a layer's output alike in all directions. K. Jordan et al., "Muon:
    An optimizer for hidden layers in neural networks", 2024. A convolution's weight is the matrix
    of its outputs by its inputs and taps, as there; one that has a single input for each output
    (depthwise), like biases, norms and positions, is none. Steps are scaled to
    the size of AdamW's, so that both share a rate and a decay: J. Liu et al., "Muon is scalable
    for LLM training", 2025, arXiv 2502.16982. `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`
    does the same to weights of two dimensions.

    Args:
        params: Weights, or groups of them.
        lr: The rate of both.
        momentum: Of the matrices, Nesterov's: the share of the last steps in the next.
        betas: AdamW's, of the other weights.
        eps: AdamW's.
        weight_decay: Decoupled from the gradient, multiplied by the rate; of both.
        fused: Whether AdamW runs as one kernel.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 5e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
        *,
        fused: bool | None = None,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("eps", eps)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; give a number >= 0")
        for name, value in (("momentum", momentum), ("betas", betas[0]), ("betas", betas[1])):
            if not 0.0 <= value < 1:
                raise ValueError(f"{name} has {value}; give a number in [0, 1)")
        defaults = {
            **{"lr": lr, "momentum": momentum, "betas": tuple(betas), "eps": eps},
            **{"weight_decay": weight_decay, "fused": fused},
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Makes a step; `closure`, if there is one, computes loss and gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if matrices := [*filter(is_matrix, weights)]:
                self._turn(matrices, group)
            self._step_of_adamw([weight for weight in weights if not is_matrix(weight)], group)
        return loss

    def _turn(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Steps by the orthogonal parts of the matrices' momenta.

        On a CPU most matrices are too small for several threads: each gets one, beside others.
        """
        if weights[0].device.type != "cpu":
            self._turn_together(weights, group)
            return
        large, small = _by_work(weights, torch.get_num_threads())
        for weight in large:
            self._turn_together([weight], group)
        one_thread_each(lambda weight: self._turn_together([weight], group), small)

    @torch.no_grad()  # which isn't said to other threads
    def _turn_together(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {"momentum_buffer": torch.zeros_like(weight)}
        means = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])
        orders = [_order(weight) for weight in weights]
        steps = all_orthogonalised(
            [one.permute(order).flatten(1) for one, order in zip(ahead, orders, strict=True)]
        )
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        for weight, order, step in zip(weights, orders, steps, strict=True):
            size = _RMS * math.sqrt(max(step.shape))
            inner = weight.permute(order)
            inner.add_(step.reshape(inner.shape), alpha=-group["lr"] * size)

    def _step_of_adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), device=weight.device if group["fused"] else None),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        beta1, beta2 = group["betas"]
        if weights:
            adamw(
                weights,
                [weight.grad for weight in weights if weight.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=group["fused"],
                amsgrad=False,
                maximize=False,
                beta1=beta1,
                beta2=beta2,
                **{key: group[key] for key in ("lr", "weight_decay", "eps")},
            )


def is_matrix(weight: Tensor) -> bool:
    """Tells whether a weight is a linear layer's or a convolution's, of several inputs each.

    Positions of tokens, (H, W, D) or (1, N, D), aren't.
    """
    return weight.ndim != 3 and weight.ndim >= 2 and weight.shape[0] > 1 and weight.shape[1] > 1


def _order(weight: Tensor) -> tuple[int, ...]:
    """Tells how a weight's dimensions lie in memory; the order of a matrix's columns is free."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        return 0, 2, 3, 1
    return (*range(weight.ndim),)


def _by_work(weights: Sequence[Tensor], threads: int) -> tuple[list[Tensor], list[Tensor]]:
    """Parts those that alone take longer than the rest on the other threads; most work first."""
    work = {weight: weight.numel() * min(weight.flatten(1).shape) for weight in weights}
    small, left = sorted(weights, key=lambda weight: -work[weight]), sum(work.values())
    large = []
    while small and work[small[0]] * threads > left:
        left -= work[small[0]]
        large.append(small.pop(0))
    return large, small


def all_orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Does what `orthogonalised` does to each, with few launches.

    Those with as many rows (or columns, if these are fewer) and of similar length are done
    together, with zeros beside the shorter ones, which changes nothing.

    Args:
        matrices: Of any shapes, on one device.
    """
    if len(matrices) == 1:
        return [orthogonalised(matrices[0])]
    wide = [m.mT if m.shape[0] > m.shape[1] else m for m in matrices]
    turned = [*matrices]
    for group in _alike(wide):
        rows, longest = wide[group[0]].shape
        together = wide[group[0]].new_zeros(len(group), rows, longest)
        for one, place in zip(together, group, strict=True):
            one[:, : wide[place].shape[1]] = wide[place]
        for one, place in zip(orthogonalised(together), group, strict=True):
            one = one[:, : wide[place].shape[1]]
            turned[place] = one if one.shape == matrices[place].shape else one.mT
    return turned


def _alike(wide: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yields the places of matrices of as many rows, the longest first.

    Zeros beside the shorter ones take no more than what is there, or four megabytes.
    """
    places = sorted(range(len(wide)), key=lambda place: (wide[place].shape, place), reverse=True)
    while places:
        rows, longest = wide[places[0]].shape
        group, held = [places.pop(0)], rows * longest
        while places and len(wide[places[0]]) == rows:
            more = held + wide[places[0]].numel()
            zeros = (len(group) + 1) * rows * longest - more
            if zeros > max(more, _FEW_ZEROS):
                break
            group, held = [*group, places.pop(0)], more
        yield group


def orthogonalised(matrix: Tensor) -> Tensor:
    """Computes about U V^T of a matrix U S V^T, by an iteration of Newton and Schulz.

    Five rounds of a polynomial of odd degree bring all but tiny singular values into 0.7 to 1.2.
    They run in bfloat16 where the hardware multiplies in it. Of large matrices that are much wider
    than high, or higher than wide, rounds are gathered into one factor.

    Args:
        matrix: (rows, columns), or a stack of such.

    Returns:
        The same shape and type.
    """
    turned = matrix.to(_fast_type(matrix.device.type))
    tall = turned.shape[-2] > turned.shape[-1]
    turned = turned.mT if tall else turned
    turned = turned / turned.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    multiply = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    rows, columns = turned.shape[-2:]
    if rows >= _LARGE and columns >= _WIDE * rows:
        for rounds in _GATHERED:
            turned = _gathered(turned @ turned.mT, rounds, multiply) @ turned
    else:
        for _ in range(_ITERATIONS):
            gram = turned @ turned.mT
            change = multiply(gram, gram, gram, beta=_B, alpha=_C)
            turned = multiply(turned, change, turned, beta=_A)
    return (turned.mT if tall else turned).to(matrix.dtype)


def _gathered(gram: Tensor, rounds: int, multiply: Callable[..., Tensor]) -> Tensor:
    """Computes what some rounds multiply X by, from G = XX^T.

    One round multiplies X by F = aI + bG + cGG, and so G by FF, as all of them commute. That takes
    products of rows by rows only, but what rounding adds to G grows from round to round.
    """
    product = _A * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for left in reversed(range(rounds)):
        change = multiply(gram, gram, gram, beta=_B, alpha=_C)
        first = left == rounds - 1
        product = product + change if first else multiply(product, change, product, beta=_A)
        if left:
            half = multiply(gram, change, gram, beta=_A)
            gram = multiply(half, half, change, beta=_A)
    return product


@functools.cache
def _fast_type(device: str) -> torch.dtype:
    return torch.bfloat16 if fastest_precision(device).startswith("bf16") else torch.float32
