"""What every conf/augment/*.yaml promises."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.functional import max_pool2d
from torch.utils.data import DataLoader, Dataset

from segpets.config import register_resolvers
from segpets.labels import IGNORE_INDEX

CONF = Path(__file__).parents[2] / "conf" / "augment"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
RANDOM = [name for name in NAMES if name not in ("none", "flip")]
SIZE = 64
register_resolvers()
PHOTOMETRIC = {"ColorJitter", "GaussianBlur", "RandomApply"}
"""Transforms that leave every pixel where it is. (The shipped RandomApply hold such.)"""


def load(name: str) -> DictConfig:
    config = OmegaConf.create({"augment": OmegaConf.load(CONF / f"{name}.yaml")})
    config.data = {"size": SIZE, "crop": None}
    return config.augment


def instantiate(name: str) -> Any:
    return hydra.utils.instantiate(load(name))


def pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and a mask of blocks of the classes 0, 1 and 2 with one block to ignore."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    blocks = torch.randint(3, (4, 4), dtype=torch.uint8, generator=generator)
    blocks[0, 0] = IGNORE_INDEX
    return image, blocks.repeat_interleave(SIZE // 4, 0).repeat_interleave(SIZE // 4, 1)


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def disturb_global_streams(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """One augmentation, with the index as the seed."""

    def __init__(self, augment: Any) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.augment(*pair(), seed=index)
        return image, mask


class Together(Dataset[list[tuple[Tensor, Tensor]]]):
    """All augmentations in one data set, to start the workers once."""

    def __init__(self) -> None:
        self.parts = [Augmented(instantiate(name)) for name in NAMES]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: int) -> list[tuple[Tensor, Tensor]]:
        return [part[index] for part in self.parts]


@pytest.mark.parametrize("name", NAMES)
def test_returns_a_pair_of_the_same_kind(name: str) -> None:
    augment = instantiate(name)
    for seed in range(20):
        image, mask = augment(*pair(), seed=seed)
        assert type(image) is type(mask) is Tensor
        assert image.dtype == mask.dtype == torch.uint8
        assert image.shape == (3, SIZE, SIZE)
        assert mask.shape == (SIZE, SIZE)
        assert image.is_contiguous() and mask.is_contiguous()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_pair_whatever_the_global_streams_hold(name: str) -> None:
    augment = instantiate(name)
    expected = [augment(*pair(), seed=seed) for seed in range(10)]
    another = instantiate(name)
    for seed in reversed(range(10)):
        disturb_global_streams(seed + 100)
        assert same(another(*pair(), seed=seed), expected[seed])


@pytest.mark.parametrize("name", NAMES)
def test_global_streams_go_on_as_if_nothing_had_happened(name: str) -> None:
    augment = instantiate(name)
    disturb_global_streams(7)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    disturb_global_streams(7)
    for seed in range(10):
        augment(*pair(), seed=seed)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


@pytest.mark.parametrize("name", RANDOM)
def test_different_seeds_give_different_pairs(name: str) -> None:
    augment = instantiate(name)
    # Also seeds that agree in their lower 32 bits, as (epoch << 32) + index would.
    seeds = [*range(10), *(epoch << 32 for epoch in range(1, 10))]
    images = {augment(*pair(), seed=seed)[0].numpy().tobytes() for seed in seeds}
    # One pair may coincide: of two flips and a close contrast, rounding can make the same pixels.
    assert len(images) >= len(seeds) - 1


def test_none_changes_nothing() -> None:
    assert same(instantiate("none")(*pair(), seed=3), pair())


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are_and_share_no_memory_with_the_results(name: str) -> None:
    augment = instantiate(name)
    inputs = pair()
    for seed in range(10):
        for result in augment(*inputs, seed=seed):
            result.zero_()
        assert same(inputs, pair())


@pytest.mark.parametrize("name", NAMES)
def test_a_view_on_a_cache_in_another_memory_order_gives_the_same_pair(name: str) -> None:
    augment = instantiate(name)
    image, mask = pair()
    channels_last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    transposed = mask.T.contiguous().T
    for seed in range(5):
        assert same(augment(channels_last, transposed, seed=seed), augment(image, mask, seed=seed))


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_gets_no_values_that_it_did_not_have_but_255(name: str) -> None:
    augment = instantiate(name)
    image, mask = pair()
    mask = torch.where(mask == 1, 7, mask)  # interpolating between 0 and 7 would give others
    for seed in range(30):
        assert set(augment(image, mask, seed=seed)[1].unique().tolist()) <= {0, 2, 7, IGNORE_INDEX}


def keep_spatial(name: str) -> Any:
    config = load(name)
    if "transforms" in config:
        config.transforms = [
            transform
            for transform in config.transforms
            if transform["_target_"].rpartition(".")[2] not in PHOTOMETRIC
        ]
    return hydra.utils.instantiate(config)


def far_from_borders(mask: Tensor) -> Tensor:
    """Where colours aren't mixed with those of another class, seen or just outside: bool (H, W)."""
    classes = mask[None, None].float()
    uniform = (max_pool2d(classes, 7, 1, 3) == -max_pool2d(-classes, 7, 1, 3))[0, 0]
    frame = torch.zeros_like(uniform)
    frame[3:-3, 3:-3] = True
    return uniform & frame


@pytest.mark.parametrize("name", NAMES)
def test_image_and_mask_move_together(name: str) -> None:
    _, mask = pair()
    mask[mask == IGNORE_INDEX] = 0
    image = (60 * (mask + 1)).expand(3, -1, -1)  # class c is grey 60 (c + 1); outside is 0
    augment = keep_spatial(name)
    for seed in range(30):
        moved_image, moved_mask = augment(image, mask, seed=seed)
        seen = (moved_image[0].int() + 30) // 60 - 1
        seen[seen < 0] = IGNORE_INDEX
        inside = far_from_borders(moved_mask)
        assert inside.float().mean() > 0.2
        assert torch.equal(seen[inside], moved_mask.int()[inside])


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_strong")])
def test_what_comes_in_from_outside_is_black_and_ignored(name: str) -> None:
    image = torch.full((3, SIZE, SIZE), 200, dtype=torch.uint8)
    mask = torch.ones(SIZE, SIZE, dtype=torch.uint8)
    augment = keep_spatial(name)
    outside = 0
    for seed in range(30):
        moved_image, moved_mask = augment(image, mask, seed=seed)
        assert set(moved_mask.unique().tolist()) <= {1, IGNORE_INDEX}
        inside = far_from_borders(moved_mask)
        black = moved_mask == IGNORE_INDEX
        assert (moved_image[:, black & inside] == 0).all()
        assert (moved_image[:, ~black & inside] == 200).all()
        outside += int((moved_mask == IGNORE_INDEX).sum())
    assert 0.02 < outside / (30 * SIZE * SIZE) < 0.4


@pytest.mark.parametrize("name", ["torchvision", "albumentations"])
def test_the_default_flips_half_of_the_pairs_left_to_right(name: str) -> None:
    augment = instantiate(name)
    image, mask = pair()
    flips = 0
    for seed in range(400):
        flipped = augment(image, mask, seed=seed)[1]
        assert torch.equal(flipped, mask) or torch.equal(flipped, mask.flip(-1))
        flips += not torch.equal(flipped, mask)
    assert 160 <= flips <= 240  # 200 +- 4 standard deviations


@pytest.mark.slow
def test_data_workers_give_what_the_main_process_gives() -> None:
    dataset = Together()
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    for index, results in enumerate(loader):
        for result, expected in zip(results, dataset[index], strict=True):
            assert same(result, expected)


@pytest.mark.parametrize("name", NAMES)
def test_wide_pictures_stay_wide_and_whole(name: str) -> None:
    config = OmegaConf.create({"augment": OmegaConf.load(CONF / f"{name}.yaml")})
    config.data = {"size": [32, 128], "crop": None}
    augment = hydra.utils.instantiate(config.augment)
    across = torch.arange(128, dtype=torch.uint8).expand(32, 128).contiguous()
    down = 4 * torch.arange(32, dtype=torch.uint8)[:, None].expand(32, 128)
    for seed in range(12):  # masks keep values as they are, so these tell where pixels came from
        shares = []
        for places in (across, down):
            image, found = augment(torch.stack([places] * 3), places, seed=seed)
            assert image.shape == (3, 32, 128) and found.shape == (32, 128)
            shares.append((float(found.max()) - float(found.min()) + 1) / 128)
        if name.endswith("_crop") and name != "scale_crop":
            assert 0.75 < shares[0] / shares[1] < 1.3, "as wide as it was, beside its height"
    own = 1 if getattr(augment, "keep_size", False) else 4  # width to height, or beside that
    for crop in _resized_crops(OmegaConf.to_container(config.augment, resolve=True)):
        low, high = crop["ratio"]
        assert 0.75 * own < low < own < high < 1.3 * own


def _resized_crops(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict) and str(node.get("_target_")).endswith(".RandomResizedCrop"):
        yield node
    for inner in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _resized_crops(inner)
