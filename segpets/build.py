"""Configs to objects: what every command that needs a model shares."""

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig
from torch import Tensor, nn

from segpets import trial
from segpets.cost import Cost, measure
from segpets.errors import UserError, out_of_memory
from segpets.module import Preprocess, SegmentationModule
from segpets.run import find_run

log = logging.getLogger(__name__)


def build(node: Any, key: str, **kwargs: Any) -> Any:
    """Makes the object that a config describes.

    Args:
        node: A config with `_target_`.
        key: What it is, for the message of an error.
        **kwargs: Further arguments.

    Raises:
        UserError: Its constructor refuses the config.
    """
    try:
        return instantiate(node, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, ImportError):
            told = [str(e) for e in _chain(error)]
            located = [m[1] for t in told if (m := re.search(r"locating target '(.+?)'", t))]
            if located:
                raise UserError(f"{key}: {_not_imported(cause, located[-1])}") from error
        raise UserError(f"{key}: {cause}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__


def _not_imported(error: ImportError, target: str) -> str:
    """Why the class of a config can't be imported, and what to do about it."""
    *_, cause = _chain(error)
    missing = getattr(cause, "name", None)
    module = target.partition(".")[0]
    if not isinstance(cause, ModuleNotFoundError) or not missing:
        return f"{target} can't be imported ({cause})"
    if missing == module:
        return (
            f"{target} can't be imported, since Python finds no module {module}. The folder with "
            f"{module}.py must be on PYTHONPATH: PYTHONPATH=FOLDER python -m segpets.train ..."
        )
    if target.startswith(f"{missing}."):
        return f"{target} can't be imported, since there is no module {missing}"
    if missing == target:
        file, _, name = target.rpartition(".")
        return f"{target} can't be imported, since the module {file} has no {name}"
    return f"{target} can't be imported, since it imports {missing}, which isn't installed"


def build_net(cfg: DictConfig) -> tuple[nn.Module, Cost]:
    """Makes the net and counts what it costs; a net that doesn't fit the data is found here.

    Raises:
        UserError: It refuses images of the data's size, or its logits have another shape.
    """
    net: nn.Module = build(cfg.model, "model")
    size = (cfg.data.size, cfg.data.size)
    expected = (1, len(cfg.data.classes), *size)
    threads = torch.get_num_threads()
    # Where other programs keep the cores busy, waiting for threads took seconds; one takes 0.1 s.
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            logits = net.eval()(torch.zeros(1, 3, *size))
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        cost = measure(net.train(), size)
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        told = trial.words(error, net)
        if "must match" in told or "must be equal" in told:
            told += (
                ". Where halving and doubling lead to other sizes, call "
                "segpets.model.pad.pad_to_multiple first and crop the logits"
            )
        raise UserError(
            f"the model {cfg.model._target_} doesn't take images of {size[0]}x{size[1]}: {told}"
        ) from error
    finally:
        torch.set_num_threads(threads)
    if shape != expected:
        raise UserError(
            f"the model {cfg.model._target_} maps (1, 3, {size[0]}, {size[1]}) to {shape}, but "
            f"should give logits for {len(cfg.data.classes)} classes, {expected}"
        )
    return net, cost


def build_module(cfg: DictConfig, net: nn.Module) -> SegmentationModule:
    """Puts net, loss, optimizer and schedule together.

    Raises:
        UserError: One of them can't be made, or the loss is none to train with.
    """
    loss = build(cfg.loss, "loss")
    trial.try_loss(loss, classes=len(cfg.data.classes), size=cfg.data.size)
    return SegmentationModule(
        net=net,
        loss=loss,
        preprocess=Preprocess(mean=cfg.data.mean, std=cfg.data.std),
        optimizer=build(cfg.optimizer, "optimizer"),
        scheduler=build(cfg.scheduler, "scheduler"),
        classes=cfg.data.classes,
    )


def build_trainer(cfg: DictConfig, *, extra_callbacks: Sequence[Callback] = ()) -> Trainer:
    """Makes Lightning's Trainer with the callbacks and loggers of the config."""
    callbacks = [build(callback, f"callback.{name}") for name, callback in cfg.callback.items()]
    loggers = [build(logger, f"logger.{name}") for name, logger in cfg.logger.items()]
    if not loggers:  # it refuses to be without one
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    every = [*callbacks, *extra_callbacks]
    try:
        trainer: Trainer = build(cfg.trainer, "trainer", callbacks=every, logger=loggers)
    except UserError as error:
        if cfg.trainer.accelerator in ("auto", "cpu"):
            raise
        raise UserError(f"{error} trainer=auto takes what this machine has") from error
    return trainer


def initialise(module: SegmentationModule, run: str, *, log_dir: Path, all_of_them: bool) -> None:
    """Starts from another run's best weights; says which of them don't fit.

    Args:
        module: What gets the weights.
        run: The run's directory, or `latest`.
        log_dir: Where `latest` is looked for.
        all_of_them: Whether weights that don't fit are an error, as in a test without training.

    Raises:
        UserError: There are no such weights, they can't be loaded, or too few of them fit.
    """
    file = find_run(run, log_dir=log_dir, key="init_from") / "checkpoints" / "best.ckpt"
    if not file.is_file():
        raise UserError(
            f"init_from={run}: {file} is missing; that run has no weights to start from"
        )
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise UserError(f"init_from={run}: {file} can't be loaded: {error}") from error
    own = module.state_dict()
    fitting = {k: v for k, v in saved.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise UserError(f"init_from={run}: not one of its weights fits this model")
    left = sorted((own.keys() | saved.keys()) - fitting.keys())
    if left and all_of_them:
        raise UserError(
            f"init_from={run}: {len(left)} weights don't fit this model, for example {left[0]}: "
            "to test a run, choose the model that it trained"
        )
    module.load_state_dict(fitting, strict=False)
    log.info("Weights from %s: %d of %d tensors fit", file, len(fitting), len(own))
    if left:
        log.info("  not taken over: %s", ", ".join(left))
