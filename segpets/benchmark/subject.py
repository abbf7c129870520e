"""A model to be measured, as data that can be sent to another process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from segpets.build.instantiate import build
from segpets.data.geometry import Size
from segpets.inference.ensemble import load_runs
from segpets.inference.trained import Segmenter
from segpets.model.pad import fitting
from segpets.module import Preprocess
from segpets.run.stored import StoredRun


@dataclass(frozen=True)
class Subject:
    """A model, and the size of the images that it is measured with.

    Attributes:
        model: The model's config, as plain data; used where there is no run.
        mean: Mean of each channel of its images.
        std: Standard deviation of each channel.
        size: Height and width of the images.
        stride: The multiple that height and width must be for an exported file.
        channels: C of the images.
        white: The value that stands for 1; 255 for uint8.
        run: The run that trained it; None makes a net with random weights.
        others: The further runs of an ensemble.
        checkpoint: `best` or `last`; None takes the one that the run tested.
    """

    model: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    size: Size
    stride: int
    channels: int = 3
    white: float = 255
    run: StoredRun | None = None
    others: tuple[StoredRun, ...] = ()
    checkpoint: str | None = None

    @property
    def padded(self) -> Size:
        """The size that an exported file needs."""
        return fitting(self.size[0], self.stride), fitting(self.size[1], self.stride)

    def images(self, batch: int, size: Size) -> Tensor:
        """Draws random pixels, (B, C, H, W), the same for all variants."""
        generator = torch.Generator().manual_seed(1)
        shape = (batch, self.channels, *size)
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return drawn if self.white == 255 else drawn.float() / 255

    def segmenter(self, device: torch.device) -> Segmenter:
        """Makes the model, in evaluation mode and with channels last in memory."""
        if self.run is not None:
            runs = (self.run, *self.others)
            return load_runs(runs, checkpoint=self.checkpoint, device=str(device)).segmenter
        net = build(OmegaConf.create(dict(self.model)), "model")
        segmenter = Segmenter(net, Preprocess(mean=self.mean, std=self.std, white=self.white)).to(
            device
        )
        segmenter.net.to(memory_format=torch.channels_last)
        return segmenter.eval().requires_grad_(False)
