"""Loss and BatchNorm of two processes are those of one that has the images of both."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segpets.build.batch_norm import SyncOnCPU
from segpets.distillation import Distillation
from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.loss.dice import DiceLoss
from segpets.loss.focal import FocalLoss
from segpets.loss.jaccard import JaccardLoss
from segpets.loss.soft_iou import SoftIoULoss
from segpets.loss.tversky import TverskyLoss

WEIGHTS = [1.0, 0.5, 2.0]


class Taught(nn.Module):
    """The term of a teacher that doubts the second class everywhere."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        term = Distillation(nn.Identity(), weight=0.7, temperature=3.0)
        said = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1).expand_as(logits)
        return term.term(logits, said, target)


LOSSES = {
    "cross_entropy": CrossEntropyLoss(num_classes=3, class_weights=WEIGHTS),
    "dice": DiceLoss(num_classes=3, class_weights=WEIGHTS),
    "focal": FocalLoss(num_classes=3, class_weights=WEIGHTS),
    "soft_iou": SoftIoULoss(num_classes=3),
    "soft_iou_by_class": SoftIoULoss(num_classes=3, per_class=True, log=False),
    "tversky": TverskyLoss(num_classes=3),
    "jaccard": JaccardLoss(num_classes=3, class_weights=WEIGHTS, edge_sigma=1.0),
    "distillation": Taught(),
}


def batch() -> tuple[Tensor, Tensor]:
    """Four images, of which the first half has more ignored pixels and other classes."""
    torch.manual_seed(5)
    image, mask = torch.randn(4, 2, 6, 5), torch.randint(0, 3, (4, 6, 5))
    mask[:2, :3] = 255
    mask[2:][mask[2:] == 2] = 1
    return image, mask


def net() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))


def trained(name: str, model: nn.Module, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The loss, its gradients and BatchNorm's running statistics after a step."""
    loss = LOSSES[name].train()(model(image), mask)
    loss.backward()
    found = {"loss": loss.detach()} | {k: p.grad for k, p in model.named_parameters()}
    return found | dict(model.named_buffers())  # type: ignore[arg-type]


def _train_a_share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    image, mask = batch()
    share = slice(0, 1) if rank == 0 else slice(1, 4)  # unequal ones
    for name in LOSSES:
        model = SyncOnCPU().apply(net())
        found = trained(name, nn.parallel.DistributedDataParallel(model), image[share], mask[share])
        found = {key.removeprefix("module."): value for key, value in found.items()}
        model = SyncOnCPU().revert(model)
        assert type(model[1]) is nn.BatchNorm2d  # type: ignore[index]
        torch.save(found, f"{folder}/{name}-{rank}.pt")
        by_itself = LOSSES[name].eval()(torch.ones(1, 3, 2, 2), torch.full((1, 2, 2), rank))
        assert by_itself.isfinite(), "an evaluation waits for nobody"
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_loss_gradient_and_statistics_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_a_share, args=(str(tmp_path),), nprocs=2)
    for name in LOSSES:
        expected = trained(name, net(), *batch())
        for rank in range(2):
            found = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, msg=f"{name}: {key}")
