"""Calibration, with torchmetrics as the oracle."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from segpets.evaluate.calibration import BINS, Calibration, PixelSample, fit_temperature
from segpets.evaluate.temperature import Fitting, temperature


def made(*, sharp: float = 2.0, ignored: float = 0.2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = sharp * torch.randn(4, 3, 9, 11, generator=generator)
    truth = torch.randint(0, 3, (4, 9, 11), generator=generator, dtype=torch.uint8)
    truth[torch.rand(truth.shape, generator=generator) < ignored] = 255
    return logits, truth


@pytest.mark.parametrize("sharp", [0.5, 2.0, 60.0])  # 60: probabilities of exactly 0 and 1
def test_ece_is_that_of_torchmetrics(sharp: float) -> None:
    logits, truth = made(sharp=sharp)
    sums = Calibration(3)
    sums.update(logits, truth)
    probs, target = logits.softmax(1), truth.long()
    top = MulticlassCalibrationError(3, n_bins=BINS, norm="l1", ignore_index=255)(probs, target)
    assert sums.errors()[-1] == pytest.approx(top.item(), abs=1e-6)
    for k in range(3):
        against = torch.where(target == 255, 255, (target == k).long())
        oracle = BinaryCalibrationError(n_bins=BINS, norm="l1", ignore_index=255)
        assert sums.errors()[k] == pytest.approx(oracle(probs[:, k], against).item(), abs=1e-6)
    loss = cross_entropy(logits, target, ignore_index=255)
    assert sums.nll == pytest.approx(loss.item(), rel=1e-5)


def test_batches_add_up() -> None:
    logits, truth = made()
    whole, parts = Calibration(3), Calibration(3)
    whole.update(logits, truth)
    for image, mask in zip(logits, truth, strict=True):
        parts.update(image[None], mask[None])
    np.testing.assert_allclose(parts.errors(), whole.errors(), rtol=1e-12)
    assert parts.nll == pytest.approx(whole.nll)


def test_what_is_said_of_ignored_pixels_changes_nothing() -> None:
    logits, truth = made()
    others = torch.where((truth == 255).unsqueeze(1), -logits, logits)
    first, second = Calibration(3), Calibration(3)
    first.update(logits, truth)
    second.update(others, truth)
    assert np.array_equal(first.errors(), second.errors())
    assert first.nll == second.nll


def test_the_diagram_has_each_pixel_once() -> None:
    logits, truth = made(sharp=60.0)
    sums = Calibration(3)
    sums.update(logits, truth)
    bins = sums.reliability()
    assert sum(pixels for *_, pixels in bins) == (truth != 255).sum()
    assert [sure for sure, *_ in bins] == sorted(sure for sure, *_ in bins)
    assert len(bins) <= BINS
    known = truth != 255
    right = (logits.argmax(1) == truth)[known].float().mean().item()
    assert sum(part * n for _, part, n in bins) / known.sum() == pytest.approx(right, rel=1e-5)


def test_nothing_is_known_without_a_pixel() -> None:
    sums = Calibration(2)
    sums.update(torch.zeros(1, 2, 3, 3), torch.full((1, 3, 3), 255, dtype=torch.uint8))
    assert np.isnan(sums.errors()).all()
    assert np.isnan(sums.nll)
    assert sums.reliability() == []
    empty = PixelSample(torch.zeros(0, 2), torch.zeros(0).long(), torch.zeros(0).long())
    assert fit_temperature(empty, lambda logits: logits) is None


def sampled(*, scale: float) -> PixelSample:
    """Truth drawn from the probabilities of logits, which are then made so many times larger."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(40_000, 3, generator=generator)
    truth = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return PixelSample(scale * logits, truth, torch.arange(40_000) // 100)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_model_too_sure(scale: float) -> None:
    found = fit_temperature(sampled(scale=scale), lambda logits: logits)
    assert found == pytest.approx(scale, rel=0.03)


def test_the_temperature_is_where_the_loss_is_least() -> None:
    sample = sampled(scale=3.0)
    found = fit_temperature(sample, lambda logits: logits)
    assert found is not None

    def loss(temperature: float) -> float:
        return cross_entropy(sample.logits.double() / temperature, sample.truth).item()

    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_without_pixels_in_a_half_there_is_no_temperature() -> None:
    """One image: of the other half, which would serve it, there is none."""
    pixels = PixelSample(torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.zeros(6).int())
    halves = Fitting.__new__(Fitting)  # without model and data
    halves.sample, halves.halves, halves._shared, halves._stage = pixels, True, True, "val"
    found = temperature(halves, SimpleNamespace(scores=lambda logits: logits))  # type: ignore[arg-type]
    assert (found.value, found.used) == (None, (None, None))


def test_half_of_the_images_is_every_other_one() -> None:
    sample = sampled(scale=1.0)
    even, odd = sample.of_images(0), sample.of_images(1)
    assert set((even.image % 2).tolist()) == {0}
    assert set((odd.image % 2).tolist()) == {1}
    assert len(even.truth) + len(odd.truth) == len(sample.truth)
