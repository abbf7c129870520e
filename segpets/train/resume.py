"""Resumes a run: in its directory, with its own config, from its last checkpoint."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from segpets.callback import MetricsCSV
from segpets.data import SegmentationDataModule
from segpets.errors import FileError, UserError
from segpets.inference.ensemble import run_paths
from segpets.run.checkpoint import LostError, read_checkpoint, verify
from segpets.run.confine import check_links, check_paths
from segpets.run.directory import Run, find_run
from segpets.run.files import LATEST, set_aside, shown
from segpets.run.find import words_of
from segpets.run.job import is_job
from segpets.run.jobs import latest_of
from segpets.run.names import fingerprint
from segpets.run.protocol import SPLIT_NAMES, split_names
from segpets.run.ranks import current
from segpets.run.stored import ACTING, StoredRun, on_this_machine, open_run
from segpets.run.trust import Trust
from segpets.settings import Settings, table

log = logging.getLogger("segpets.train")

CHANGEABLE: Final = (
    *("trainer.", "callback.", "logger.", "data.root", "data.num_workers", "data.download"),
    *("test", "tags"),
)
"""The keys that may differ when a run goes on; a key that ends in a dot stands for all below it."""
_CHOOSES: Final = ("callback.best_and_last", "callback.best_and_last.monitor")
"""By which the best epoch so far was chosen."""


class TrainSettings(Settings):
    """Keys of a training that no component checks."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    train: bool
    test: bool
    aux_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    teacher_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    teacher_temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0


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
        named, run, facts = _with_facts(cfg, facts)
        return _named(named), run, facts
    changes = list(cfg.overrides)
    cfg = _named(cfg)
    # What this command's own config names is the user's, as the classes of a sweep are.
    own = trust.allowing(OmegaConf.to_container(cfg, resolve=False))
    stored = open_run(cfg.resume, log_dir=cfg.paths.log_dir, trust=own, key="resume")
    check_links(stored.path)
    config = OmegaConf.create(stored.config | {"data": _data(cfg, stored.config["data"])})
    assert isinstance(config, DictConfig)
    for override in changes:
        key = override.lstrip("+").partition("=")[0]
        if key in ("resume", "allow") or key.startswith("paths."):  # where the run lies is known
            continue
        taught = stored.config.get("teacher") is not None and cfg.get("teacher") is not None
        moves_teacher = key == "teacher" and taught
        may = moves_teacher or key.startswith(CHANGEABLE)  # a teacher's weights are compared
        if not may or key in _CHOOSES:
            raise UserError(
                f"resume={cfg.resume} continues a run as it was, so {override} can't change it. "
                f"Start a new run with init_from={cfg.resume}, or change trainer.*, callback.* "
                "and, if the data lie elsewhere now, data.root only"
            )
        OmegaConf.update(config, key, OmegaConf.select(cfg, key), force_add=True)
    here = moved(OmegaConf.to_container(config), _old_place(stored), str(stored.path))
    check_paths(here, stored.path, own=table(cfg))
    own_paths = table(cfg.paths) | {"output_dir": str(stored.path)}
    config = OmegaConf.create(here | {"paths": own_paths})
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


def _named(cfg: DictConfig) -> DictConfig:
    """Writes out which runs `init_from` and `teacher` name: `latest` will soon be another one."""
    log_dir = Path(cfg.paths.log_dir)
    of_sweep = latest_of(Path(cfg.paths.output_dir).parent) if is_job() else None

    def meant(run: Any) -> Any:
        return str(of_sweep) if of_sweep is not None and run == LATEST else run

    with suppress(UserError):  # what isn't there is said where it is loaded, in the run's own log
        if cfg.init_from is not None:
            cfg.init_from = str(find_run(meant(cfg.init_from), log_dir=log_dir, key="init_from"))
        if cfg.teacher is not None:
            teacher = [*map(meant, words_of(cfg.teacher))]
            found = run_paths(teacher, log_dir=log_dir, key="teacher")
            cfg.teacher = [str(find_run(run, log_dir=log_dir, key="teacher")) for run in found]
    return cfg


def moved(node: Any, old: str, new: str) -> Any:
    """Copies a config, with the paths below one folder below another."""
    if isinstance(node, dict):
        return {key: moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [moved(value, old, new) for value in node]
    if isinstance(node, str) and (node == old or node.startswith(f"{old}/")):
        return new + node.removeprefix(old)
    return node


def check_same_data(
    path: Path, summary: Mapping[str, Any], datamodule: SegmentationDataModule
) -> None:
    """Refuses to go on with other images than a run began with.

    Args:
        path: The run.
        summary: What it says of its data; nothing if it begins.
        datamodule: The data, set up.

    Raises:
        UserError: Images were added, moved to another split, taken away or changed.
    """
    noted, now = summary.get(SPLIT_NAMES), split_names(datamodule.splits)
    other = [
        stage for stage in now if isinstance(noted, Mapping) and noted.get(stage) != now[stage]
    ]
    if other:
        what = f"the images of {' and '.join(other)} aren't those with which this run began"
    elif summary.get("data_fingerprint") not in (None, datamodule.pixels.fingerprint):
        what = "images or masks have changed since this run began"
    else:
        return
    raise UserError(
        f"{what}, so it can't go on as it was: put the data back as they were, or start a new run "
        f"with init_from={shown(path)}"
    )


def checkpoint_to_resume(run: Run, trainer: Trainer) -> Path | None:
    """Finds the checkpoint from which a run goes on; None if it had saved none.

    Raises:
        LostError: None can be read, or the best weights can't, which no later epoch brings back.
    """
    if (ranks := current()) is None:
        return newest_checkpoint(run, trainer)
    found = ranks.same("checkpoint", lambda: str(newest_checkpoint(run, trainer) or ""))
    return Path(found) if found else None


def newest_checkpoint(run: Run, trainer: Trainer) -> Path | None:
    """Finds the checkpoint from which a run goes on; None if it had saved none.

    A damaged one is kept aside, and the one before is taken. Nothing begins anew over checkpoints
    that are there: they may be sound, and unreadable for a while or for this PyTorch only.

    Raises:
        LostError: None can be read, or the best weights can't, which no later epoch brings back.
    """
    files = run.files
    last, best = files.last, files.best
    there = [file for file in (last, files.previous) if file.exists()]
    reasons = {file: reason for file in {*there, best} if (reason := _unreadable(file))}
    sound = [file for file in there if file not in reasons]
    if there and not sound:
        raise LostError(
            f"{there[0]} {reasons[there[0]]}, and there is no sound checkpoint beside it. It is "
            "left as it is: if PyTorch, the disk or the memory is to blame, mend that and resume; "
            "else begin a new run"
        )
    if best in reasons and not (last.exists() and last.samefile(best)):
        raise LostError(
            f"{best} {reasons[best]}, and with it the best weights are lost. Put a copy back; or "
            "move it away, and resume=RUN goes on and chooses the best of the epochs to come; "
            "or begin a new run with init_from=RUN"
        )
    if not there:
        log.info("The run has no checkpoint yet: it begins anew")
        _prepare_loggers(trainer, {"global_step": 0, "batches": 0, "metrics": {}}, tested=False)
        return None
    if last in reasons:
        aside = set_aside(last, "damaged")
        log.warning(
            "%s %s: the one before is taken; it is kept as %s", last, reasons[last], aside.name
        )
        if best in reasons:  # the same file
            best.unlink()  # the last epoch was the best; it is trained again
    saved = read_checkpoint(sound[0])
    place = f", epoch {saved['epoch'] + 1} after batch {n}" if (n := saved.get("batches")) else ""
    log.info("Continuing from %s%s", sound[0], place)
    _prepare_loggers(trainer, saved, tested=run.extended)
    return sound[0]


def _unreadable(file: Path) -> str | None:
    """Says what is wrong with a checkpoint; None if nothing is, or it isn't there."""
    try:
        if file.exists():
            verify(file)
            read_checkpoint(file)
    except FileError as error:
        return error.problem
    return None


def _prepare_loggers(trainer: Trainer, saved: dict[str, Any], *, tested: bool) -> None:
    """Lets the learning curves go on from a checkpoint without gaps or doubles.

    Lightning gives an epoch's training metrics to loggers after the epoch's checkpoint, so a kill
    may have kept them out. TensorBoard leaves out what a killed process logged after the
    checkpoint; the results of an earlier end, which were logged at the very step, stay, unless that
    end is measured again.
    """
    step, within = saved["global_step"], bool(saved.get("batches"))
    at_its_end = saved.get("epoch", 0) + 1 == trainer.max_epochs and not within
    metrics = {} if within else saved["metrics"]
    measured = {k: v for k, v in metrics.items() if k.startswith("train/")}
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCSV):
            logger.go_on(step, measured)
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step + (tested and not within and not at_its_end)
