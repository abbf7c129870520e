import os
import subprocess
import sys

import cv2
import pytest
import torch

from segpets.augment.albumentations import AlbumentationsAugment
from segpets.labels import IGNORE_INDEX

import albumentations as A  # isort: skip  # after ours, which keeps it from the network

IMAGE = torch.randint(
    256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
MASK = torch.ones(24, 32, dtype=torch.uint8)


@pytest.mark.parametrize(
    "transform",
    [
        A.Affine(rotate=(30, 30), fill=99, p=1),
        A.Rotate(limit=(30, 30), fill=99, border_mode=cv2.BORDER_CONSTANT, p=1),
        A.Perspective(scale=(0.2, 0.2), fit_output=True, fill=99, p=1),
        A.ElasticTransform(alpha=300, sigma=5, fill=99, border_mode=cv2.BORDER_CONSTANT, p=1),
        A.Pad(padding=4, fill=99, p=1),
        A.PadIfNeeded(min_height=40, min_width=40, fill=99, p=1),
        A.CropAndPad(px=4, keep_size=False, fill=99, p=1),
        A.RandomCrop(height=40, width=40, pad_if_needed=True, fill=99, p=1),
        A.OneOf([A.Sequential([A.Pad(padding=4, fill=99, p=1)], p=1)], p=1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_fill_is_for_the_image_and_the_mask_gets_255(transform: A.BasicTransform) -> None:
    augment = AlbumentationsAugment(transforms=[transform])
    image, mask = augment(torch.full_like(IMAGE, 200), MASK, seed=4)
    assert mask.unique().tolist() == [1, IGNORE_INDEX]
    assert image[0, mask == IGNORE_INDEX].median() == 99  # interpolated at the edge


def test_transforms_that_draw_different_numbers_are_independent() -> None:
    two_coins = AlbumentationsAugment(
        transforms=[A.HorizontalFlip(p=0.5), A.Sequential([A.VerticalFlip(p=0.5)], p=1)]
    )
    corner = torch.zeros(8, 8, dtype=torch.uint8)
    corner[0, 0] = 1
    where = [tuple(two_coins(IMAGE[:, :8, :8], corner, seed=s)[1].nonzero()[0]) for s in range(400)]
    counts = [where.count(position) for position in ((0, 0), (0, 7), (7, 0), (7, 7))]
    assert sum(counts) == 400
    assert min(counts) >= 65  # 100 - 4 standard deviations


def test_masks_are_nearest_neighbour_even_if_a_transform_asks_for_more() -> None:
    linear = A.Affine(
        rotate=(30, 30), interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_LINEAR, p=1
    )
    mask = torch.zeros_like(MASK)
    mask[8:16] = 9
    _, moved = AlbumentationsAugment(transforms=[linear])(IMAGE, mask, seed=0)
    assert moved.unique().tolist() == [0, 9, IGNORE_INDEX]


def test_noise_depends_on_the_seed_and_not_on_the_stream_of_opencv() -> None:
    augment = AlbumentationsAugment(transforms=[A.GaussNoise(p=1)])
    first = augment(IMAGE, MASK, seed=5)[0]
    cv2.setRNGSeed(77)
    assert torch.equal(augment(IMAGE, MASK, seed=5)[0], first)
    assert not torch.equal(augment(IMAGE, MASK, seed=6)[0], first)


def test_the_number_of_threads_of_opencv_stays() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        AlbumentationsAugment(transforms=[A.HorizontalFlip(p=1)])(IMAGE, MASK, seed=0)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_a_transform_of_another_library_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"augment\.transforms\[1\] is a torch\.nn.*Identity"):
        AlbumentationsAugment(transforms=[A.HorizontalFlip(), torch.nn.Identity()])


@pytest.mark.parametrize(
    "transform",
    [A.ToFloat(p=1), A.Normalize(p=1), A.ToTensorV2(p=1)],
    ids=lambda transform: type(transform).__name__,
)
def test_a_result_that_is_no_pair_any_more_is_refused(transform: A.BasicTransform) -> None:
    augment = AlbumentationsAugment(transforms=[transform])
    with pytest.raises(ValueError, match=r"must stay uint8 \(3, H, W\) and uint8 \(H, W\)"):
        augment(IMAGE, MASK, seed=0)


def test_an_argument_that_a_transform_does_not_have_is_refused() -> None:
    with pytest.warns(UserWarning, match="probability"):
        flip = A.HorizontalFlip(probability=0.5)
    with pytest.raises(ValueError, match="'probability' are not valid for transform"):
        AlbumentationsAugment(transforms=[flip])


@pytest.mark.slow
def test_loading_it_asks_nothing_of_the_network() -> None:
    # Albumentations asks a server for news at import, and warns where that fails, as it does behind
    # a proxy that isn't there.
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    loaded = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import segpets.augment.albumentations"],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
