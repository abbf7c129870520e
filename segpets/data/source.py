"""What a data set tells of itself: the names of its images and how their masks are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its mask, as files.

    Attributes:
        name: Unique within the data set; letters, digits, `.`, `_` and `-` only.
        image: The image's file.
        mask: The mask's file.
        attributes: What else is known, such as breed and species; the same keys for all samples.
    """

    name: str
    image: Path
    mask: Path
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples of each stage.

    Attributes:
        train: What the weights are fitted to.
        val: What models are chosen by, unless `val_is_test`.
        test: What is reported.
        augment_val: Whether validation images are augmented like training images.
        val_is_test: Whether val holds the test images. Then no epoch may be chosen by val.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]
    augment_val: bool = False
    val_is_test: bool = False


class Source(Protocol):
    """A data set: a small class that reads names, not pixels."""

    def splits(self) -> Splits:
        """Lists the samples of each stage.

        Raises:
            UserError: A file or folder is missing, or a split is empty.
        """
        ...

    @property
    def mask_ids(self) -> Callable[[Mask, Path], Mask]:
        """Turns the values that a mask's file holds, (H, W), into class ids and 255 = ignore.

        Raises:
            UserError: A value means nothing. The path is for that message.
        """
        ...


def holdout(
    samples: Sequence[Sample], *, fraction: float, by: str, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Splits samples in two, in the same proportion within each value of an attribute.

    Which samples are held out depends on the set of names, the fraction and the seed alone, not
    on their order.

    Args:
        samples: What to split.
        fraction: The part to hold out, within (0, 1); rounded for each value of the attribute,
            but at least one image is held out and at least one kept where there are two.
        by: The attribute, such as `breed`.
        seed: Another seed, another choice.

    Returns:
        The kept and the held-out samples, in the order of `samples`.
    """
    groups: dict[str, list[str]] = {}
    for sample in samples:
        groups.setdefault(sample.attributes[by], []).append(sample.name)
    held_out: set[str] = set()
    for index, key in enumerate(sorted(groups)):
        names = sorted(groups[key])
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        chosen = np.random.default_rng([seed, index]).permutation(len(names))[:count]
        held_out.update(names[i] for i in chosen)
    kept = [sample for sample in samples if sample.name not in held_out]
    return kept, [sample for sample in samples if sample.name in held_out]
