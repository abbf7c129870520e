"""One pass over the images of a stage, image by image."""

import numpy as np
import pytest
import torch

import segpets
from segpets.evaluate.classes import merge
from segpets.evaluate.one_pass import JudgedImage, sample_pixels, walk
from segpets.evaluate.tally import Tally
from segpets.train import Result


def entries(finished: Result, *, original: bool) -> list[JudgedImage]:
    trained = segpets.load(finished.path)
    tally = Tally(merge(trained.classes, trained.classes, None), widths=[0.02], resized=original)
    return list(walk(trained, finished.datamodule, "test", tally=tally, original=original))


@pytest.mark.parametrize("original", [False, True])
def test_each_image_comes_with_pictures_of_one_size(finished: Result, original: bool) -> None:
    for entry in entries(finished, original=original):
        image, truth, preds, unsure = entry.pictures()
        assert image.shape == (64, 64, 3)
        assert truth.shape == preds.shape == unsure.shape == (64, 64)
        assert (image.dtype, truth.dtype, preds.dtype) == (np.uint8,) * 3
        assert np.array_equal(image[..., 0], entry.image[0].numpy())
        assert 0 <= unsure.min() <= unsure.max() <= 1
        # Masks of 128x128 lose every other pixel.
        size = (128, 128) if original else (64, 64)
        assert tuple(entry.truth.shape) == size
        assert (truth == entry.truth.numpy()[:: size[0] // 64, :: size[1] // 64]).mean() > 0.9


def test_sampled_logits_are_those_of_pixels_that_count(finished: Result) -> None:
    trained, datamodule = segpets.load(finished.path), finished.datamodule
    sample = sample_pixels(trained, datamodule, "val", seed=0)
    batch = next(iter(datamodule.plain_dataloader("val")))
    assert len(sample.truth) == int((batch["mask"] != 255).sum())  # few enough to keep them all
    logits = trained.logits(batch["image"])
    torch.testing.assert_close(sample.logits, logits.movedim(1, -1).reshape(-1, 3))
    assert torch.equal(sample.truth, batch["mask"].flatten().long())
    assert sample.image.unique().tolist() == [0, 1, 2]
