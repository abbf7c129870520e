"""Resumes a run: in its directory, with its own config, from its last checkpoint."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from segpets.callback import MetricsCSV
from segpets.errors import FileError, UserError
from segpets.run.checkpoint import read_checkpoint
from segpets.run.confine import check_links, check_paths
from segpets.run.directory import Run
from segpets.run.files import RunFiles
from segpets.run.names import fingerprint
from segpets.run.stored import ACTING, StoredRun, on_this_machine, open_run
from segpets.run.trust import Trust
from segpets.settings import Settings, table

log = logging.getLogger("segpets.train")

CHANGEABLE: Final = (
    *("trainer.", "callback.", "logger.", "data.num_workers", "data.download", "test", "tags"),
)
"""The keys that may differ when a run goes on; a key that ends in a dot stands for all below it."""


class TrainSettings(Settings):
    """Keys of a training that no component checks."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    train: bool
    test: bool


def opened(cfg: DictConfig, trust: Trust) -> tuple[DictConfig, Run, dict[str, Any]]:
    """Prepares a training: a new one, or the one that `resume` names.

    Args:
        cfg: The composed config.
        trust: Whose classes the config of a resumed run may name.

    Returns:
        The config with every reference filled in, the run, and the facts that its summary begins
        with.

    Raises:
        UserError: There is no such run, or an override would make it a different run.
    """
    if cfg.resume is None:
        facts = {
            "task": "train",
            "overrides": list(cfg.overrides),
            "config_fingerprint": fingerprint(cfg),
            "threads": torch.get_num_threads(),
        }
        return _with_facts(cfg, facts)
    changes = list(cfg.overrides)
    # What this command's own config names is the user's, as the classes of a sweep are.
    own = trust.allowing(OmegaConf.to_container(cfg, resolve=False))
    stored = open_run(cfg.resume, log_dir=cfg.paths.log_dir, trust=own, key="resume")
    check_links(stored.path)
    config = OmegaConf.create(stored.config | {"data": _data(cfg, stored.config["data"])})
    assert isinstance(config, DictConfig)
    for override in changes:
        key = override.lstrip("+").partition("=")[0]
        if key == "resume" or key.startswith("paths."):  # where the run lies is known
            continue
        if not key.startswith(CHANGEABLE):
            raise UserError(
                f"resume={cfg.resume} continues a run as it was, so {override} can't change it. "
                f"Start a new run with init_from={cfg.resume}, or change trainer.* and callback.* "
                "only, such as trainer.max_epochs"
            )
        OmegaConf.update(config, key, OmegaConf.select(cfg, key), force_add=True)
    moved = _moved(OmegaConf.to_container(config), _old_place(stored), str(stored.path))
    check_paths(moved, stored.path, own=table(cfg))
    own_paths = table(cfg.paths) | {"output_dir": str(stored.path)}
    config = OmegaConf.create(moved | {"paths": own_paths})
    assert isinstance(config, DictConfig)
    begun_with = stored.summary.get("overrides", stored.config.get("overrides", []))
    facts = {"overrides": begun_with, "resumed": [*stored.summary.get("resumed", []), changes]}
    if any(not word.startswith(("resume=", "paths.")) for word in changes):
        facts["config_fingerprint"] = fingerprint(config)  # it isn't what it was
    return _with_facts(config, facts)


def _data(cfg: DictConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """The run's data here; what acts, as a download, is taken from this command alone."""
    here = on_this_machine(data)
    if cfg.data.get("_target_") == data["_target_"]:
        own = table(cfg.data)
        here |= {key: own[key] for key in ACTING if key in own and key in here}
    return here


def _old_place(stored: StoredRun) -> str:
    paths = stored.config.get("paths")
    place = paths.get("output_dir") if isinstance(paths, dict) else None
    if not isinstance(place, str) or not place.strip("/"):
        raise UserError(f"{stored.files.config} says nothing of paths.output_dir: it is damaged")
    return place


def _with_facts(cfg: DictConfig, facts: dict[str, Any]) -> tuple[DictConfig, Run, dict[str, Any]]:
    settings = TrainSettings.of(cfg)
    if not settings.train and cfg.init_from is None:
        raise UserError("train=false tests weights that are there: add init_from=RUN")
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    assert isinstance(resolved, DictConfig)
    facts |= {"seed": resolved.seed, "tags": OmegaConf.to_container(resolved.tags)}
    return resolved, Run(Path(resolved.paths.output_dir)), facts


def _moved(node: Any, old: str, new: str) -> Any:
    """Copies a config, with the paths below one folder below another."""
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_moved(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node.removeprefix(old)
    return node


def newest_checkpoint(files: RunFiles, trainer: Trainer) -> Path | None:
    """Finds a run's newest readable checkpoint; None if the run has to start over.

    It has to if it had saved none, or if it has lost its best weights and they come from an epoch
    that would not be trained again.
    """
    last, best = files.last, files.best
    if best.exists() and _read(best) is None:
        if not (last.exists() and last.samefile(best)):
            log.warning("%s can't be read, and with it the best weights are lost", best)
            log.info("The run begins anew")
            return None
        best.unlink()  # the last epoch was the best; it is trained again
    for file in (last, files.previous):
        if (saved := _read(file)) is not None:
            log.info("Continuing from %s", file)
            _complete_csv(trainer, saved)
            return file
    log.info("The run has no checkpoint yet: it begins anew")
    return None


def _complete_csv(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Adds to the learning curves what the checkpoint's epoch measured, if a kill kept it out.

    Lightning gives an epoch's training metrics to loggers after the epoch's checkpoint.
    """
    measured = {k: v for k, v in saved["metrics"].items() if k.startswith("train/")}
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCSV):
            logger.complete(saved["global_step"] - 1, measured)


def _read(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        return read_checkpoint(file)
    except FileError as error:
        log.warning("%s can't be read (%s): the one before is taken", file, error.problem)
        return None
