from typing import Any

import pytest
import torch
import torchvision.transforms as v1
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from segpets.augment.torchvision import TorchvisionAugment
from segpets.labels import IGNORE_INDEX

IMAGE = torch.randint(
    256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
MASK = torch.ones(24, 32, dtype=torch.uint8)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomAffine(degrees=[30, 30], fill=99),
        v2.RandomRotation(degrees=[30, 30], fill=[99.0, 98.0, 97.0]),
        v2.RandomPerspective(distortion_scale=0.7, p=1.0, fill=99),
        v2.ElasticTransform(alpha=200.0, fill=99),
        v2.Pad(4, fill=99),
        v2.RandomZoomOut(fill=99, side_range=(2.0, 2.0), p=1.0),
        v2.RandomCrop(40, pad_if_needed=True, fill=99),
        v2.RandomAffine(degrees=[30, 30], fill={tv_tensors.Image: 99, tv_tensors.Mask: 0}),
        v2.Compose([v2.Pad(4, fill=99)]),
        v2.RandomApply([v2.Pad(4, fill=99)], p=1.0),
        v2.RandomChoice([v2.Compose([v2.Pad(4, fill=99)])]),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_fill_is_for_the_image_and_the_mask_gets_255(transform: v2.Transform) -> None:
    augment = TorchvisionAugment(transforms=[transform])
    image, mask = augment(torch.full_like(IMAGE, 200), MASK, seed=4)
    assert mask.unique().tolist() == [1, IGNORE_INDEX]
    assert image[0, mask == IGNORE_INDEX].median() == 99  # interpolated at the edge


def test_transforms_that_draw_different_numbers_are_independent() -> None:
    two_coins = TorchvisionAugment(
        transforms=[v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)]
    )
    corner = torch.zeros(8, 8, dtype=torch.uint8)
    corner[0, 0] = 1
    where = [tuple(two_coins(IMAGE[:, :8, :8], corner, seed=s)[1].nonzero()[0]) for s in range(400)]
    counts = [where.count(position) for position in ((0, 0), (0, 7), (7, 0), (7, 7))]
    assert sum(counts) == 400
    assert min(counts) >= 65  # 100 - 4 standard deviations


class LowBitsOfTheMean(v2.Transform):
    """Shows in every pixel the last bits of a float32 mean over the whole picture."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        mean = inpt.float().mean()
        return torch.full_like(inpt, int(mean.view(torch.int32) & 255))


def test_a_sum_over_a_large_picture_does_not_depend_on_the_number_of_threads() -> None:
    augment = TorchvisionAugment(transforms=[LowBitsOfTheMean()])
    mask = torch.zeros(512, 512, dtype=torch.uint8)
    before = torch.get_num_threads()
    try:
        for seed in range(8):
            generator = torch.Generator().manual_seed(seed)
            image = torch.randint(256, (3, 512, 512), dtype=torch.uint8, generator=generator)
            results: list[Tensor] = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(augment(image, mask, seed=0)[0])
                assert torch.get_num_threads() == threads
            assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    finally:
        torch.set_num_threads(before)


def test_the_global_stream_survives_a_transform_that_fails() -> None:
    augment = TorchvisionAugment(transforms=[v2.RandomHorizontalFlip(), v2.RandomCrop(99)])
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="Required crop size"):
        augment(IMAGE, MASK, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_transform_may_work_in_place() -> None:
    image = IMAGE.clone()
    augment = TorchvisionAugment(transforms=[v2.RandomErasing(p=1.0, value=0, inplace=True)])
    with pytest.warns(UserWarning, match="passing through"):
        erased, _ = augment(image, MASK, seed=0)
    assert torch.equal(image, IMAGE)
    assert not torch.equal(erased, IMAGE)


def test_a_transform_of_the_first_version_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"augment\.transforms\[1\].*RandomRotation.*v2"):
        TorchvisionAugment(transforms=[v2.RandomHorizontalFlip(), v1.RandomRotation(5)])


@pytest.mark.parametrize(
    "transform",
    [v2.ToDtype(torch.float32, scale=True), v2.Grayscale(), v2.ToPILImage()],
    ids=lambda transform: type(transform).__name__,
)
def test_a_result_that_is_no_pair_any_more_is_refused(transform: v2.Transform) -> None:
    augment = TorchvisionAugment(transforms=[transform])
    with pytest.raises(ValueError, match=r"must stay uint8 \(3, H, W\) and uint8 \(H, W\)"):
        augment(IMAGE, MASK, seed=0)
