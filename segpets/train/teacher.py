"""The teacher of a distillation: a run, or several, whose probabilities are averaged."""

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from segpets.build.cost import cost_of
from segpets.data import SegmentationDataModule
from segpets.distillation import Distillation
from segpets.errors import UserError
from segpets.hardware import threads
from segpets.inference.ensemble import load_runs, open_runs
from segpets.inference.trained import Trained
from segpets.report.grid import number
from segpets.run.files import shown
from segpets.run.trust import Trust

log = logging.getLogger("segpets.train")


def distillation_of(cfg: DictConfig, datamodule: SegmentationDataModule) -> Distillation | None:
    """Loads the runs that `teacher` names, and says what they cost; None without any.

    Raises:
        UserError: There is no such run, or its logits mean something else.
    """
    if cfg.get("teacher") is None:
        return None
    named = OmegaConf.to_container(cfg.teacher) if OmegaConf.is_config(cfg.teacher) else cfg.teacher
    trust = Trust.of(cfg.get("allow"))
    try:
        runs = open_runs(named, log_dir=Path(cfg.paths.log_dir), trust=trust)
        teacher = load_runs(runs, device="cpu")
    except UserError as error:
        raise UserError(
            f"teacher={cfg.teacher}: {error}. A training needs its teacher at each start, also "
            "when it goes on"
        ) from error
    _check_alike(cfg, teacher, datamodule)
    with threads(1):
        cost = cost_of(teacher.segmenter.net, datamodule.size, datamodule.reader.channels)
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
    made.facts["mult_adds"] = cost.mult_adds
    return made


def _check_alike(cfg: DictConfig, teacher: Trained, datamodule: SegmentationDataModule) -> None:
    """Refuses a teacher whose classes or channels are others."""
    classes = [str(name) for name in cfg.data.classes]
    if list(teacher.classes) != classes:
        raise UserError(
            f"teacher={cfg.teacher} knows the classes {', '.join(teacher.classes)}, but the data "
            f"have {', '.join(classes)}: its probabilities would mean something else"
        )
    for key in ("channels", "range"):
        here, there = getattr(datamodule.reader, key), getattr(teacher.reader, key)
        if here != there:
            raise UserError(
                f"teacher={cfg.teacher} was trained with data.{key}={there}, but the data have "
                f"data.{key}={here}"
            )
