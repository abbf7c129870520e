"""On which images a temperature is fitted: never on those on which its effect is measured."""

from dataclasses import dataclass

from segpets.data import SegmentationDataModule
from segpets.data.source import packed
from segpets.evaluation.calibration import fit_temperature
from segpets.evaluation.protocols import Merge
from segpets.evaluation.walk import sample_pixels
from segpets.trained import Trained


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: Of all sampled pixels; None where no pixel counts.
        used: By which the logits of images with an even index, and with an odd one, are divided.
        pixels: How many were sampled.
        words: On what it was fitted.
    """

    value: float | None
    used: tuple[float | None, float | None]
    pixels: int
    words: str


def temperature(
    trained: Trained, datamodule: SegmentationDataModule, stage: str, merged: Merge, *, seed: int
) -> Temperature:
    """Fits a temperature on val; where the stage shares images with val, on its other half.

    Args:
        trained: The model.
        datamodule: The data, set up.
        stage: What is evaluated.
        merged: Under which classes.
        seed: Chooses the pixels.
    """
    splits = datamodule.splits
    shared = set(packed(splits.val).names()) & set(packed(getattr(splits, stage)).names())
    if not shared:
        sample = sample_pixels(trained, datamodule, "val", seed=seed)
        value = fit_temperature(sample, merged.scores)
        words = f"fitted on {len(splits.val):,} val images, at the model's size"
        return Temperature(value, (value, value), len(sample.truth), words)
    sample = sample_pixels(trained, datamodule, stage, seed=seed)
    odd, even = (fit_temperature(sample.of_images(i), merged.scores) for i in (1, 0))
    return Temperature(
        fit_temperature(sample, merged.scores),
        (odd, even),
        len(sample.truth),
        f"{stage} holds images of val: for each half of them the temperature was fitted on the "
        "other half, at the model's size",
    )
