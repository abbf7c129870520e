"""A model that is to be measured, in words that reach another process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from segpets.build import build
from segpets.module import Preprocess
from segpets.trained import Segmenter, load


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        model: The model's config, as plain data; used where there is no run.
        mean: Mean of each channel of its images.
        std: Standard deviation of each channel.
        size: Height and width of the images that it is measured with.
        padded: The size that an exported file wants: the next multiple of the net's stride.
        run: The run that trained it; None makes a net with random weights.
        checkpoint: `best` or `last`; None takes the one that the run tested.
        allow: Classes of the user's own that the run's config may name.
        folders: Folders with configs of the user's own.
    """

    model: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    padded: int
    run: Path | None = None
    checkpoint: str | None = None
    allow: Sequence[str] | None = None
    folders: Sequence[Path] = ()

    def segmenter(self, device: torch.device) -> Segmenter:
        """Makes it, in evaluation mode and with channels last in memory."""
        if self.run is not None:
            return load(
                self.run,
                checkpoint=self.checkpoint,
                device=str(device),
                allow=self.allow,
                folders=self.folders,
            ).segmenter
        net = build(OmegaConf.create(dict(self.model)), "model")
        segmenter = Segmenter(net, Preprocess(mean=self.mean, std=self.std)).to(device)
        segmenter.net.to(memory_format=torch.channels_last)
        return segmenter.eval().requires_grad_(False)
