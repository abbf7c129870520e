"""A run that goes on: in its directory, by its own config, from its last checkpoint."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf

from segpets.callback import MetricsCSV
from segpets.errors import UserError
from segpets.run import find_run
from segpets.stored import stored_config
from segpets.trust import listed, targets_of

log = logging.getLogger(__name__)

CHANGEABLE: Final = ("trainer.", "callback.", "data.num_workers", "test", "tags")
"""The keys that may differ when a run goes on; a key that ends in a dot stands for all below it."""


def resumed_config(
    cfg: DictConfig, overrides: Sequence[str], folders: Sequence[Path] = ()
) -> DictConfig:
    """The config of the run that goes on, with what was changed about it.

    Args:
        cfg: The config that the command line gave; its `resume` names the run.
        overrides: The command line's overrides; only they are taken from `cfg`.
        folders: Folders with configs of the user's own, whose classes the run may name, too.

    Raises:
        UserError: There is no such run, or an override would make another run of it.
    """
    if not any(override.startswith("resume=") for override in overrides):
        raise UserError(
            f"resume={cfg.resume}: give train() the list of overrides, too, since only they are "
            "taken over: train(compose(overrides), overrides=overrides)"
        )
    path = find_run(cfg.resume, log_dir=Path(cfg.paths.log_dir), key="resume")
    # What this command's own config names is the user's, as the classes of a sweep are.
    own = targets_of(OmegaConf.to_container(cfg, resolve=False))
    allow = [*listed(cfg.allow), *own]
    stored = OmegaConf.create(stored_config(path, allow=allow, folders=folders))
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key == "resume" or key.startswith("paths."):  # where the run lies is known
            continue
        if not key.startswith(CHANGEABLE):
            raise UserError(
                f"resume={cfg.resume} continues a run as it was, so {override} can't change it. "
                f"Start a new run with init_from={cfg.resume}, or change trainer.* and callback.* "
                "only, such as trainer.max_epochs"
            )
        OmegaConf.update(stored, key, OmegaConf.select(cfg, key), force_add=True)
    moved = _moved(OmegaConf.to_container(stored), stored.paths.output_dir, str(path))
    config = OmegaConf.create(moved)
    assert isinstance(config, DictConfig)
    return config


def _moved(node: Any, old: str, new: str) -> Any:
    """A config whose paths below one folder lie below another."""
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node.removeprefix(old)
    return node


def original_overrides(path: Path) -> list[str]:
    """The overrides that a run was started with, as Hydra noted them."""
    try:
        words = OmegaConf.to_container(OmegaConf.load(path / ".hydra" / "overrides.yaml"))
    except OSError:
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read; None if the run has to begin anew.

    It has to if it had saved none, or if its best weights are lost, which come from an epoch that
    would not be trained again.
    """
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    if best.exists() and not _readable(best):
        if not (last.exists() and last.samefile(best)):
            log.warning("%s can't be read, and with it the best weights are lost", best)
            log.info("The run begins anew")
            return None
        best.unlink()  # the last epoch was the best; it is trained again
    for file in (last, folder / "previous.ckpt"):
        if _readable(file):
            log.info("Continuing from %s", file)
            return file
    log.info("The run has no checkpoint yet: it begins anew")
    return None


def complete_csv(trainer: Trainer, checkpoint: Path) -> None:
    """Adds to metrics.csv what the checkpoint's epoch measured, if a kill came in between.

    Lightning gives an epoch's training metrics to loggers after the epoch's checkpoint.
    """
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    measured = {k: v for k, v in saved["metrics"].items() if k.startswith("train/")}
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCSV):
            logger.complete(saved["global_step"] - 1, measured)


def _readable(file: Path) -> bool:
    try:
        torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        return False
    except Exception as error:  # of damaged bytes: anything
        log.warning("%s can't be read (%s): the one before is taken", file, error)
        return False
    return True
