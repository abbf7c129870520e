"""Warns of images that another run was trained on, and this one is judged by."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from segpets.build.seen import is_split, keys_of, trained_on
from segpets.data import SegmentationDataModule
from segpets.run.files import shown
from segpets.run.stored import on_this_machine
from segpets.settings import table

log = logging.getLogger("segpets.train")


def warn_of_leaks(
    path: Path,
    before: Mapping[str, Any],
    summary: Mapping[str, Any],
    cfg: DictConfig,
    datamodule: SegmentationDataModule,
) -> None:
    """Warns if a run, whose weights or probabilities are used, has seen images of val or test.

    Args:
        path: The run.
        before: Its `data`.
        summary: Its summary.
        cfg: The config of this training.
        datamodule: Its data, set up.
    """
    now, before = table(cfg.data), on_this_machine(before)
    if before == on_this_machine(now) and is_split(datamodule.splits, summary):
        return  # which needn't be listed again
    seen = trained_on(cfg, before, now, summary)
    if seen is None:
        log.warning(
            "%s: its training images can't be listed, as where the data have changed since: some "
            "may be in this val or test, which then say too much",
            shown(path),
        )
        return
    for stage in ("val", "test"):
        samples = datamodule.splits[stage]
        known = keys_of(samples, now)
        if both := sorted(known[key].name for key in seen & known.keys()):
            log.warning(
                "%s was trained on %d of the %d images of %s, such as %s, which then says too much",
                shown(path),
                len(both),
                len(samples),
                stage,
                both[0],
            )
