"""Temperatures and weights: never fitted on the images on which their effect is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from segpets.data import SegmentationDataModule
from segpets.evaluate.calibration import PixelSample, fit_temperature
from segpets.evaluate.classes import Merge
from segpets.evaluate.decision import Decision, absent, fit_weights
from segpets.evaluate.one_pass import sample_pixels
from segpets.inference.trained import Trained

T = TypeVar("T")


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: The temperature of all sampled pixels; None where no pixel counts, of a half neither.
        used: By which the logits of images with an even index, and with an odd one, are divided.
        pixels: The number of sampled pixels.
        words: A description of what it was fitted on.
    """

    value: float | None
    used: tuple[float | None, float | None]
    pixels: int
    words: str


class Fitting:
    """Pixels of val; where the evaluated stage shares images with val, of its two halves.

    Args:
        trained: The model.
        datamodule: The data, set up.
        stage: The stage that is evaluated.
        seed: Chooses the pixels.
        held_out: Whether the model wasn't trained on val; else the stage's halves serve.
    """

    def __init__(
        self,
        trained: Trained,
        datamodule: SegmentationDataModule,
        stage: str,
        *,
        seed: int,
        held_out: bool = True,
    ) -> None:
        splits = datamodule.splits
        self._shared = bool({s.name for s in splits.val} & {s.name for s in splits[stage]})
        self.halves = self._shared or not held_out
        self._stage, self._images = stage, len(splits.val)
        chosen = stage if self.halves else "val"
        self.sample = sample_pixels(trained, datamodule, chosen, seed=seed)

    def fitted(self, fit: Callable[[PixelSample], T]) -> tuple[T, tuple[T, T]]:
        """Fits something to all pixels, and what is used for even and for odd images."""
        value = fit(self.sample)
        if not self.halves:
            return value, (value, value)
        odd, even = (fit(self.sample.of_images(remainder)) for remainder in (1, 0))
        return value, (odd, even)

    def words(self, what: str) -> str:
        """Says what was fitted on which images."""
        if not self.halves:
            return f"fitted on {self._images:,} val images, at the model's size"
        if not self._shared:
            why = "a model was trained on images of val"
        elif self._stage == "val":
            why = "val is what is judged"
        else:
            why = f"{self._stage} holds images of val"
        return (
            f"{why}, so for each half of the {self._stage} images the {what} fitted on the other "
            "half, at the model's size"
        )


def temperature(fitting: Fitting, merged: Merge) -> Temperature:
    """Fits a temperature.

    Args:
        fitting: The pixels.
        merged: The classes under which the model is judged.
    """
    value, used = fitting.fitted(lambda sample: fit_temperature(sample, merged.scores))
    if None in used:  # a half without a pixel: the other one alone would tell of other images
        value, used = None, (None, None)
    words = fitting.words("temperature was")
    return Temperature(value, used, len(fitting.sample.truth), words)


def decision(
    fitting: Fitting, merged: Merge, asked: str | Sequence[float] | None
) -> Decision | None:
    """Fits decision weights, or takes those that are given; None if none are asked for."""
    if asked is None:
        return None
    if not isinstance(asked, str):
        given = [float(weight) for weight in asked]
        return Decision(given, (given, given), "given by decide")
    weights, used = fitting.fitted(lambda sample: fit_weights(sample, merged))
    words = fitting.words("weights were")
    if lacking := absent(fitting.sample, merged):
        words += f"; {', '.join(lacking)}, which these lack, got the others' mean weight"
    return Decision(weights, used, words, halves=fitting.halves)
