"""Starts a training from the weights of another run."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from segpets.data import SegmentationDataModule
from segpets.errors import UserError
from segpets.module import SegmentationModule
from segpets.run.checkpoint import read_checkpoint
from segpets.run.directory import find_run, read_summary
from segpets.run.files import RunFiles
from segpets.run.protocol import tested_weights
from segpets.run.schema import read_plain
from segpets.run.stored import upgraded
from segpets.settings import table
from segpets.train.leaks import warn_of_leaks

log = logging.getLogger(__name__)


def start_from(
    cfg: DictConfig, module: SegmentationModule, datamodule: SegmentationDataModule
) -> list[str]:
    """Loads the weights of the run `init_from` that it tested, and says which don't fit.

    Those are the best by val, or the last where val must not choose.

    Args:
        cfg: The config; where `train` is false, weights that don't fit are an error.
        module: The module that receives the weights.
        datamodule: The data of this training, set up.

    Returns:
        The names of the net's weights that were taken over.

    Raises:
        UserError: There are no such weights, they can't be loaded, or too few of them fit.
    """
    run = cfg.init_from
    files = RunFiles(find_run(run, log_dir=Path(cfg.paths.log_dir), key="init_from"))
    _check_meaning(cfg, files, datamodule)
    tested = tested_weights(read_summary(files.path)).get("checkpoint")
    wanted = [files.last, files.best] if tested == "last" else [files.best, files.last]
    file = next((file for file in wanted if file.is_file()), None)
    if file is None:
        raise UserError(
            f"init_from={run}: {wanted[0]} is missing; that run has no weights to start from"
        )
    try:
        saved = read_checkpoint(file)["state_dict"]
    except UserError as error:
        raise UserError(f"init_from={run}: {error}") from error
    own = module.state_dict()
    fitting = {k: v for k, v in saved.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UserError(f"init_from={run}: not one of its weights fits this model")
    left = sorted((own.keys() | saved.keys()) - fitting.keys())
    if left and not cfg.train:
        raise UserError(
            f"init_from={run}: {len(left)} weights don't fit this model, for example {left[0]}: "
            "to test a run, choose the model that it trained"
        )
    module.load_state_dict(fitting, strict=False)
    log.info("Weights from %s: %d of %d tensors fit", file, len(fitting), len(own))
    if left:
        log.info("  not taken over: %s", ", ".join(left))
    return [name.removeprefix("net.") for name in fitting if name.startswith("net.")]


def _check_meaning(cfg: DictConfig, files: RunFiles, datamodule: SegmentationDataModule) -> None:
    """Compares what gives the weights their meaning: classes, their order, and normalisation.

    Raises:
        UserError: It differs, and the weights are to be tested as they are.
    """
    try:
        before = upgraded(read_plain(files.config)).get("data")
    except UserError as error:
        log.warning("init_from=%s: %s, so its classes aren't known", cfg.init_from, error)
        return
    now = table(cfg.data)
    if isinstance(before, dict):
        warn_of_leaks(files.path, before, read_summary(files.path), cfg, datamodule)
    other = [
        f"data.{key}=[{','.join(map(str, before[key]))}]"
        for key in ("classes", "mean", "std", "range")
        if isinstance(before, dict) and before.get(key) is not None
        if before[key] != now[key]
    ]
    if not other:
        return
    if not cfg.train:
        raise UserError(
            f"init_from={cfg.init_from}: its weights were trained with {' '.join(other)}, so their "
            "test under other ones means nothing: say the same here"
        )
    log.warning("init_from=%s was trained with %s", cfg.init_from, " ".join(other))
