"""Stops a run whose loss, gradients or weights are no numbers any more, and says where it began."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

from segpets.errors import UserError
from segpets.run.failed_step import FailedStep
from segpets.run.files import RunFiles

_MOST_IMAGES = 8
_EVERY = 20


class StopOnNaN(Callback):
    """Stops at the first step whose loss or gradient is NaN or infinite, before weights follow it.

    It names the layer and the images, and leaves a note, by which `debug=replay` finds the step.
    On an accelerator, reading a value waits for the device; there it is read every 20 steps. Before
    a checkpoint is written, all weights are looked at, so that each that is there is sound; and so
    is the loss of each validation. A scaler of fp16 skips gradients that are none.

    Args:
        every_n_steps: How often loss and gradients are read; None: at each step on a CPU, every 20
            elsewhere. The last step of an epoch is always read.
    """

    def __init__(self, *, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self._batch: Any = None
        self._number = 0
        self._weights: dict[str, nn.Parameter] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lists the weights, as to walk through all layers takes a while."""
        self._weights = dict(pl_module.named_parameters())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keeps hold of the batch."""
        self._batch, self._number = batch, batch_idx + 1

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Reads the loss."""
        if self._is_due(trainer, pl_module) and not torch.isfinite(loss):
            layer = first_odd_layer(pl_module, self._batch["image"], trainer)
            place = "the loss function" if layer is None else layer
            self._stop(trainer, f"the loss is {loss.item()}", place)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Reads the gradients."""
        if not self._is_due(trainer, pl_module) or _scales(trainer):
            return
        gradients = {k: p.grad for k, p in self._weights.items() if p.grad is not None}
        norms = torch._foreach_norm(list(gradients.values())) if gradients else ()
        if norms and not torch.isfinite(torch.stack(norms)).all():
            odd = [k for k, n in zip(gradients, norms, strict=True) if not torch.isfinite(n)]
            # It runs from the last layer to the first, and what is before the culprit is odd, too.
            self._stop(
                trainer, "a gradient is no number", f"{odd[-1]} (of {len(odd)} such weights)"
            )

    def on_train_batch_end(self, *args: Any) -> None:
        """Lets go of the batch."""
        self._batch = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the loss of the validation."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and not torch.isfinite(loss) and not trainer.sanity_checking:
            odd = _odd_weight(pl_module)
            self._stop(trainer, f"the validation's loss is {loss.item()}", odd)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuses to write weights that are no numbers; the checkpoint of before stays."""
        if (odd := _odd_weight(pl_module)) is not None:
            self._stop(trainer, "a weight is no number", odd)

    def _is_due(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        every = self.every_n_steps or (1 if pl_module.device.type == "cpu" else _EVERY)
        return trainer.global_step % every == 0 or trainer.is_last_batch

    def _stop(self, trainer: Trainer, what: str, layer: str | None) -> None:
        images: list[str] = [] if self._batch is None else list(self._batch["name"])
        step = trainer.global_step + (self._batch is not None)
        epoch = trainer.current_epoch + 1
        note = FailedStep(
            step=step, epoch=epoch, batch=self._number, what=what, layer=layer, images=images
        )
        run = RunFiles(Path(trainer.default_root_dir))
        note.write(run)
        where = f", first in {layer}" if layer else ""
        shown = ", ".join(images[:_MOST_IMAGES])
        more = f" and {len(images) - _MOST_IMAGES} more" if len(images) > _MOST_IMAGES else ""
        of = f", for the images {shown}{more}" if images else ""
        again = f"python -m segpets.train debug=replay run={run.path} runs this step again and "
        raise UserError(
            f"{what} at step {step} (epoch {epoch}){where}{of}. Try a lower optimizer.lr, "
            "trainer.gradient_clip_val=1, trainer.precision=32-true, or another loss. The "
            "checkpoints of before are kept"
            + (f"; {again}looks at each layer" if trainer.world_size == 1 else "")
        )


def first_odd_layer(module: LightningModule, images: Tensor, trainer: Trainer) -> str | None:
    """Finds the first layer that makes of numbers what are none; None if the logits are numbers.

    Args:
        module: The module; its buffers change as in a step.
        images: uint8 (B, 3, H, W).
        trainer: Computes in the run's precision.
    """
    if (odd := _odd_weight(module)) is not None:
        return f"the weight {odd}"
    found: list[str] = []
    with watched(module, lambda name, out: found.append(name) if _is_odd(out) else None):
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            module(images)
    return found[0] if found else None


@contextmanager
def watched(module: nn.Module, see: Any) -> Iterator[None]:
    """Calls `see(name, output)` for each output of a layer without layers of its own."""

    def hook(name: str, layer: nn.Module) -> Any:
        label = f"{name} ({type(layer).__name__})"
        return layer.register_forward_hook(lambda _layer, _args, out: see(label, out))

    leaves = [(n, m) for n, m in module.named_modules() if not [*m.children()]]
    handles = [hook(name, layer) for name, layer in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_odd(value: Any) -> bool:
    return isinstance(value, Tensor) and not bool(torch.isfinite(value).all())


def _odd_weight(module: nn.Module) -> str | None:
    return next((name for name, weight in module.named_parameters() if _is_odd(weight)), None)


def _scales(trainer: Trainer) -> bool:
    plugin = trainer.precision_plugin
    return isinstance(plugin, MixedPrecision) and plugin.scaler is not None
