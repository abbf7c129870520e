"""The teacher of a distillation: a run, or several, whose probabilities are averaged."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from segpets.build.cost import cost_of
from segpets.data import SegmentationDataModule
from segpets.data.geometry import trained_size
from segpets.distillation import Distillation
from segpets.errors import UserError
from segpets.hardware import threads
from segpets.inference.ensemble import load_runs, open_runs
from segpets.inference.trained import Trained
from segpets.report.grid import number
from segpets.run.files import shown
from segpets.run.protocol import bands_of, labels_of
from segpets.run.trust import Trust
from segpets.settings import table
from segpets.train.leaks import warn_of_leaks

log = logging.getLogger("segpets.train")


def distillation_of(
    cfg: DictConfig, datamodule: SegmentationDataModule, trust: Trust
) -> Distillation | None:
    """Loads the runs that `teacher` names, and says what they cost; None without any.

    Args:
        cfg: The config, which may be that of a run that another made.
        datamodule: The data, set up.
        trust: Whose classes the config of a teacher may name.

    Raises:
        UserError: There is no such run, or its logits mean something else.
    """
    if cfg.get("teacher") is None:
        words = (str(word).partition("=")[0] for word in cfg.get("overrides") or [])
        if idle := [word for word in words if word.startswith("teacher_")]:
            log.warning("%s changes nothing without teacher=RUN", idle[0])
        return None
    if not cfg.train:
        log.warning("teacher changes nothing with train=false")
        return None
    named = OmegaConf.to_container(cfg.teacher) if OmegaConf.is_config(cfg.teacher) else cfg.teacher
    try:
        runs = open_runs(named, log_dir=Path(cfg.paths.log_dir), trust=trust, key="teacher")
        teacher = load_runs(runs, device="cpu")
    except UserError as error:
        raise UserError(
            f"{error}. A training needs its teacher at each start, also when it goes on: put it "
            "back, or name where it lies now, teacher=RUN"
        ) from error
    _check_alike(cfg, teacher, datamodule)
    for run in runs:
        warn_of_leaks(run.path, run.config["data"], run.summary, cfg, datamodule)
    with threads(1):
        size = trained_size(cfg.data)
        cost = cost_of(teacher.segmenter.net, size, datamodule.reader.channels)
    names = ", ".join(shown(run.path) for run in runs)
    log.info(
        "Taught by %s: %s parameters and %s mult-adds more for each training image",
        names,
        number(cost.params),
        number(cost.mult_adds),
    )
    try:
        made = Distillation(
            teacher.segmenter,
            weight=float(cfg.teacher_weight),
            temperature=float(cfg.teacher_temperature),
        )
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    made.facts = {"runs": [str(run.path) for run in runs], "params": cost.params}
    made.facts |= {"mult_adds": cost.mult_adds, "weights": _digest(teacher.segmenter)}
    return made


def check_same_teacher(before: object, now: Mapping[str, Any]) -> None:
    """Refuses to go on with another teacher than a run began with.

    Args:
        before: What the run's summary says of its teacher; nothing if it begins.
        now: `Distillation.facts`.

    Raises:
        UserError: Its weights differ.
    """
    known = before.get("weights") if isinstance(before, Mapping) else None
    if known is not None and known != now["weights"]:
        raise UserError(
            f"teacher={','.join(now['runs'])} has other weights than the teacher that this run "
            "began with: put that one back, or name where it lies now, teacher=RUN"
        )


def _digest(net: nn.Module) -> str:
    """Computes the SHA-256 of a net's weights, with their names."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _named(cfg: DictConfig) -> str:
    given = table(cfg)["teacher"]
    return given if isinstance(given, str) else f"[{','.join(map(str, given))}]"


def _check_alike(cfg: DictConfig, teacher: Trained, datamodule: SegmentationDataModule) -> None:
    """Refuses a teacher whose classes or channels are others."""
    classes = [str(name) for name in cfg.data.classes]
    if list(teacher.classes) != classes:
        raise UserError(
            f"teacher={_named(cfg)} knows the classes {', '.join(teacher.classes)}, but the data "
            f"have {', '.join(classes)}: its probabilities would mean something else"
        )
    for key, of in (("labels", labels_of), ("bands", bands_of)):
        here, there = of(table(cfg.data)), of(teacher.config["data"])
        if here != there:
            raise UserError(
                f"teacher={_named(cfg)} was trained with data.{key}={there}, but the data have "
                f"data.{key}={here}: its probabilities would mean something else"
            )
    for key in ("channels", "range"):
        here, there = getattr(datamodule.reader, key), getattr(teacher.reader, key)
        if here != there:
            raise UserError(
                f"teacher={_named(cfg)} was trained with data.{key}={there}, but the data have "
                f"data.{key}={here}"
            )
