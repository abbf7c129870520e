from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from pet_folder import PetFolder
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from segpets.augment.none import NoAugment
from segpets.augment.torchvision import TorchvisionAugment
from segpets.build.objects import build_data
from segpets.config import compose, register_resolvers
from segpets.data import OxfordPets, SegmentationDataModule
from segpets.data.batches import EpochSampler, collate
from segpets.errors import UserError
from segpets.labels import Item

CONF = Path(__file__).parents[2] / "conf"
SIZE = 64
Batches = list[tuple[list[str], torch.Tensor, torch.Tensor]]


def strong() -> Any:
    register_resolvers()
    cfg = {
        "data": {"size": SIZE},
        "augment": OmegaConf.load(CONF / "augment/torchvision_strong.yaml"),
    }
    return instantiate(OmegaConf.create(cfg).augment)


@pytest.fixture
def module(pets: PetFolder) -> Callable[..., SegmentationDataModule]:
    """module(batch_size=2) has read the made data set."""

    def make(*, split: str = "holdout", **changed: Any) -> SegmentationDataModule:
        options: dict[str, Any] = {
            "augment": strong(),
            "size": SIZE,
            "batch_size": 4,
            "num_workers": 0,
            "run_seed": 1,
        }
        source = OxfordPets(root=pets.root, split=split)
        datamodule = SegmentationDataModule(source=source, **(options | changed))
        datamodule.setup()
        return datamodule

    return make


def epoch_of(loader: DataLoader[Item], epoch: int) -> Batches:
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(epoch)
    return [(batch["name"], batch["image"], batch["mask"]) for batch in loader]


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )


# the order


def order(sampler: EpochSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    pairs = list(sampler)
    assert len(pairs) == len(sampler)
    assert {e for e, _ in pairs} <= {epoch}
    return [index for _, index in pairs]


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide() -> None:
    sampler = EpochSampler(length=100, seed=7, shuffle=True)
    orders = [order(sampler, epoch) for epoch in range(5)]
    assert all(sorted(one) == list(range(100)) for one in orders)
    assert len({tuple(one) for one in orders}) == 5
    # a new sampler asked for epoch 3 at once, as after a resume
    assert order(EpochSampler(length=100, seed=7, shuffle=True), 3) == orders[3]
    assert order(EpochSampler(length=100, seed=8, shuffle=True), 3) != orders[3]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("length", [12, 13])
def test_processes_share_an_epoch_without_overlap(world: int, length: int) -> None:
    def shares(shuffle: bool) -> list[list[int]]:
        return [
            order(EpochSampler(length=length, seed=7, shuffle=shuffle, rank=rank, world=world), 2)
            for rank in range(world)
        ]

    alone = order(EpochSampler(length=length, seed=7, shuffle=True), 2)
    steps = list(zip(*shares(True), strict=True))  # as many for each process
    # together the processes see what one alone would see, and in its order
    assert [index for step in steps for index in step] == alone[: length // world * world]
    assert sorted(index for share in shares(False) for index in share) == list(range(length))


# batches


def test_batches_are_the_same_with_any_number_of_workers(
    module: Callable[..., SegmentationDataModule],
) -> None:
    expected = [epoch_of(module().train_dataloader(), epoch) for epoch in range(2)]
    assert len(expected[0]) == 27 // 4
    assert not same(expected[0], expected[1])
    for workers in (1, 2):
        loader = module(num_workers=workers).train_dataloader()
        assert loader.persistent_workers  # which must hear of the second epoch
        assert same(epoch_of(loader, 0), expected[0])
        assert same(epoch_of(loader, 1), expected[1])


def test_order_and_augmentation_follow_the_run_seed(
    module: Callable[..., SegmentationDataModule],
) -> None:
    one, again, other = (
        epoch_of(module(run_seed=seed).train_dataloader(), 0) for seed in (1, 1, 2)
    )
    assert same(one, again)
    assert [names for names, _, _ in one] != [names for names, _, _ in other]
    images = [
        {n: i for names, x, _ in e for n, i in zip(names, x, strict=True)} for e in (one, other)
    ]
    common = images[0].keys() & images[1].keys()
    assert len(common) >= 20
    assert not any(torch.equal(images[0][name], images[1][name]) for name in common)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_random_stream_of_dropout_alone(
    module: Callable[..., SegmentationDataModule], workers: int
) -> None:
    datamodule = module(num_workers=workers)
    before = torch.get_rng_state()
    train, val = datamodule.train_dataloader(), datamodule.val_dataloader()
    for epoch in range(2):
        epoch_of(train, epoch)
        epoch_of(val, epoch)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_keep_the_contract(module: Callable[..., SegmentationDataModule]) -> None:
    datamodule = module(num_workers=0)
    seen = []
    for loader in (datamodule.train_dataloader(), datamodule.val_dataloader()):
        for names, image, mask in epoch_of(loader, 0):
            assert image.shape == (len(names), 3, SIZE, SIZE)
            assert mask.shape == (len(names), SIZE, SIZE)
            assert image.dtype == mask.dtype == torch.uint8
            assert set(mask.unique().tolist()) <= {0, 1, 2, 255}
            seen += names
    assert len(seen) == len(set(seen)) == 24 + 3


def test_evaluation_shows_every_image_once_in_order_untouched(
    module: Callable[..., SegmentationDataModule], pets: PetFolder
) -> None:
    datamodule = module(batch_size=4)
    for epoch in range(2):
        batches = epoch_of(datamodule.test_dataloader(), epoch)
        assert [name for names, _, _ in batches for name in names] == pets.names("test")
        for names, images, masks in batches:
            for name, image, mask in zip(names, images, masks, strict=True):
                assert torch.equal(image, datamodule.pixels.of(name)[0])
                assert torch.equal(mask, datamodule.pixels.of(name)[1])


def test_augmenting_leaves_the_kept_pixels_alone(
    module: Callable[..., SegmentationDataModule],
) -> None:
    datamodule = module()
    name = datamodule.splits.train[0].name
    before = [kept.clone() for kept in datamodule.pixels.of(name)]
    epoch_of(datamodule.train_dataloader(), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, datamodule.pixels.of(name), strict=True))


def test_article_augments_validation_anew_each_epoch_but_never_the_test(
    module: Callable[..., SegmentationDataModule],
) -> None:
    datamodule = module(split="article")
    val, test = datamodule.val_dataloader(), datamodule.test_dataloader()
    assert not same(epoch_of(val, 0), epoch_of(val, 1))
    assert same(epoch_of(test, 0), epoch_of(test, 1))
    assert [n for n, _, _ in epoch_of(val, 0)] == [n for n, _, _ in epoch_of(test, 0)]


def test_overfit_serves_the_same_few_images_to_all_stages_unaugmented(
    module: Callable[..., SegmentationDataModule],
) -> None:
    datamodule = module(overfit=4)
    train, val, test = (
        {
            n: x
            for names, images, _ in epoch_of(loader, 3)
            for n, x in zip(names, images, strict=True)
        }
        for loader in (
            datamodule.train_dataloader(),
            datamodule.val_dataloader(),
            datamodule.test_dataloader(),
        )
    )
    assert len(train) == 4
    assert train.keys() == val.keys() == test.keys()
    assert all(torch.equal(train[name], datamodule.pixels.of(name)[0]) for name in train)


# what can't work


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.size=16", "data.size=16 must be a whole number of at least 32"),
        ("data.size=abc", "data.size=abc must be a whole number of at least 32"),
        ("data.size=64.5", "data.size=64.5 must be a whole number of at least 32"),
        (
            "data.size=[64,16]",
            "data.size=[64, 16] must be a whole number of at least 32, or a list of",
        ),
        ("data.batch_size=0", "data.batch_size=0 must be a whole number of at least 1"),
        ("data.batch_size=abc", "data.batch_size=abc must be a whole number of at least 1"),
        ("data.batch_size=true", "data.batch_size=True must be a whole number of at least 1"),
        ("data.num_workers=-1", "data.num_workers=-1 must be a whole number of at least 0"),
        ("data.overfit=0", "data.overfit=0 must be a whole number of at least 1"),
        ("data.seed=-1", "data.seed=-1 must be a whole number of at least 0"),
        ("data.split=random", "data.split=random is unknown: choose holdout or article"),
    ],
)
def test_a_value_out_of_range_is_named_by_its_key(override: str, words: str) -> None:
    cfg = compose([override, "augment=none"])
    with pytest.raises(UserError) as caught:
        build_data(cfg)
    assert words in str(caught.value)


def test_a_batch_larger_than_the_training_set_is_all_of_it(
    module: Callable[..., SegmentationDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    for batch_size in (27, 28, 1000):
        datamodule = module(batch_size=batch_size)
        (batch,) = datamodule.train_dataloader()
        assert len(batch["name"]) == 27
    assert "data.batch_size=1000 is larger than the 27 training images" in caplog.text


def test_a_batch_larger_than_the_share_of_a_process(
    module: Callable[..., SegmentationDataModule],
) -> None:
    for batch_size, fits in ((13, True), (14, False)):  # of 27 images, each of two trains on 13
        datamodule = module(batch_size=batch_size)
        loop = Trainer(logger=False, enable_checkpointing=False).fit_loop
        datamodule.trainer = SimpleNamespace(  # type: ignore[assignment]
            global_rank=1, world_size=2, fit_loop=loop
        )
        if fits:
            assert len(epoch_of(datamodule.train_dataloader(), 0)) == 1
            continue
        with pytest.raises(UserError, match=r"batch_size=14.*the 13 training.*each of the 2"):
            datamodule.train_dataloader()


def test_a_split_that_leaves_nothing_to_validate_on(tmp_path: Path) -> None:
    pets = PetFolder(tmp_path / "single", trainval=1)
    datamodule = SegmentationDataModule(
        source=OxfordPets(root=pets.root),
        augment=NoAugment(),
        size=SIZE,
        batch_size=1,
        num_workers=0,
        run_seed=1,
    )
    with pytest.raises(UserError, match=r"the val split is empty.*data\.split or data\.root"):
        datamodule.setup()


def test_images_of_different_sizes_make_no_batch() -> None:
    def items(*sizes: int) -> Sequence[Item]:
        return [
            Item(
                image=torch.zeros(3, size, size, dtype=torch.uint8),
                mask=torch.zeros(size, size, dtype=torch.uint8),
                name=f"x_{size}",
            )
            for size in sizes
        ]

    assert collate(items(40, 40))["image"].shape == (2, 3, 40, 40)
    with pytest.raises(UserError, match=r"augment\.transforms.*\(40, 40\) and \(48, 48\)"):
        collate(items(48, 40))


# ids


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_masks_with_an_id_that_is_no_class_are_refused_once(
    module: Callable[..., SegmentationDataModule], cache: str
) -> None:
    module(classes=["pet", "background", "border"], cache=cache)
    with pytest.raises(
        UserError,
        match=r"trimaps.*\.png holds the class id 2, but data\.classes has 2 classes, with ids "
        r"from 0 to 1; 35 more masks do: name all classes",
    ):
        module(classes=["pet", "background"], cache=cache)


class FillsWithSeven:
    """An augmentation with a mistake."""

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor, *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return image, torch.full_like(mask, 7)


def test_an_augmentation_that_makes_other_ids_is_refused(
    module: Callable[..., SegmentationDataModule],
) -> None:
    datamodule = module(classes=["pet", "background", "border"], augment=FillsWithSeven())
    with pytest.raises(UserError, match="augment makes a mask that holds the class id 7, but"):
        next(iter(datamodule.train_dataloader()))


def test_an_augmentation_that_fails_is_named_with_its_image(
    module: Callable[..., SegmentationDataModule],
) -> None:
    blur = TorchvisionAugment(transforms=[v2.GaussianBlur(255)])
    datamodule = module(classes=["pet", "background", "border"], augment=blur)
    with pytest.raises(
        UserError, match=r"augment fails at \w+_\d+, of 64x64 pixels \(\w+: .*Padding size"
    ):
        next(iter(datamodule.train_dataloader()))
