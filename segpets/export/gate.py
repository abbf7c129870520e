"""The gate: compares an exported model with the original, on real images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segpets.inference.trained import Segmenter
from segpets.labels import Item
from segpets.metric import confusion_matrices, summarise
from segpets.model.pad import continued, fitting

Predict = Callable[[Tensor], Tensor]
"""uint8 (B, 3, H, W) to logits (B, C, H, W)."""
_BATCH: Final = 8
_NUDGE: Final = 2.0**-20
"""Eight roundings of a float32: about what the sum inside a convolution rounds off."""
_NUDGES: Final = 128
"""So many changed images are enough to meet what rounding rarely does."""
_CLOSE: Final = 1e-3
_SLACK: Final = 3.0


@dataclass(frozen=True)
class Agreement:
    """The distance of an exported model's logits from the original's, over some images.

    Attributes:
        shapes: The shapes of the batches, without repetitions.
        pixels: The number of compared pixels.
        largest_difference: Of two logits, in absolute value.
        largest_logit: Of the original, in absolute value.
        agreement: The share of the pixels whose largest logit is of the same class.
        close: The share of the pixels whose logits differ by a thousandth of the batch's largest
            logit at most.
    """

    shapes: list[list[int]]
    pixels: int
    largest_difference: float
    largest_logit: float
    agreement: float
    close: float

    @property
    def relative(self) -> float:
        """The largest difference, relative to the largest logit."""
        return self.largest_difference / self.largest_logit if self.largest_logit > 0 else 0.0


@dataclass(frozen=True)
class Checked:
    """The results of the gate.

    Attributes:
        images: The number of test images.
        same: On the test images, at the size that the net was trained at.
        others: On some of them, at larger sizes and in other batches.
        mean_iou: Of the original, over the test images.
        mean_iou_exported: Of the exported model.
        own: The original beside itself, on the same images with each pixel changed by a
            millionth; None where that isn't of interest.
    """

    images: int
    same: Agreement
    others: Agreement
    mean_iou: float
    mean_iou_exported: float
    own: Agreement | None = None

    @property
    def mean_iou_loss(self) -> float:
        """The loss in mean IoU of the exported model."""
        return self.mean_iou - self.mean_iou_exported

    def facts(self) -> dict[str, Any]:
        """Returns the results as plain data."""
        parts = {"same": self.same, "others": self.others, "own": self.own}
        named = {k: asdict(part) | {"relative": part.relative} for k, part in parts.items() if part}
        return asdict(self) | named | {"mean_iou_loss": self.mean_iou_loss}


class _Comparison:
    """Running sums of how two models' logits differ over batches."""

    def __init__(self) -> None:
        self.shapes: list[list[int]] = []
        self.pixels = self.equal = self.close = 0
        self.difference, self.logit = torch.zeros(()), torch.zeros(())

    def add(self, image: Tensor, expected: Tensor, found: Tensor) -> None:
        if list(image.shape) not in self.shapes:
            self.shapes.append(list(image.shape))
        same = expected.argmax(dim=1) == found.argmax(dim=1)
        self.pixels += same.numel()
        self.equal += int(same.sum())
        difference, logit = (expected - found).abs().amax(dim=1), expected.abs().max()
        self.close += int((difference <= _CLOSE * logit).sum())
        # torch.maximum keeps a NaN, which then meets no tolerance.
        self.difference = torch.maximum(self.difference, difference.max())
        self.logit = torch.maximum(self.logit, logit)

    def result(self) -> Agreement:
        return Agreement(
            shapes=self.shapes,
            pixels=self.pixels,
            largest_difference=float(self.difference),
            largest_logit=float(self.logit),
            agreement=self.equal / self.pixels,
            close=self.close / self.pixels,
        )


def check(
    original: Segmenter,
    exported: Predict,
    items: Sequence[Item],
    *,
    classes: Sequence[str],
    tolerance: Mapping[str, float | None],
) -> Checked:
    """Runs both models on the same images.

    Args:
        original: The net with its preprocessing, in evaluation mode; it takes any size.
        exported: The model read back from the file.
        items: Test images and masks.
        classes: The class names.
        tolerance: As in `complaints`. Where the logits differ by more, the original itself is
            tested for being as sensitive.
    """
    same, others = _Comparison(), _Comparison()
    count, stride = len(classes), int(getattr(original.net, "stride", 1))
    confusions = [torch.zeros(count, count, dtype=torch.int64) for _ in range(2)]
    with torch.inference_mode():
        for image, mask in _batches(items):
            height, width = image.shape[-2:]
            expected = original(image)
            actual = exported(padded(image, stride))[..., :height, :width]
            same.add(image, expected, actual)
            for confusion, logits in zip(confusions, (expected, actual), strict=True):
                confusion += confusion_matrices(logits.argmax(dim=1), mask, count).sum(0)
        for image in _larger(items, stride):
            others.add(image, original(image), exported(image))
    before, after = (summarise(one, classes).get("mean_iou", float("nan")) for one in confusions)
    parts, limit = (same.result(), others.result()), tolerance["logits"]
    differ = limit is not None and any(part.relative > limit for part in parts)
    own = _own(original, items, stride) if differ else None
    return Checked(len(items), *parts, mean_iou=before, mean_iou_exported=after, own=own)


def _own(original: Segmenter, items: Sequence[Item], stride: int) -> Agreement:
    """Measures how far rounding alone moves the logits of the original.

    A net that compares activations, as max-unpooling does, jumps where two are nearly equal: there
    no two ways to compute it agree, and neither of them is wrong.
    """
    own, generator = _Comparison(), torch.Generator().manual_seed(0)
    batches = [[image for image, _ in _batches(items)], list(_larger(items, stride))]
    with torch.inference_mode():
        for images in batches:
            rounds = -(-_NUDGES // sum(map(len, images)))
            for image in images:
                pixels = original.preprocess(image)
                expected = original.net(pixels)
                for _ in range(rounds):
                    noise = torch.randn(pixels.shape, generator=generator)
                    own.add(image, expected, original.net(pixels * (1 + _NUDGE * noise)))
    return own.result()


def _batches(items: Sequence[Item]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields images (B, C, H, W) and masks (B, H, W)."""
    by_size: dict[torch.Size, list[Item]] = {}
    for item in items:
        by_size.setdefault(item["image"].shape, []).append(item)
    parts = [same[i : i + _BATCH] for same in by_size.values() for i in range(0, len(same), _BATCH)]
    for part in parts:
        yield torch.stack([i["image"] for i in part]), torch.stack([i["mask"] for i in part])


def padded(image: Tensor, stride: int) -> Tensor:
    """Repeats the last row and column until height and width are multiples of the stride.

    Args:
        image: uint8 (..., H, W).
        stride: The multiple.
    """
    height, width = image.shape[-2:]
    return continued(image, fitting(height, stride), fitting(width, stride))


def _larger(items: Sequence[Item], stride: int) -> Iterator[Tensor]:
    # Larger ones only: some nets have no smaller size than the one that they were trained at.
    height, width = (-(-side // stride) for side in items[0]["image"].shape[-2:])
    for batch, rows, columns in ((1, height + 2, width + 1), (3, height + 1, width + 2)):
        alike = [i["image"] for i in items if i["image"].shape == items[0]["image"].shape]
        few = torch.stack(alike[:batch])
        image = few.float()
        size = (rows * stride, columns * stride)
        resized = interpolate(image, size=size, mode="bilinear", antialias=True)
        yield resized.round().clamp(0, 255).to(torch.uint8) if few.dtype == torch.uint8 else resized


def complaints(checked: Checked, tolerance: Mapping[str, float | None]) -> list[str]:
    """Lists by how much a model exceeds each limit; empty if it passes.

    Args:
        checked: The results of the gate.
        tolerance: `logits`, the largest relative difference, or three times what rounding does to
            the original where that is more; `agreement`, the least share of pixels; `mean_iou`,
            the largest loss. None allows anything.
    """
    reasons = []
    logits, agreement, mean_iou = (tolerance[k] for k in ("logits", "agreement", "mean_iou"))
    if logits is not None and checked.own is not None:
        logits = max(logits, _SLACK * checked.own.relative)
    for where, part in (("", checked.same), (" at larger sizes", checked.others)):
        # Compared this way round, NaN is refused.
        if logits is not None and not part.relative <= logits:
            reasons.append(
                f"logits differ{where} by {part.relative:.2g} of the largest logit, "
                f"{logits:g} is allowed"
            )
        if agreement is not None and not part.agreement >= agreement:
            reasons.append(
                f"{part.agreement:.3%} of the pixels{where} are of the same class, "
                f"{agreement:.3%} is required"
            )
    if mean_iou is not None and not checked.mean_iou_loss <= mean_iou:
        reasons.append(
            f"mean IoU falls by {checked.mean_iou_loss:.4f}, from {checked.mean_iou:.4f} to "
            f"{checked.mean_iou_exported:.4f}; {mean_iou:g} is allowed"
        )
    return reasons
