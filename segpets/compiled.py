"""Net and loss of a training step by torch.compile."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from segpets.errors import UserError

log = logging.getLogger(__name__)


def wants_compile(choice: object) -> bool:
    """Decides whether a training is compiled.

    `auto` compiles where that was measured to win, which so far is nowhere: on CPUs a step took
    between 0.97 and 1.17 times as long, after a minute of compiling, and on GPUs nobody has
    measured it. See docs/PERFORMANCE.md.

    Args:
        choice: The key `trainer.compile`.

    Raises:
        UserError: It is none of the choices.
    """
    if not isinstance(choice, bool) and choice != "auto":  # 1 isn't true
        raise UserError(f"trainer.compile={choice}: give auto, true or false")
    return choice is True


class Compiled:
    """A function that runs compiled, or as it is where it can't be compiled.

    Shapes are static, so arguments of another shape, as where pictures keep sizes of their own, run
    as they are. Compiled code is kept in PyTorch's cache, which all trainings of a user share.

    Args:
        function: What it does.
        graphs: Whether a GPU replays it as CUDA graphs. Their memory is used anew by the next call,
            so gradients that several calls add up mustn't lie there.
    """

    def __init__(self, function: Callable[..., Any], *, graphs: bool = True) -> None:
        # Takes a second, which trainings that aren't compiled needn't wait for.
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        self._refusals = (TorchDynamoException, InductorError)
        self.function = function
        mode = "reduce-overhead" if graphs and torch.cuda.is_available() else None
        self._compiled: Callable[..., Any] | None = torch.compile(
            function, dynamic=False, mode=mode
        )
        self._shape: torch.Size | None = None
        self._told = False

    @property
    def works(self) -> bool:
        """Tells whether it runs compiled, as far as it has been called."""
        return self._compiled is not None

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> Any:
        """Runs it; the first call compiles, which takes a minute or so."""
        if self._compiled is None:
            return self.function(image, mask)
        if self._shape not in (None, image.shape):
            self._tell_of(image.shape)
            return self.function(image, mask)
        try:
            with _backward_at_once() if self._shape is None else nullcontext():
                result = self._compiled(image, mask)
        except self._refusals as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            log.warning(
                "trainer.compile: this machine can't compile the step (%s: %s): it runs as it is",
                type(error).__name__,
                reason.strip().rstrip("."),
            )
            log.debug("the traceback", exc_info=error)
            self._compiled = None
            return self.function(image, mask)
        self._shape = image.shape
        return result

    def _tell_of(self, shape: torch.Size) -> None:
        if not self._told and self._shape is not None:
            self._told = True
            log.warning(
                "trainer.compile: batches have several shapes, %s and %s among them: only the "
                "first runs compiled",
                *(f"{height}x{width}" for height, width in (self._shape[-2:], shape[-2:])),
            )


@contextmanager
def _backward_at_once() -> Iterator[None]:
    """Has the backward pass compiled with the forward pass, so that both are refused here."""
    from torch._functorch import config

    name = "force_non_lazy_backward_lowering"
    if not hasattr(config, name):  # of an early PyTorch
        yield
        return
    with config.patch({name: True}):
        yield
