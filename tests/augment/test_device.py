"""Whole batches are augmented as torchvision augments each image, with numbers of their own."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Tiny, Train
from lightning.pytorch import Callback, LightningModule, Trainer
from scipy import stats
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from segpets.augment.device import DeviceAugment
from segpets.augment.work import Work, hashed
from segpets.build.instantiate import build
from segpets.build.objects import build_data, build_module, build_trainer
from segpets.config import compose
from segpets.data.batches import EpochSampler
from segpets.data.resident import resident
from segpets.errors import UserError
from segpets.labels import IGNORE_INDEX

BILINEAR, NEAREST_EXACT = InterpolationMode.BILINEAR, InterpolationMode.NEAREST_EXACT


def pictures(count: int = 6, height: int = 40, width: int = 56) -> tuple[Tensor, Tensor]:
    """Smooth pictures and masks with an ignored rim."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    images = (60 + 130 * smooth.clamp(0, 1)).to(torch.uint8)
    masks = (smooth[:, 0] * 3).clamp(0, 2).to(torch.uint8)
    masks[:, :2] = IGNORE_INDEX
    return images, masks


def batch_of(*transforms: v2.Transform, count: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images, masks = pictures(count)
    seeds = torch.arange(count) * 7919
    return (images, masks, *DeviceAugment(transforms=transforms).batch(images, masks, seeds))


def work(count: int = 6) -> Work:
    images, masks = pictures(count)
    return Work(images, masks, torch.arange(count))


# random numbers


def splitmix(seed: int, counter: int) -> int:
    """SplitMix64 as it is printed, with Python's numbers."""
    x = (seed + (counter + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return (x ^ (x >> 31)) >> 40


def test_numbers_are_those_of_splitmix() -> None:
    seeds = torch.tensor([0, 1, 2**32 - 1, 2**63 - 1, -5])
    found = hashed(seeds[:, None], torch.arange(4))
    expected = [[splitmix(seed, counter) for counter in range(4)] for seed in seeds.tolist()]
    assert found.tolist() == expected


def test_numbers_are_uniform_and_independent() -> None:
    images, masks = torch.zeros(20_000, 1, 1, 1), torch.zeros(20_000, 1, 1)
    numbers = Work(images, masks, torch.arange(20_000)).uniform(-1, 3, count=3)
    assert numbers.min() >= -1 and numbers.max() < 3
    for column in numbers.T:
        assert stats.kstest((column.numpy() + 1) / 4, "uniform").pvalue > 1e-3
    assert numbers.T.corrcoef().fill_diagonal_(0).abs().max() < 0.03


def test_an_image_is_the_same_in_any_batch() -> None:
    images, masks = pictures()
    augment = DeviceAugment(transforms=[v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3, 0.3)])
    whole, whole_masks = augment.batch(images, masks, torch.arange(6))
    for index in range(6):
        alone, mask = augment(images[index], masks[index], seed=index)
        assert torch.equal(alone, whole[index]) and torch.equal(mask, whole_masks[index])


# geometry


@pytest.mark.parametrize(
    ("kind", "axis"), [(v2.RandomHorizontalFlip, -1), (v2.RandomVerticalFlip, -2)]
)
def test_flips_are_exact(kind: Any, axis: int) -> None:
    images, masks, found, found_masks = batch_of(kind(p=0.5), count=64)
    turned = [torch.equal(a, b.flip(axis)) for a, b in zip(found, images, strict=True)]
    assert 20 < sum(turned) < 44
    for index, flipped in enumerate(turned):
        expected = (images[index], masks[index])
        if flipped:
            expected = (images[index].flip(axis), masks[index].flip(axis))
        assert torch.equal(found[index], expected[0])
        assert torch.equal(found_masks[index], expected[1])


@pytest.mark.parametrize(
    ("angle", "translate", "scale"),
    [(30.0, (0, 0), 1.0), (-12.0, (5, -3), 1.0), (0.0, (4, 7), 1.0), (17.0, (-6, 2), 0.8)],
)
def test_an_affine_map_is_torchvisions(
    angle: float, translate: tuple[int, int], scale: float
) -> None:
    images, masks = pictures(1)
    given = v2.RandomAffine(degrees=(angle, angle), scale=(scale, scale), interpolation=BILINEAR)
    given.translate = (translate[0] / 56, translate[1] / 40)
    augment = DeviceAugment(transforms=[given])
    with pytest.MonkeyPatch.context() as patch:  # the largest translation
        patch.setattr(Work, "uniform", lambda *limits: torch.tensor([[limits[-1]]]))
        found, found_mask = augment.batch(images, masks, torch.zeros(1, dtype=torch.int64))
    expected = F.affine(
        tv_tensors.Image(images), angle, list(translate), scale, [0.0, 0.0], interpolation=BILINEAR
    )
    mask = F.affine(
        tv_tensors.Mask(masks), angle, list(translate), scale, [0.0, 0.0], fill=IGNORE_INDEX
    )
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found_mask != mask).float().mean() < 0.005  # ties of rounding


def test_a_crop_is_torchvisions_away_from_its_edge() -> None:
    images, masks = pictures(1)
    given = v2.RandomResizedCrop((48, 64), scale=(0.3, 0.6), antialias=False)
    for seed in range(10):
        numbers = Work(images, masks, torch.tensor([seed]))
        augment = DeviceAugment(transforms=[given])
        found, found_mask = augment.batch(images, masks, torch.tensor([seed]))
        area = numbers.uniform(0.3, 0.6, count=10)[0] * 40 * 56
        ratio = numbers.uniform(math.log(3 / 4), math.log(4 / 3), count=10)[0].exp()
        sides = zip((area / ratio).sqrt().round(), (area * ratio).sqrt().round(), strict=True)
        height, width = next((int(h), int(w)) for h, w in sides if h <= 40 and w <= 56)
        x, y = numbers.uniform(count=2)[0].tolist()
        box = (int(y * (40 - height + 1)), int(x * (56 - width + 1)), height, width)
        expected = F.resized_crop(tv_tensors.Image(images), *box, [48, 64], antialias=False)
        mask = F.resize(F.crop(masks, *box), [48, 64], interpolation=NEAREST_EXACT)
        inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
        assert (found[inner].int() - expected[inner].int()).abs().max() <= 1
        assert (found_mask != mask).float().mean() < 0.02


def test_what_comes_from_outside_is_black_and_ignored() -> None:
    _, _, found, found_masks = batch_of(
        v2.RandomAffine(degrees=(0, 0), translate=(0.5, 0.5), interpolation=BILINEAR), count=20
    )
    outside = (found == 0).all(1)
    assert outside.float().mean() > 0.1
    assert (found_masks[outside] == IGNORE_INDEX).all()


# colours


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_one_change_of_colours_is_torchvisions(name: str, factor: float, floats: bool) -> None:
    images, _ = pictures()
    images = images / 255 if floats else images
    one = torch.ones(6, 1)
    batch = Work(images, pictures()[1], torch.arange(6))
    factors = {"brightness": one, "contrast": one, "saturation": one} | {name: factor * one}
    batch.jitter(**factors)
    expected = torch.stack([getattr(F, f"adjust_{name}")(image, factor) for image in images])
    if floats:
        torch.testing.assert_close(batch.images, expected, atol=1e-5, rtol=0)
    else:
        differ = (batch.images.int() - expected.int()).abs()
        assert differ.max() <= 1 and (differ > 0).float().mean() < 0.01


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_changes_together_are_torchvisions_in_any_order(order: tuple[int, ...]) -> None:
    images, masks = pictures()
    images = images.float() / 255  # nothing is rounded, and nothing reaches black or white
    batch = Work(images, masks, torch.arange(6))
    factors = {"brightness": 0.9, "contrast": 1.2, "saturation": 0.8}
    batch.jitter(*(torch.full((6, 1), factor) for factor in factors.values()))
    expected = images
    for name in (list(factors)[index] for index in order):
        expected = torch.stack([getattr(F, f"adjust_{name}")(x, factors[name]) for x in expected])
    torch.testing.assert_close(batch.images, expected, atol=2e-4, rtol=0)


def test_factors_are_distributed_as_asked() -> None:
    images = torch.full((4000, 1, 1, 1), 0.5)
    augment = DeviceAugment(transforms=[v2.ColorJitter(brightness=0.3)])
    found, _ = augment.batch(images, torch.zeros(4000, 1, 1), torch.arange(4000))
    factors = (found.flatten() / 0.5).numpy()
    assert stats.kstest((factors - 0.7) / 0.6, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_a_blur_is_torchvisions(sigma: float) -> None:
    images, _, found, _ = batch_of(v2.GaussianBlur((5, 3), sigma=(sigma, sigma)))
    expected = F.gaussian_blur(images, [5, 3], [sigma, sigma])
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_blur_whose_kernel_is_larger_than_the_pictures_is_refused() -> None:
    images, masks = torch.zeros(1, 3, 9, 12, dtype=torch.uint8), torch.zeros(1, 9, 12).byte()
    fits, too_large = (DeviceAugment(transforms=[v2.GaussianBlur((17, k))]) for k in (17, 19))
    assert fits(images[0], masks[0], seed=1)[0].shape == (3, 9, 12)
    with pytest.raises(UserError, match="kernel of 17x19 pixels is too large for images of 12x9"):
        too_large(images[0], masks[0], seed=1)


def test_perhaps_chooses_images() -> None:
    jitter = v2.ColorJitter(brightness=(0.5, 0.5))
    images, _, found, _ = batch_of(v2.RandomApply([jitter], p=0.3), count=200)
    changed = (found != images).flatten(1).any(1)
    assert 35 < int(changed.sum()) < 85
    assert torch.equal(found[changed], (images[changed] * 0.5).to(torch.uint8))


def test_crops_that_shrink_are_not_antialiased_and_must_say_so() -> None:
    """Which torchvision does unless told otherwise."""
    images, masks = torch.zeros(2, 3, 40, 56, dtype=torch.uint8), torch.zeros(2, 40, 56)
    shrinks = DeviceAugment(transforms=[v2.RandomResizedCrop((32, 56))])
    with pytest.raises(ValueError, match=r"no antialiasing of crops that shrink: .*transforms\[0"):
        shrinks.batch(images, masks.to(torch.uint8), torch.arange(2))
    grows = DeviceAugment(transforms=[v2.RandomResizedCrop((40, 56))])
    assert grows.batch(images, masks.to(torch.uint8), torch.arange(2))[0].shape == images.shape


def test_nothing_waits_for_the_device() -> None:
    """Reading a value is an error here, and so is a shape that depends on one."""
    transforms = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine((-15, 15), (0.1, 0.1), (0.75, 1.25), interpolation=BILINEAR),
        v2.RandomResizedCrop((32, 32), antialias=False),
        v2.ColorJitter(0.3, 0.3, 0.3),
        v2.RandomApply([v2.GaussianBlur(5)]),
    ]
    augment = DeviceAugment(transforms=transforms)
    with FakeTensorMode():
        images, masks = torch.zeros(4, 3, 40, 56, dtype=torch.uint8), torch.zeros(4, 40, 56)
        found, found_masks = augment.batch(images, masks.to(torch.uint8), torch.arange(4))
    assert found.shape == (4, 3, 32, 32) and found_masks.shape == (4, 32, 32)


# what it hasn't


class Darker(v2.ColorJitter):  # type: ignore[misc]  # torchvision has no types
    """Somebody's own, which isn't what it is derived from."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Halves."""
        return inpt // 2


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (v2.RandomPosterize(4), "no RandomPosterize"),
        (v2.ColorJitter(hue=0.1), "no ColorJitter with hue"),
        (v2.RandomAffine(10, shear=5), "no RandomAffine with shear"),
        (v2.RandomAffine(10), "RandomAffine by bilinear interpolation only"),
        (
            v2.RandomAffine(10, interpolation=v2.InterpolationMode.BILINEAR, fill=99),
            "RandomAffine with fill=0 only",
        ),
        (Darker(0.3), "no test_device.Darker"),
        (v2.RandomApply([v2.RandomInvert()]), r"no RandomInvert \(augment.transforms\[0\].transf"),
    ],
)
def test_what_it_has_not_is_named_with_the_backend_that_has_it(
    transform: v2.Transform, words: str
) -> None:
    with pytest.raises(ValueError, match=rf"device_crop\) has {words}.*augment=torchvision"):
        DeviceAugment(transforms=[transform])


def test_pictures_of_their_own_sizes_are_augmented_one_by_one(train_tiny: Train) -> None:
    """With the values that a batch of one gives."""
    seen = Sees()
    result = train_tiny("augment=device", "data.fit=shorter", "data.batch_size=1", callbacks=[seen])
    dataset = result.datamodule.dataset("train")
    transforms = [v2.RandomHorizontalFlip(0.5), v2.ColorJitter(0.3, 0.3, 0.3)]
    augment = DeviceAugment(transforms=transforms)
    assert len(seen.images) >= len(dataset)
    order = EpochSampler(length=len(dataset), seed=1, shuffle=True)
    for key, image in zip(order, seen.images, strict=False):
        pair = dataset.pixels[int(dataset.rows[key[1]])]
        expected, _ = augment(*pair, seed=dataset.seed_of(key))
        assert torch.equal(image[0], expected)


# in a training


def test_a_crop_keeps_the_size_and_nearly_the_shape_of_its_picture() -> None:
    across = torch.linspace(0, 1, 160).expand(48, 160)
    down = torch.linspace(0, 1, 48)[:, None].expand(48, 160)
    images = torch.stack([across, down, down])[None].repeat(64, 1, 1, 1)
    masks = torch.zeros(64, 48, 160, dtype=torch.uint8)
    options = {"scale": (0.4, 0.9), "ratio": (0.8, 1.25), "antialias": False}
    crop = v2.RandomResizedCrop(1, **options)
    augment = DeviceAugment(transforms=[crop], keep_size=True)
    cut, _ = augment.batch(images, masks, torch.arange(64))
    assert cut.shape == images.shape
    wide = cut[:, 0].amax((1, 2)) - cut[:, 0].amin((1, 2))  # the shares of width and height
    high = cut[:, 1].amax((1, 2)) - cut[:, 1].amin((1, 2))
    assert ((wide / high > 0.75) & (wide / high < 1.33)).all()
    assert (wide * high > 0.35).all() and (wide * high < 0.95).all()
    assert (wide / high).std() > 0.05 and (wide * high).std() > 0.05
    plain = DeviceAugment(transforms=[v2.RandomResizedCrop(32, **options)])
    assert plain.batch(images, masks, torch.arange(64))[0].shape == (64, 3, 32, 32)
    inner = v2.RandomApply([v2.RandomResizedCrop(32, **options)])
    with pytest.raises(ValueError, match=r"not to \[32, 32\]: .*augment.keep_size=false"):
        DeviceAugment(transforms=[inner], keep_size=True)
    with pytest.raises(ValueError, match="their own size, which is 1: give one"):
        DeviceAugment(transforms=[v2.RandomApply([crop])])


def test_a_crop_at_the_edge_has_no_rim() -> None:
    """What lies beyond the outermost pixels is as they are, as torchvision's resize has it."""
    images = torch.full((64, 3, 40, 56), 255, dtype=torch.uint8)
    masks = torch.ones(64, 40, 56, dtype=torch.uint8)
    flip = v2.RandomHorizontalFlip(0.5)
    crop = v2.RandomResizedCrop((48, 64), scale=(0.3, 1.0), antialias=False)
    seeds = torch.arange(64)
    cut = DeviceAugment(transforms=[flip, crop]).batch(images, masks, seeds)
    assert (cut[0] == 255).all() and (cut[1] == 1).all()
    turned = DeviceAugment(transforms=[v2.RandomAffine(20, interpolation=BILINEAR), crop]).batch(
        images, masks, seeds
    )
    assert (turned[0] == 0).any() and (turned[1] == IGNORE_INDEX).any(), "outside is black"


def test_the_default_trains_on_pictures_of_their_own_sizes_without_stretching(
    tiny: Tiny,
) -> None:
    data = build_data(compose(tiny("data.fit=shorter")))
    data.setup()
    seen = [item["image"].shape[1:] for item in map(data.dataset("train").__getitem__, KEYS)]
    stored = [data.pixels[int(row)][0].shape[1:] for row in data.dataset("train").rows[:8]]
    assert seen == stored and data.augment is not None


KEYS = [(3, index) for index in range(8)]


class Sees(Callback):
    """Notes what the net is trained on."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.val: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.images.append(batch["image"].clone())

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *args: Any
    ) -> None:
        self.val.append(batch["image"].clone())


def test_a_training_sees_augmented_images_and_validates_on_plain_ones(
    train_tiny: Train, tiny: Tiny
) -> None:
    sees = Sees()
    options = ["augment=device", "trainer.max_epochs=2", "data.batch_size=15"]
    result = train_tiny(*options, callbacks=[sees])
    data = build_data(compose(tiny(*options)))
    data.setup()
    loader = data.train_dataloader()
    for epoch, seen in enumerate(sees.images):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        (batch,) = loader
        assert data.augment.batch(batch["image"], batch["mask"], batch["seed"])[0].equal(seen)  # type: ignore[attr-defined]
        assert not batch["image"].equal(seen)
    assert not sees.images[0].equal(sees.images[1])
    plain = next(iter(data.val_dataloader()))
    assert sees.val[0].equal(plain["image"])
    assert "test/mean_iou" in result.metrics


def test_pixels_that_lie_on_the_device_are_those_that_are_sent_by_the_batch(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there, sent = Sees(), Sees()
    for sees, on_device in ((there, True), (sent, False)):
        options = ["augment=device", "data.batch_size=4", f"hydra.run.dir={tmp_path / 'run'}"]
        cfg = compose(tiny(*options))
        data, module = build_data(cfg), build_module(cfg, build(cfg.model, "model"))
        data.setup()
        if on_device:  # a CPU doesn't copy what it can read from the cache
            data._resident = resident(data.dataset("train"), torch.device("cpu"))
        build_trainer(cfg, extra_callbacks=[sees]).fit(module, datamodule=data)
    assert len(there.images) == len(sent.images) == 6
    for one, other in zip(there.images, sent.images, strict=True):
        assert one.equal(other)
    monkeypatch.setattr("segpets.data.resident.SHARE", 0)
    with caplog.at_level("INFO"):
        assert resident(data.dataset("train"), torch.device("cpu")) is None
    assert "cpu has" in caplog.text and "they are sent batch by batch" in caplog.text
