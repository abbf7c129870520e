"""Makes what a training, or one of its steps that is run again, consists of."""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lightning.pytorch import seed_everything
from omegaconf import DictConfig
from torch import nn

from segpets.build.cost import Cost
from segpets.build.objects import build_data, build_module, build_net
from segpets.data import SegmentationDataModule
from segpets.errors import UserError
from segpets.inference.trained import without_pretrained
from segpets.loss.base import SegmentationLoss, balanced
from segpets.module import SegmentationModule
from segpets.run.checkpoint import read_checkpoint
from segpets.run.trust import Trust
from segpets.settings import table
from segpets.train.teacher import distillation_of
from segpets.train.weights import start_from

log = logging.getLogger("segpets.train")


def weigh(loss: nn.Module, data: SegmentationDataModule, classes: Sequence[str]) -> None:
    """Gives the parts of a loss with `class_weights=auto` their weights; checks the others'.

    Raises:
        UserError: Only classes that no training image shows have a weight.
    """
    parts = [part for part in loss.modules() if isinstance(part, SegmentationLoss)]
    if not any(part.chosen_weights is not None for part in parts):
        return
    pixels = data.class_pixels(len(classes))
    automatic = balanced(pixels)
    for part in parts:
        if part.wants_weights:
            part.weigh(automatic)
        elif not any(part.class_weights[index] for index, count in enumerate(pixels) if count):
            raise UserError(
                f"loss.class_weights is {part.class_weights.tolist()}, 0 for every class that the "
                "training images show: nothing would be learnt"
            )
    if absent := [name for name, count in zip(classes, pixels, strict=True) if not count]:
        log.warning("No training image shows %s: its weight counts nothing", ", ".join(absent))


def seeded_parts(
    cfg: DictConfig, trust: Trust, *, checkpoint: Path | None = None
) -> tuple[SegmentationDataModule, SegmentationModule, Cost]:
    """Seeds all random numbers, and makes data, set up, and module, with the weights to begin with.

    Args:
        cfg: The config, which may be that of a run that another made.
        trust: Whose classes the config of a teacher may name: the user's, whatever `cfg` allows.
        checkpoint: The one that will replace the weights of a training that goes on, so that none
            are fetched.

    Raises:
        UserError: One of them can't be made.
    """
    if checkpoint is not None:
        cfg = copy.copy(cfg)
        cfg.model = without_pretrained(table(cfg.model))
    seed_everything(cfg.seed, verbose=False)
    datamodule = build_data(cfg)
    datamodule.setup()
    net, cost = build_net(cfg)
    module = build_module(cfg, net)
    weigh(module.loss, datamodule, list(cfg.data.classes))
    try:
        module.freeze_weights(brought=_brought(cfg, module, datamodule, checkpoint))
    except ValueError as error:
        raise UserError(str(error)) from error
    module.distillation = distillation_of(cfg, datamodule, trust)
    return datamodule, module, cost


def _brought(
    cfg: DictConfig,
    module: SegmentationModule,
    datamodule: SegmentationDataModule,
    checkpoint: Path | None,
) -> list[str]:
    """Takes over the weights of `init_from`, or reads which they were, for that run may be gone."""
    if cfg.init_from is None:
        return []
    with suppress(UserError):
        noted = None if checkpoint is None else read_checkpoint(checkpoint).get("brought")
        if isinstance(noted, list):
            return [str(name) for name in noted]
    return start_from(cfg, module, datamodule)
