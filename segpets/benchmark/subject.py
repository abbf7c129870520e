"""A model to be measured, as data that can be sent to another process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf

from segpets.build.instantiate import build
from segpets.inference.trained import Segmenter, load
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
        padded: The size that an exported file needs: the next multiple of the net's stride.
        run: The run that trained it; None makes a net with random weights.
        checkpoint: `best` or `last`; None takes the one that the run tested.
    """

    model: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    padded: int
    run: StoredRun | None = None
    checkpoint: str | None = None

    def segmenter(self, device: torch.device) -> Segmenter:
        """Makes the model, in evaluation mode and with channels last in memory."""
        if self.run is not None:
            return load(self.run, checkpoint=self.checkpoint, device=str(device)).segmenter
        net = build(OmegaConf.create(dict(self.model)), "model")
        segmenter = Segmenter(net, Preprocess(mean=self.mean, std=self.std)).to(device)
        segmenter.net.to(memory_format=torch.channels_last)
        return segmenter.eval().requires_grad_(False)
