"""Starts a training from the weights of another run."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from segpets.errors import UserError
from segpets.module import SegmentationModule
from segpets.run.checkpoint import read_checkpoint
from segpets.run.directory import find_run
from segpets.run.files import RunFiles

log = logging.getLogger(__name__)


def start_from(cfg: DictConfig, module: SegmentationModule) -> None:
    """Loads the best weights of the run `init_from`, and says which of them don't fit.

    Args:
        cfg: The config; where `train` is false, weights that don't fit are an error.
        module: The module that receives the weights.

    Raises:
        UserError: There are no such weights, they can't be loaded, or too few of them fit.
    """
    run = cfg.init_from
    file = RunFiles(find_run(run, log_dir=Path(cfg.paths.log_dir), key="init_from")).best
    if not file.is_file():
        raise UserError(
            f"init_from={run}: {file} is missing; that run has no weights to start from"
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
