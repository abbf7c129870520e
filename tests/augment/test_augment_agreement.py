"""torchvision and Albumentations mean the same by the same parameters."""

from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from segpets.augment.albumentations import AlbumentationsAugment
from segpets.augment.scale_crop import ScaleCrop
from segpets.augment.torchvision import TorchvisionAugment
from segpets.config import register_resolvers
from segpets.labels import IGNORE_INDEX

import albumentations as A  # isort: skip  # after ours, which keeps it from the network

CONF = Path(__file__).parents[2] / "conf" / "augment"
GENERATOR = torch.Generator().manual_seed(3)
IMAGE = torch.randint(256, (3, 40, 56), dtype=torch.uint8, generator=GENERATOR)
MASK = torch.randint(3, (40, 56), dtype=torch.uint8, generator=GENERATOR)


def by_torchvision(*transforms: v2.Transform, seed: int = 0) -> tuple[Tensor, Tensor]:
    return TorchvisionAugment(transforms=transforms)(IMAGE, MASK, seed=seed)


def by_albumentations(*transforms: A.BasicTransform, seed: int = 0) -> tuple[Tensor, Tensor]:
    return AlbumentationsAugment(transforms=transforms)(IMAGE, MASK, seed=seed)


def test_flips_agree_bit_by_bit() -> None:
    ours = by_torchvision(v2.RandomHorizontalFlip(1.0))
    theirs = by_albumentations(A.HorizontalFlip(p=1))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("angle", [-15.0, -4.2, 7.3, 15.0])
@pytest.mark.parametrize("scale", [0.75, 1.0, 1.25])
def test_rotated_and_scaled_masks_agree_pixel_by_pixel(angle: float, scale: float) -> None:
    _, ours = by_torchvision(v2.RandomAffine(degrees=[angle, angle], scale=[scale, scale]))
    _, theirs = by_albumentations(
        A.Affine(rotate=(-angle, -angle), scale=(scale, scale), keep_ratio=True, p=1)
    )
    assert torch.equal(ours, theirs)
    assert (ours == IGNORE_INDEX).any() == (scale < 1.25 or abs(angle) > 10)


def test_shifted_rotated_and_scaled_masks_agree_pixel_by_pixel() -> None:
    ours = F.affine_mask(MASK, 11.0, [5, -3], 0.9, [0.0, 0.0], fill=IGNORE_INDEX)
    shift = A.Affine(translate_px={"x": (5, 5), "y": (-3, -3)}, rotate=(-11, -11), scale=0.9, p=1)
    assert torch.equal(ours, by_albumentations(shift)[1])


@pytest.mark.parametrize("size", [16, 32, 64])  # where no pixel's centre falls between two
def test_cropped_and_resized_masks_agree_pixel_by_pixel(size: int) -> None:
    _, ours = by_torchvision(v2.CenterCrop([24, 32]), v2.Resize([size, size]))
    _, theirs = by_albumentations(
        A.CenterCrop(height=24, width=32, p=1), A.Resize(height=size, width=size, p=1)
    )
    assert torch.equal(ours, theirs)


RESIZES = {
    "crop": v2.RandomResizedCrop([48, 64], scale=(0.4, 1), antialias=True),
    "resize": v2.RandomApply([v2.RandomResize(50, 120)], p=1),
    "scale_crop": ScaleCrop([48, 64], scale=[0.6, 2.2]),
    "affine": v2.RandomAffine(degrees=0, scale=[1.1, 1.9], interpolation=2),
    "crop_a": A.RandomResizedCrop((48, 64), scale=(0.4, 1), p=1),
    "resize_a": A.OneOf([A.RandomScale((0.3, 1.2), p=1)], p=1),
    "affine_a": A.Affine(scale=(1.1, 1.9), p=1),
}


@pytest.mark.parametrize("kind", RESIZES)
def test_masks_lie_on_their_images(kind: str) -> None:
    """An edge is where it is in the image, on average over what is drawn, to a tenth of a pixel."""
    image = torch.zeros(3, 70, 90, dtype=torch.uint8)
    image[..., 44:] = 255
    mask = (image[0] > 0).byte()
    backend = AlbumentationsAugment if kind.endswith("_a") else TorchvisionAugment
    augment = backend(transforms=[RESIZES[kind]])  # type: ignore[operator]
    beside = []
    for seed in range(200):
        moved, labels = augment(image, mask, seed=seed)
        row = labels.shape[0] // 2
        if labels[row].max() < 2 and len(labels[row].unique()) == 2:
            dark = (1 - moved[0, row].float() / 255).sum()
            beside.append(float(dark - (labels[row] == 0).sum()))
    assert len(beside) > 20
    assert abs(sum(beside) / len(beside)) < 0.1


@pytest.mark.parametrize("channel", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_colour_factors_agree_to_rounding(channel: str, factor: float) -> None:
    fixed = {name: (1.0, 1.0) for name in ("brightness", "contrast", "saturation")}
    fixed[channel] = (factor, factor)
    ours, _ = by_torchvision(v2.ColorJitter(**fixed))
    theirs, _ = by_albumentations(A.ColorJitter(**fixed, hue=0, p=1))
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours.int() - IMAGE.int()).abs().max() > 10


def test_blurs_agree_to_rounding() -> None:
    ours, _ = by_torchvision(v2.GaussianBlur(5, (1.3, 1.3)))
    theirs, _ = by_albumentations(A.GaussianBlur(blur_limit=(5, 5), sigma_limit=(1.3, 1.3), p=1))
    assert (ours.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("kind", ["", "_strong"])
def test_the_shipped_configs_have_the_same_ranges(kind: str) -> None:
    register_resolvers()

    def transforms(backend: str) -> dict[str, list[object]]:
        root = OmegaConf.create({"augment": OmegaConf.load(CONF / f"{backend}{kind}.yaml")})
        root.data = {"size": 64}
        augment = hydra.utils.instantiate(root.augment)
        steps = augment.transforms if backend == "torchvision" else augment.compose.transforms
        found: dict[str, list[object]] = {}
        for step in steps:
            for inner in step.transforms if isinstance(step, v2.RandomApply) else [step]:
                name = type(inner).__name__.removeprefix("Random")
                found.setdefault(name, []).append((inner, step.p if hasattr(step, "p") else 1.0))
        return found

    ours, theirs = transforms("torchvision"), transforms("albumentations")
    assert list(ours) == list(theirs)
    for name in ours:
        for (mine, my_p), (other, other_p) in zip(ours[name], theirs[name], strict=True):
            assert my_p == other_p
            assert ranges(mine) == ranges(other)


def ranges(transform: object) -> object:
    """The parameters of a transform of either library, in one notation."""
    match transform:
        case v2.RandomHorizontalFlip() | A.HorizontalFlip():
            return None
        case v2.ColorJitter():
            factors = (transform.brightness, transform.contrast, transform.saturation)
            return *(factor or (1.0, 1.0) for factor in factors), transform.hue or (0.0, 0.0)
        case A.ColorJitter():
            factors = (transform.brightness, transform.contrast, transform.saturation)
            return *factors, transform.hue
        case v2.RandomAffine():
            x, y = transform.translate
            return tuple(transform.degrees), tuple(transform.scale), (-x, x), (-y, y)
        case A.Affine():
            assert transform.keep_ratio and transform.scale["x"] == transform.scale["y"]
            shift = transform.translate_percent
            return transform.rotate, transform.scale["x"], shift["x"], shift["y"]
        case v2.RandomResizedCrop() | A.RandomResizedCrop():
            return tuple(transform.size), tuple(transform.scale), tuple(transform.ratio)
        case v2.GaussianBlur():
            (width, height), sigma = transform.kernel_size, transform.sigma
            assert width == height
            return (width, height), tuple(sigma)
        case A.GaussianBlur():
            return transform.blur_limit, transform.sigma_limit
    raise TypeError(f"say what the parameters of {type(transform).__name__} mean")
