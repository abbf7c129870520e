import functools
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segpets.distillation import Distillation
from segpets.labels import Batch
from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.metric import confusion_matrices, summarise
from segpets.module import Preprocess, SegmentationModule
from segpets.scheduler import constant

CLASSES = ("pet", "background", "border")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TinyNet(nn.Module):
    """Sees each pixel by itself, so that an image's logits don't depend on its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        pixels = self.hidden(image.movedim(1, -1)).relu()
        logits: Tensor = self.head(pixels).movedim(-1, 1)
        return logits


def new_module() -> SegmentationModule:
    torch.manual_seed(0)
    return SegmentationModule(
        net=TinyNet(),
        loss=CrossEntropyLoss(num_classes=3),
        preprocess=Preprocess(mean=MEAN, std=STD),
        optimizer=functools.partial(torch.optim.Adam, lr=0.05),
        scheduler=constant,
        classes=CLASSES,
    )


def pictures(count: int = 8, size: int = 32) -> tuple[Tensor, Tensor]:
    """Bright pets on dark ground with a grey border, and a stripe of ignored pixels."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(count, size, size, dtype=torch.uint8)
    mask[:, 6:26, 6:26] = 2
    mask[:, 8:24, 8:24] = 0
    values = torch.tensor([220, 30, 120])[mask.long()].unsqueeze(1)
    noise = torch.randint(-25, 26, (count, 3, size, size), generator=generator)
    mask[:, :, 0] = 255
    return (values + noise).to(torch.uint8), mask


def loader(batch_size: int, count: int = 8) -> DataLoader[Batch]:
    images, masks = (part.split(batch_size) for part in pictures(count))
    batches = [Batch(image=x, mask=y) for x, y in zip(images, masks, strict=True)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def new_trainer(folder: Path, *, max_epochs: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


few_workers = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def test_preprocessing_scales_and_normalises_each_channel() -> None:
    image = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 1).view(2, 3, 16, 16)
    result = Preprocess(mean=MEAN, std=STD)(image)
    expected = torch.stack(
        [(image[:, c].double() / 255 - MEAN[c]) / STD[c] for c in range(3)], dim=1
    )
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-6)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_preprocessing_leaves_nothing_in_a_checkpoint() -> None:
    assert not [name for name in new_module().state_dict() if "preprocess" in name]


@few_workers
def test_training_changes_all_weights_and_learns(tmp_path: Path) -> None:
    module = new_module()
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = new_trainer(tmp_path, max_epochs=25)
    trainer.fit(module, loader(4), loader(4))
    assert all(not torch.equal(value, before[n]) for n, value in module.named_parameters())
    assert trainer.callback_metrics["val/mean_iou"] > 0.95


@few_workers
def test_metrics_are_logged_by_their_names_with_their_values(tmp_path: Path) -> None:
    module, trainer = new_module(), new_trainer(tmp_path)
    trainer.fit(module, loader(4), loader(4))
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    per_class = {f"{s}/{c}" for s in ("iou", "dice", "precision", "recall") for c in CLASSES}
    means = {"pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "soft_iou"}
    means |= {f"mean_{score}" for score in ("iou", "dice", "precision", "recall")}
    assert {name for name in logged if name.startswith("val/")} == {
        f"val/{name}" for name in {"loss", "image_mean_iou"} | means | per_class
    }
    assert {name for name in logged if name.startswith("train/")} == {
        "train/loss",
        "train/pixel_accuracy",
        "train/mean_iou",
    }
    images, masks = pictures()
    with torch.no_grad():
        logits = module.eval()(images)
        loss = nn.functional.cross_entropy(logits, masks.long(), ignore_index=255)
    confusion = confusion_matrices(logits.argmax(1), masks, 3).sum(0)
    for name, value in summarise(confusion, CLASSES).items():
        assert logged[f"val/{name}"] == pytest.approx(value, abs=1e-6), name
    assert logged["val/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.equal(module.confusion("val"), confusion)


@few_workers
def test_validation_and_test_metrics_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    module, trainer = new_module(), new_trainer(tmp_path)
    trainer.fit(module, loader(4), loader(4))
    results = []
    for batch_size in (1, 3, 4, 8):
        [val] = trainer.validate(module, loader(batch_size), verbose=False)
        [test] = trainer.test(module, loader(batch_size), verbose=False)
        losses = [val.pop("val/loss"), test.pop("test/loss")]
        assert losses == pytest.approx([losses[0]] * 2)
        assert {f"test/{k.removeprefix('val/')}": v for k, v in val.items()} == test
        results.append(val)
    assert all(result == results[0] for result in results)


def test_a_step_leaves_predictions_and_counts_of_each_image() -> None:
    images, masks = pictures(3)
    module = new_module()
    counted = module._count("val", module(images).detach(), masks)
    preds = module(images).argmax(1)
    assert torch.equal(counted["preds"], preds.to(torch.uint8))
    assert torch.equal(counted["confusion"], confusion_matrices(preds, masks, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_equal_logits_the_first_is_predicted_and_of_nan_the_nan(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (2, 3, 16, 16), generator=generator).to(dtype)
    logits[0, 2, :4] = torch.nan
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    for layout in (torch.contiguous_format, torch.channels_last):
        counted = new_module()._count("val", logits.contiguous(memory_format=layout), masks)
        assert torch.equal(counted["preds"], logits.argmax(1).to(torch.uint8))


class ThreeOutputs(TinyNet):
    """Its logits, and in training the same at half and at a quarter of the size."""

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        if not self.training:
            return logits
        return [logits, logits[..., ::2, ::2], logits[..., ::4, ::4]]  # type: ignore[return-value]


def test_further_outputs_add_their_mean_loss() -> None:
    module = new_module()
    module.net, module.aux_weight = ThreeOutputs(), 0.3
    images, masks = pictures()
    plain, half, quarter = module.net.train()(module.preprocess(images))
    expected = module.loss(plain, masks.long())
    for other in (half, quarter):
        large = nn.functional.interpolate(other, size=(32, 32), mode="bilinear")
        expected = expected + 0.3 / 2 * module.loss(large, masks.long())
    logits, loss = module.losses(images, masks)
    torch.testing.assert_close(loss, expected)
    assert torch.equal(logits, plain)
    assert isinstance(module.net.eval()(module.preprocess(images)), Tensor)


class Watched(TinyNet):
    """A teacher that remembers what it was shown, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = list[Tensor]()
        self.modes = list[bool]()

    def forward(self, image: Tensor) -> Tensor:
        self.shown.append(image.clone())
        self.modes.append(self.training)
        return super().forward(image.float())


class Noisy(LightningDataModule):
    """Augments batches where the training computes, as `augment=device` does."""

    def train_dataloader(self) -> DataLoader[Batch]:
        return loader(4)

    def val_dataloader(self) -> DataLoader[Batch]:
        return loader(4)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(image=torch.randint_like(batch["image"], 256), mask=batch["mask"])


def test_a_teacher_sees_what_its_student_sees_and_stays_in_evaluation_mode(tmp_path: Path) -> None:
    module, teacher = new_module(), Watched()
    module.distillation = Distillation(teacher, weight=1.0, temperature=1.0)
    before = [weight.clone() for weight in teacher.parameters()]
    seen = list[Tensor]()

    def see(preprocess: nn.Module, given: tuple[Tensor]) -> None:
        if preprocess.training:
            seen.append(given[0].clone())

    module.preprocess.register_forward_pre_hook(see)
    new_trainer(tmp_path, max_epochs=2).fit(module, Noisy())
    assert len(seen) == len(teacher.shown) == 4
    assert all(torch.equal(one, other) for one, other in zip(seen, teacher.shown, strict=True))
    assert not torch.equal(seen[0], pictures()[0][:4]), "augmented"
    assert teacher.modes == [False] * 4
    assert all(map(torch.equal, before, teacher.parameters()))
    assert not any("distillation" in name for name in module.state_dict())


def test_what_is_frozen_is_in_evaluation_mode_from_the_first_step_on() -> None:
    """Also where a run goes on in the middle of an epoch, which then has no start."""
    module = new_module()
    module.net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    module.frozen = ("1",)
    module.freeze_weights()
    module.train()
    batch = Batch(image=torch.zeros(1), mask=torch.zeros(1), name=[])
    module.on_train_batch_start(batch, 5)
    assert not module.net[1].training and module.net[0].training
