"""A step never waits for its device: nothing of it is read back while it runs.

Under `FakeTensorMode` tensors have shapes but no values, so that reading one, or an operation whose
result's shape depends on values, is an error: just what makes a GPU's queue run dry. The steps are
run by Lightning's own loops, with all callbacks of a training.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Tiny
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import Metric

from segpets.build.objects import build_trainer
from segpets.callback import EMA
from segpets.config import compose
from segpets.data.resident import Resident
from segpets.labels import Batch
from segpets.muon import all_orthogonalised
from segpets.run.trust import Trust
from segpets.train import Result
from segpets.train.parts import seeded_parts

WAITS = (DataDependentOutputException, DynamicOutputShapeException)
MODELS = sorted(file.stem for file in (Path(__file__).parents[2] / "conf/model").glob("*.yaml"))
LOSSES = sorted(file.stem for file in (Path(__file__).parents[2] / "conf/loss").glob("*.yaml"))
TINY_MODELS = {"unet": ["model.widths=[4,8]"]}


class EndError(Exception):
    """Enough was seen."""


class Batches:
    """A loader of one batch over and over."""

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * self.count)


class FakesFromTheThirdBatch(Callback):
    """Takes the values away from all tensors of a training, when the first step was read.

    Args:
        mode: Makes tensors without values.
        loaded: The batches of the loaders, which lose theirs, too.
    """

    def __init__(self, mode: FakeTensorMode, loaded: list[Batch]) -> None:
        self.mode, self.loaded = mode, loaded
        self.undo: list[tuple[Any, str, Any]] = []
        self.steps: list[str] = []

    def put(self, table: Any, key: str, value: Any) -> None:
        self.undo.append((table, key, table[key]))
        table[key] = value

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 2:
            others = [c._average_model for c in trainer.callbacks if isinstance(c, EMA)]
            if (distillation := pl_module.distillation) is not None:
                others.append(distillation.teacher)
            self._take([pl_module, *(one for one in others if one is not None)], trainer)
            for one in (*self.loaded, batch):
                one.update({k: self.mode.from_tensor(v) for k, v in one.items() if k != "name"})
            self.mode.__enter__()

    def _take(self, roots: list[nn.Module], trainer: Trainer) -> None:
        fakes: dict[Tensor, Tensor] = {}
        for module in (module for root in roots for module in root.modules()):
            for name, weight in [*module.named_parameters(recurse=False)]:
                fake = nn.Parameter(self.mode.from_tensor(weight.detach()), weight.requires_grad)
                fakes[weight] = fake
                self.put(module._parameters, name, fake)
            for name, buffer in [*module.named_buffers(recurse=False)]:
                self.put(module._buffers, name, self.mode.from_tensor(buffer))
            for name in getattr(module, "_defaults", ()):  # the counts of metrics
                self.put(vars(module), name, self.mode.from_tensor(getattr(module, name)))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                # Else Adam reads its count of steps, which lies on the host whatever the device.
                self.put(group, "fused", True)
                self.put(group, "params", [fakes[weight] for weight in group["params"]])
            for weight, state in [*optimizer.state.items()]:
                optimizer.state[fakes[weight]] = {
                    k: self.mode.from_tensor(v) if isinstance(v, Tensor) else v
                    for k, v in state.items()
                }

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.steps.append("train")

    def on_validation_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.steps.append("val")
        if self.steps.count("val") == 2:
            raise EndError

    def on_exception(self, *args: Any) -> None:
        if self.undo:
            self.mode.__exit__(None, None, None)
        for table, key, value in reversed(self.undo):
            table[key] = value


@contextmanager
def copied() -> Iterator[None]:
    """Lets fake tensors be copied deeply, as torchmetrics does; PyTorch leaves that open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            FakeTensor, "__deepcopy__", lambda one, _: one.detach().clone(), raising=False
        )
        yield


def steps(
    overrides: list[str],
    *,
    extra: list[Callback] | None = None,
    taking: type[FakesFromTheThirdBatch] = FakesFromTheThirdBatch,
    device: str = "cpu",
) -> list[str]:
    """Runs training and validation steps of which all but the first two have no values."""
    seldom = ["trainer.log_every_n_steps=100", "+trainer.val_check_interval=4"]
    cfg = compose([*overrides, *seldom, "callback.pictures.every_n_epochs=1"])
    datamodule, module, _ = seeded_parts(cfg, Trust())
    batch: Batch = next(iter(datamodule.train_dataloader()))
    for key in ("image", "mask", "seed"):
        if key in batch:
            batch[key] = batch[key].to(device)
    plain: Batch = {"image": batch["image"], "mask": batch["mask"], "name": batch["name"]}
    values = {"train_dataloader": Batches(batch, 100), "val_dataloader": Batches(plain, 2)}
    for name, loader in values.items():  # reading files is no part of a device's step
        setattr(datamodule, name, lambda loader=loader: loader)
    last = taking(FakeTensorMode(), [batch, plain])
    trainer = build_trainer(cfg, extra_callbacks=[*(extra or []), last])
    with copied(), pytest.raises(EndError):
        trainer.fit(module, datamodule)
    return last.steps


def without_reading(tmp_path: Path) -> list[str]:
    """The options by which a training on a CPU reads as seldom as one on a GPU."""
    return ["+callback.stop_on_nan.every_n_steps=100", f"hydra.run.dir={tmp_path}/run"]


ALL = ["train"] * 4 + ["val"] * 2


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.slow) for m in MODELS])
def test_no_model_waits(tiny: Tiny, tmp_path: Path, name: str) -> None:
    model = [f"model={name}", *TINY_MODELS.get(name, [])]
    assert steps([*tiny(*model), *without_reading(tmp_path)]) == ALL


PARTS = [
    *([f"loss={name}"] for name in LOSSES),
    *([f"optimizer={name}"] for name in ("muon", "adam", "adamw", "sgd")),
    ["callback=ema"],
    ["callback=early_stopping"],
    ["trainer.gradient_clip_val=1", "trainer.precision=bf16-mixed"],
    ["data.window=32"],
    ["augment=device_crop"],
    ["augment=torchvision"],
    ["scheduler=plateau"],
    ["+trainer.accumulate_grad_batches=2"],
    ["freeze=[down]"],
    ["model.auxiliary=1", "model.widths=[4,8,8]"],
    ["teacher=RUN"],
]


def with_a_teacher(options: list[str], finished: Result) -> list[str]:
    return [option.replace("RUN", str(finished.path)) for option in options]


@pytest.mark.parametrize("options", PARTS, ids=lambda options: options[0])
def test_no_part_of_a_training_waits(
    tiny: Tiny, finished: Result, tmp_path: Path, options: list[str]
) -> None:
    words = tiny(*with_a_teacher(options, finished))
    assert steps([*words, *without_reading(tmp_path)]) == ALL


def test_no_bar_waits(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which without a terminal there is none."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert steps([*tiny(), *without_reading(tmp_path)]) == ALL


def test_no_stack_of_matrices_waits() -> None:
    """As on a GPU, where Muon turns matrices of as many rows together."""
    shapes = [(8, 27), (8, 40), (16, 8), (16, 72)]
    matrices = [torch.randn(shape) for shape in shapes]
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(one) for one in matrices]
        turned = all_orthogonalised(fakes)
    assert [tuple(one.shape) for one in turned] == shapes


def test_no_resident_batch_waits() -> None:
    """As where all pictures lie on the device, and a batch is their numbers."""
    images, masks = torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.zeros(5, 8, 8)
    with FakeTensorMode() as mode:
        resident = Resident(mode.from_tensor(images), mode.from_tensor(masks))
        image, mask = resident.batch(mode.from_tensor(torch.tensor([2, 0, 1])))
    assert image.shape == (3, 3, 8, 8) and mask.shape == (3, 8, 8)


class Copies(TorchDispatchMode):
    """Notes what is copied from one kind of device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = [*args, result] if isinstance(result, Tensor) else list(args)
        kinds = {part.device.type for part in parts if isinstance(part, Tensor) and part.ndim}
        if "copy" in str(func):
            kinds |= {part.device.type for part in parts if isinstance(part, Tensor)}
        if len(kinds) > 1:
            self.seen.append(f"{func} of {kinds}")
        return result


@pytest.mark.parametrize(
    "options",
    [*([f"loss={name}"] for name in LOSSES), ["data.window=32"], ["model.auxiliary=1"]],
    ids=lambda options: options[0],
)
def test_nothing_is_copied_to_the_device(tiny: Tiny, options: list[str]) -> None:
    """A GPU's queue runs dry by a copy, too; the device is one without values."""
    cfg = compose([*tiny(*options), "model.widths=[4,8,8]"])
    _, module, _ = seeded_parts(cfg, Trust())
    module._is_logged = lambda: False  # type: ignore[method-assign]
    device = torch.device("cuda")
    with copied(), FakeTensorMode() as mode:
        for part in module.modules():
            for name, weight in [*part.named_parameters(recurse=False)]:
                fake = torch.empty(weight.shape, device=device)
                part._parameters[name] = nn.Parameter(fake, weight.requires_grad)
            for name, buffer in [*part.named_buffers(recurse=False)]:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
            for name in getattr(part, "_defaults", ()):  # the counts of metrics
                count = getattr(part, name)
                setattr(part, name, torch.empty(count.shape, dtype=count.dtype, device=device))
            if isinstance(part, Metric):
                part._device = device
        image = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device=device)
        batch: Batch = {"image": image, "mask": image[:, 0], "name": ["a", "b"]}
        del mode
        with Copies() as copies, torch.no_grad():
            module.train().training_step(batch, 0)
            module.eval().validation_step(batch, 0)
    assert copies.seen == []


class StrictFromTheThirdBatch(FakesFromTheThirdBatch):
    """Lets CUDA refuse to wait, when the first step was read."""

    def on_train_batch_start(self, *args: Any) -> None:
        if args[3] == 2:
            torch.cuda.set_sync_debug_mode("error")

    def on_exception(self, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_no_model_waits_for_a_gpu(tiny: Tiny, tmp_path: Path, name: str) -> None:
    model = [f"model={name}", *TINY_MODELS.get(name, []), "trainer=gpu", "callback=ema"]
    overrides = [*tiny(*model), "trainer.precision=bf16-mixed", *without_reading(tmp_path)]
    assert steps(overrides, taking=StrictFromTheThirdBatch, device="cuda") == ALL


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", PARTS, ids=lambda options: options[0])
def test_no_part_of_a_training_waits_for_a_gpu(
    tiny: Tiny, finished: Result, tmp_path: Path, options: list[str]
) -> None:
    words = tiny("trainer=gpu", *with_a_teacher(options, finished))
    overrides = [*words, *without_reading(tmp_path)]
    assert steps(overrides, taking=StrictFromTheThirdBatch, device="cuda") == ALL


class Reads(Callback):
    """What this test is for."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any
    ) -> None:
        float(outputs["loss"])


class Selects(Callback):
    """A shape that depends on values."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        batch["mask"][batch["mask"] > 1]


@pytest.mark.parametrize("culprit", [Reads, Selects])
def test_a_callback_that_waits_is_found(
    tiny: Tiny, tmp_path: Path, culprit: type[Callback]
) -> None:
    with pytest.raises(WAITS):
        steps([*tiny(), *without_reading(tmp_path)], extra=[culprit()])
