"""The views that test-time augmentation averages over."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import segpets
from segpets.errors import UserError
from segpets.inference.views import averaged, views
from segpets.train import Result


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [(1.0, False)]),
        (["flip"], [(1.0, False), (1.0, True)]),
        ([0.75, 1, 0.75], [(1.0, False), (0.75, False)]),
        (["flip", 1.5], [(1.0, False), (1.0, True), (1.5, False), (1.5, True)]),
    ],
)
def test_words_name_views(words: list[Any], expected: list[tuple[float, bool]]) -> None:
    assert views(words, 64) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("flop", "tta=flop is unknown: choose flip, and scales"),
        (True, "tta=True is unknown"),
        (0.4, "choose a scale from 0.5, which leaves 32 pixels, to 4"),
        (-1, "choose a scale"),
        (float("nan"), "choose a scale"),
        (5, "choose a scale"),
    ],
)
def test_words_that_mean_no_view_are_refused(word: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        views([word], 64)


def test_pictures_of_any_size_may_be_made_four_times_smaller() -> None:
    assert views([0.25, 4], None) == [(1.0, False), (0.25, False), (4.0, False)]
    with pytest.raises(UserError, match=r"makes images too small or too large: .* 0\.25 to 4"):
        views([0.2], None)


def test_a_small_picture_keeps_its_shape() -> None:
    """Of 40x80 pixels, a view of half that size would have 20 rows: it has 32, and 64 columns."""
    seen: list[tuple[int, ...]] = []

    def plain(images: Tensor) -> Tensor:
        seen.append(tuple(images.shape[-2:]))
        return images[:, :2].float()

    pictures = torch.zeros(1, 3, 40, 80, dtype=torch.uint8)
    averaged(plain, pictures, plain(pictures), views([0.5], None))
    assert seen == [(40, 80), (32, 64)]


@pytest.fixture(scope="module")
def images(finished: Result) -> Tensor:
    batch = next(iter(finished.datamodule.plain_dataloader("test")))
    images: Tensor = batch["image"]
    return images


def test_probabilities_are_averaged_over_views(finished: Result, images: Tensor) -> None:
    trained = segpets.load(finished.path)
    logits = trained.logits(images)
    found = averaged(trained.logits, images, logits, views(["flip", 1.5], 64)).exp()
    larger = interpolate(images, size=(96, 96), mode="bilinear", antialias=True)
    by_hand = [
        logits,
        trained.logits(images.flip(-1)).flip(-1),
        interpolate(trained.logits(larger), size=(64, 64), mode="bilinear"),
        interpolate(trained.logits(larger.flip(-1)).flip(-1), size=(64, 64), mode="bilinear"),
    ]
    expected = sum((part.softmax(1) for part in by_hand), torch.zeros(())) / 4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_with_a_flip_it_does_not_matter_which_way_an_image_is_shown(
    finished: Result, images: Tensor
) -> None:
    trained = segpets.load(finished.path)
    seen = views(["flip"], 64)
    one = averaged(trained.logits, images, trained.logits(images), seen)
    mirrored = images.flip(-1)
    other = averaged(trained.logits, mirrored, trained.logits(mirrored), seen)
    torch.testing.assert_close(one, other.flip(-1), rtol=1e-4, atol=1e-5)
