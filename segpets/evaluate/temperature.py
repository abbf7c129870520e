"""The images on which a temperature is fitted: never those on which its effect is measured."""

from dataclasses import dataclass

from segpets.data import SegmentationDataModule
from segpets.evaluate.calibration import fit_temperature
from segpets.evaluate.classes import Merge
from segpets.evaluate.one_pass import sample_pixels
from segpets.inference.trained import Trained


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: The temperature of all sampled pixels; None where no pixel counts.
        used: By which the logits of images with an even index, and with an odd one, are divided.
        pixels: The number of sampled pixels.
        words: A description of what it was fitted on.
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
        stage: The stage that is evaluated.
        merged: The classes under which the model is judged.
        seed: Chooses the pixels.
    """
    splits = datamodule.splits
    shared = {s.name for s in splits.val} & {s.name for s in splits[stage]}
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
