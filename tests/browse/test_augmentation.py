"""Augmentations that break their promises are found, and those of conf/ aren't."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segpets.browse.augmentation import agreement, examine_augmentation, pattern
from segpets.config import compose, conf_dir
from segpets.data.dataset import Augment
from segpets.data.reader import Reader

AUGMENTS = sorted(file.stem for file in (conf_dir() / "augment").glob("*.yaml"))
Pair = tuple[Tensor, Tensor]


class By:
    """An augmentation made of a function."""

    def __init__(self, function: Callable[[Tensor, Tensor, np.random.Generator], Pair]) -> None:
        self.function = function

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> Pair:
        return self.function(image, mask, np.random.default_rng(seed))


def problems(augment: Augment) -> list[str]:
    findings = examine_augmentation(augment, Reader((96, 96)))
    assert all(f.serious and f.file == "augment" for f in findings)
    return [f.problem for f in findings]


@pytest.mark.slow
@pytest.mark.parametrize("option", AUGMENTS)
def test_what_conf_offers_is_sound(option: str, tmp_path: Path) -> None:
    cfg = compose([f"augment={option}", f"hydra.run.dir={tmp_path}"])
    augment = instantiate(cfg.augment, _convert_="all")
    assert examine_augmentation(augment, Reader.of(cfg.data)) == []


MOVES_A_LITTLE_APART = {
    "two_pixels": lambda i, m, r: (i.clone(), m.roll(2, -1)),
    "magnified": lambda i, m, r: (
        F.affine_image(i, 0, [0, 0], 1 + 0.1 * float(r.random()), [0, 0]),
        m.clone(),
    ),
}


@pytest.mark.parametrize("case", MOVES_A_LITTLE_APART)
def test_an_image_that_moves_a_little_from_its_mask(case: str) -> None:
    (problem,) = problems(By(MOVES_A_LITTLE_APART[case]))
    assert problem.startswith("moves image and mask ")


WRONG = {
    "float": (lambda i, m, r: (i.float(), m), "returns float32 (3, 96, 96) where uint8 (3, H, W)"),
    "none": (lambda i, m, r: None, "returns NoneType"),
    "one": (lambda i, m, r: (i, None), "returns a NoneType for a tensor"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_pair_of_image_and_mask(case: str) -> None:
    function, words = WRONG[case]
    (problem,) = problems(By(function))
    assert problem.startswith(words)


MOVES_ONLY_THE_IMAGE = {
    "flip": lambda i, m, r: (i.flip(-1) if r.random() < 0.3 else i.clone(), m.clone()),
    "turn": lambda i, m, r: (F.rotate_image(i, float(r.uniform(-15, 15))), m.clone()),
    "shift": lambda i, m, r: (i.roll(int(r.integers(-9, 9)), -1), m.clone()),
    "other_flip": lambda i, m, r: (i.flip(-1), m.flip(-2)),
}


@pytest.mark.parametrize("case", MOVES_ONLY_THE_IMAGE)
def test_an_image_that_moves_without_its_mask(case: str) -> None:
    (problem,) = problems(By(MOVES_ONLY_THE_IMAGE[case]))
    assert problem.startswith("moves image and mask differently: with seed ")


def test_colours_noise_blur_and_patches_move_nothing() -> None:
    def colour(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        noise = torch.from_numpy(random.normal(0, 15, image.shape)).float()
        out = (v2.GaussianBlur(5, 1.5)(image.float()) + noise).clamp(0, 255)
        out[:, 10:40, 10:40] = 0
        return (255 - out if random.random() < 0.5 else out).to(torch.uint8), mask.clone()

    assert problems(By(colour)) == []


def test_a_mask_that_is_blended() -> None:
    def blended(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        angle = float(random.uniform(-20, 20))
        turned = F.rotate_image(
            mask[None].float(), angle, interpolation=F.InterpolationMode.BILINEAR
        )
        return F.rotate_image(image, angle), turned[0].to(torch.uint8)

    assert any(problem.startswith("invents values in masks") for problem in problems(By(blended)))


def test_random_numbers_of_its_own() -> None:
    own = np.random.default_rng(0)

    def careless(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        flip = own.random() < 0.5
        return (image.flip(-1), mask.flip(-1)) if flip else (image.clone(), mask.clone())

    told = problems(By(careless))
    assert "gives another result when the same seed is given again" in told
    assert "repeats its random numbers in every data worker" in told


def test_inputs_that_are_changed() -> None:
    def in_place(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        return image.add_(1), mask

    assert "works on its inputs in place, which may be cached" in problems(By(in_place))


def test_sizes_that_make_no_batch() -> None:
    def cropped(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        side = int(random.integers(40, 60))
        return image[:, :side, :side].clone(), mask[:side, :side].clone()

    (problem,) = problems(By(cropped))
    assert problem.startswith("gives images of ") and "sizes, such as (40, 40)" in problem


def test_an_augmentation_that_fails() -> None:
    def failing(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        raise RuntimeError("no such kernel")

    assert problems(By(failing)) == ["fails: no such kernel"]


def test_agreement_is_the_part_that_fits() -> None:
    image, mask = pattern(Reader((64, 64)))
    assert agreement(image, mask) == 1.0
    assert agreement(255 - image, mask) == 1.0
    wrong = mask.clone()
    wrong[:, :32] = 200 - wrong[:, :32]
    assert 0.45 < agreement(image, wrong) < 0.55


class Neighbours(By):
    """Whole batches, whose first image decides for all."""

    def batch(self, images: Tensor, masks: Tensor, seeds: Tensor) -> Pair:
        pairs = [self(*pair, seed=int(seeds[0])) for pair in zip(images, masks, strict=True)]
        return torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])


def test_a_batch_whose_images_depend_on_each_other() -> None:
    def flipped(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        return (image.flip(-1), mask.flip(-1)) if random.random() < 0.5 else (image, mask)

    assert problems(By(flipped)) == []
    (found,) = problems(Neighbours(flipped))
    assert found == "changes a batch otherwise than its images one by one"


def test_random_numbers_of_its_own_in_whole_batches() -> None:
    class Own(Neighbours):
        def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> Pair:
            return self.function(image, mask, np.random.default_rng())

    def brighter(image: Tensor, mask: Tensor, random: np.random.Generator) -> Pair:
        return image + int(random.integers(20)), mask

    assert any("random numbers" in remedy for remedy in remedies(Own(brighter)))


def remedies(augment: Augment) -> list[str]:
    return [finding.remedy for finding in examine_augmentation(augment, Reader((96, 96)))]
