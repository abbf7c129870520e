"""One pass over the images of a stage."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.data import SegmentationDataModule
from segpets.data.geometry import Geometry
from segpets.data.source import Sample
from segpets.evaluate.calibration import PixelSample
from segpets.evaluate.tally import Judged, Tally
from segpets.inference.trained import Trained
from segpets.inference.views import View, averaged
from segpets.labels import IGNORE_INDEX
from segpets.report.figure import visible

Ids = NDArray[np.uint8]

_SAMPLED = 2**21
"""Numbers that are kept to fit a temperature, 8 MB: 700,000 pixels of 3 classes."""


@dataclass(frozen=True)
class JudgedImage:
    """One image: its sample, its prediction, and how good that is.

    Attributes:
        sample: Its name, attributes and files.
        image: What the model saw, (C, h, w).
        geometry: Where the picture lies in what the model saw.
        truth: Class ids, uint8 (H, W), 255 where none is known; of the model's size, or the
            image's own.
        judged: The prediction, of the size of the truth, and its scores.
        tta: The same of several views together; None without test-time augmentation.
    """

    sample: Sample
    image: Tensor
    geometry: Geometry
    truth: Tensor
    judged: Judged
    tta: Judged | None

    def pictures(self) -> tuple[Ids, Ids, Ids, NDArray[np.float32]]:
        """Returns image, (h, w, 3), truth, prediction, uncertainty, (h, w), at the model's size."""
        image, unsure = self.image, self.judged.uncertainty
        ids = torch.stack([self.truth, self.judged.preds])[None]
        if self.truth.shape != image.shape[-2:]:
            image, unsure = self.geometry.inside(image), self.geometry.inside(unsure)
            ids = interpolate(ids, size=image.shape[-2:], mode="nearest-exact")
        truth, preds = ids[0].numpy()
        return visible(image), truth, preds, unsure.numpy()


class Loss:
    """The mean of a training's loss over batches, summed as Lightning does.

    Args:
        loss: (logits (B, C, H, W), int64 (B, H, W)) to a scalar.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._loss, self._sum, self._images = loss, torch.zeros(()), 0

    def add(self, logits: Tensor, mask: Tensor) -> None:
        """Adds a batch."""
        with torch.inference_mode():
            value = self._loss(logits, mask.long())
        self._sum = self._sum + value.cpu() * len(mask)
        self._images += len(mask)

    def mean(self) -> float:
        """Returns the mean so far."""
        return float(self._sum / self._images)


@dataclass(frozen=True)
class Redone:
    """Sums of the same predictions with shifted logits.

    Attributes:
        shift: Shifts the logits, (B, C, H, W), of images by their rows.
        tallies: Of the plain predictions and, with test-time augmentation, of those.
    """

    shift: Callable[[Tensor, Sequence[int]], Tensor]
    tallies: Sequence[Tally]


def walk(
    trained: Trained,
    datamodule: SegmentationDataModule,
    stage: str,
    *,
    tally: Tally,
    with_tta: Tally | None = None,
    decided: Redone | None = None,
    seen: Sequence[View] = (),
    temperatures: tuple[float | None, float | None] = (None, None),
    original: bool = False,
    loss: Loss | None = None,
) -> Iterator[JudgedImage]:
    """Predicts and judges the images of a stage, in order, a batch at a time.

    Args:
        trained: The model.
        datamodule: The data, set up.
        stage: `train`, `val` or `test`.
        tally: Sums of the plain predictions.
        with_tta: Sums of those that are averaged over several views; None makes none.
        decided: Sums of predictions with decision weights; None makes none.
        seen: The views.
        temperatures: Those for images with an even index, and for those with an odd one.
        original: Whether an image is judged at its own size.
        loss: Adds up the loss of the training, whose classes the truth must have.

    Raises:
        FileError: A mask can't be read.
    """
    samples = datamodule.splits[stage]
    first = 0
    for batch in datamodule.plain_dataloader(stage):
        images, masks = batch["image"], batch["mask"]
        rows = range(first, first + len(images))
        first += len(images)
        chosen = [samples[row] for row in rows]
        truths = list(masks)
        if original:
            truths = [torch.from_numpy(datamodule.source.mask(sample)) for sample in chosen]
        places = [datamodule.geometry(sample) for sample in chosen]
        logits = trained.logits(images).cpu()
        if loss is not None:
            loss.add(logits, masks)
        divisors = [temperatures[row % 2] for row in rows]
        judged: list[Judged] = tally.add(logits, truths, divisors, places)
        none = [None] * len(judged)
        others: Sequence[Judged | None] = none
        if with_tta is not None:
            together = averaged(trained.logits, images, logits, seen)
            others = with_tta.add(together, truths, none, places)
        if decided is not None:
            ways = [logits] if with_tta is None else [logits, together]
            for tally_, way in zip(decided.tallies, ways, strict=True):
                tally_.add(decided.shift(way, rows), truths, none, places)
        for entry in zip(chosen, images, places, truths, judged, others, strict=True):
            yield JudgedImage(*entry)


def sample_pixels(
    trained: Trained, datamodule: SegmentationDataModule, stage: str, *, seed: int
) -> PixelSample:
    """Keeps logits of some pixels of each image, at the model's size.

    Args:
        trained: The model.
        datamodule: The data, set up.
        stage: `train`, `val` or `test`.
        seed: Chooses the pixels.
    """
    count = len(datamodule.splits[stage])
    each = max(1, _SAMPLED // (len(trained.classes) * count))
    logits_kept, truth_kept, image_kept = [], [], []
    row = 0
    for batch in datamodule.plain_dataloader(stage):
        logits = trained.logits(batch["image"]).cpu()
        for image_logits, mask in zip(logits, batch["mask"], strict=True):
            places = np.flatnonzero(mask.flatten().numpy() != IGNORE_INDEX)
            if len(places) > each:
                places = np.random.default_rng([seed, row]).choice(places, each, replace=False)
            index = torch.from_numpy(places)
            logits_kept.append(image_logits.flatten(1)[:, index].T)
            truth_kept.append(mask.flatten()[index].long())
            image_kept.append(torch.full((len(index),), row))
            row += 1
    return PixelSample(torch.cat(logits_kept), torch.cat(truth_kept), torch.cat(image_kept))
