"""BatchNorm over the images of all processes, on devices for which PyTorch has none.

torch.nn.SyncBatchNorm works on GPUs only. Without this, a training of several processes on CPUs
would be another than that of one process with as many images a step.
"""

from typing import Any

import torch
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributed import is_initialized
from torch.distributed.nn.functional import all_gather


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm by mean and variance of the images of all processes.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing
    sample variances, 1979: how means and variances of parts make those of the whole.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises (B, C, H, W); in evaluation, or in one process, as every BatchNorm."""
        if not self.training or not is_initialized():
            return super().forward(input)
        x = input.float()
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        count = mean.new_full((1,), x.numel() / x.shape[1])
        gathered = all_gather(torch.cat([mean, variance, count]))  # type: ignore[no-untyped-call]
        parts = torch.stack(gathered)  # (processes, 2 C + 1)
        means, variances = parts[:, :-1].chunk(2, dim=1)
        counts = parts[:, -1:]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        self._follow(mean.detach(), variance.detach() * total / (total - 1).clamp(min=1))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return torch.addcmul(shift.view(-1, 1, 1), x, scale.view(-1, 1, 1)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, which evaluation uses."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        part = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance, part)


class SyncOnCPU(LayerSync):
    """Lets the BatchNorms of a net see the images of all processes while it is trained."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Replaces their class; weights and names stay."""
        return _of_class(model, nn.BatchNorm2d, SyncedBatchNorm2d)

    def revert(self, model: nn.Module) -> nn.Module:
        """Puts PyTorch's class back."""
        return _of_class(model, SyncedBatchNorm2d, nn.BatchNorm2d)


def _of_class(model: nn.Module, old: type[Any], new: type[Any]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new
    return model
