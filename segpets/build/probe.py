"""Tries nets and losses before a training begins, so that it doesn't stop at its first step."""

import copy
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from segpets.errors import UserError, out_of_memory
from segpets.labels import IGNORE_INDEX

_SIZE: Final = 8


def try_loss(loss: Callable[..., Any], *, classes: int, size: tuple[int, int]) -> None:
    """Gives a loss random logits, and checks that it can be trained with.

    The random state stays as it is. A few pixels are enough; if they are too few for the loss, as
    many as the data have are tried.

    Args:
        loss: (logits (B, C, H, W), int64 (B, H, W)) to a scalar.
        classes: C.
        size: Height and width of the data's images.

    Raises:
        UserError: It raises an exception, or gives no scalar with a gradient for the logits.
    """
    name = _name(loss)
    try:
        tried = copy.deepcopy(loss)  # it may count its calls, or average over them
    except Exception:  # what it holds can't be copied, such as a generator
        tried = loss
    with isolate_rng(include_cuda=False):
        torch.manual_seed(0)
        try:
            try:
                problem = _problem(tried, classes, (_SIZE, _SIZE))
            except Exception:
                problem = _problem(tried, classes, size)
        except UserError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            if torch.cuda.is_available() and "same device" in str(error):
                return  # it holds tensors of the GPU's, so here it can't be tried
            raise UserError(
                f"the loss {name} fails for logits (2, {classes}, {size[0]}, {size[1]}) and class "
                f"ids (2, {size[0]}, {size[1]}): {words(error, loss)}. Its forward takes the "
                "logits first"
            ) from error
    if problem:
        raise UserError(f"the loss {name} {problem}")


def _problem(loss: Callable[..., Any], classes: int, size: tuple[int, int]) -> str | None:
    logits = torch.randn(2, classes, *size, requires_grad=True)
    target = torch.randint(classes, (2, *size))
    target[:, 0] = IGNORE_INDEX
    value = loss(logits, target)
    if not isinstance(value, Tensor):
        return f"gives a {type(value).__name__}, but should give a tensor with one number"
    if value.ndim or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        return (
            f"gives a tensor of shape {tuple(value.shape)} and type {kind}, but should give one "
            "floating-point number: end with .mean() over the pixels that aren't "
            f"{IGNORE_INDEX}"
        )
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
        if gradient is not None:
            return None
    return (
        "gives a number without a gradient for the logits, so nothing can be learnt from it: "
        "argmax, comparisons, .item(), .detach() and NumPy cut the gradient off"
    )


def words(error: Exception, subject: Any) -> str:
    """Gives an exception's message, and the line of a net's or a loss's file where it arose."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if (own := _file(subject)) is None or own.is_relative_to(Path(__file__).parent):
        return text if isinstance(error, ValueError) else f"{kind}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == own]
    place = f" ({own.name}, line {lines[-1]})" if lines else ""
    return f"{kind}: {text}{place}"


def _name(subject: Any) -> str:
    kind = _class(subject)
    return f"{kind.__module__}.{kind.__qualname__}"


def _class(subject: Any) -> Any:
    """Returns the class of a module; a function, partial or not, stands for itself."""
    function = getattr(subject, "func", subject)
    return function if inspect.isfunction(function) else type(function)


def _file(subject: Any) -> Path | None:
    try:
        return Path(inspect.getfile(_class(subject)))
    except (TypeError, OSError):
        return None
