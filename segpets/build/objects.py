"""Data, net, module and trainer from a config."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from hydra.utils import get_class
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig
from torch import Tensor, nn

from segpets.build.batch_norm import SyncOnCPU
from segpets.build.cost import Cost, cost_of
from segpets.build.instantiate import build
from segpets.build.probe import try_loss, words
from segpets.compiled import wants_compile
from segpets.data import SegmentationDataModule, Source
from segpets.data.geometry import as_size_or_none, by, trained_size
from segpets.data.reader import Reader
from segpets.errors import UserError, out_of_memory
from segpets.hardware import threads
from segpets.module import Preprocess, SegmentationModule
from segpets.run.ranks import current
from segpets.settings import table

OURS: Final = ("compile", "float32_matmul")
"""Keys of `trainer` that Lightning's Trainer hasn't."""
_WHOLE: Final = ("bf16-true", "16-true", "64-true", "64")  # of the weights, too


def build_data(cfg: DictConfig, data: Mapping[str, Any] | None = None) -> SegmentationDataModule:
    """Makes the DataModule from the group `data`.

    `_target_` names the data set's class. It takes those keys that its constructor names, the
    DataModule those that its own does; what else the group holds, such as `classes`, is for others.

    Args:
        cfg: With `data`, `augment` and `seed`.
        data: A replacement for `data`; None takes the config's.

    Raises:
        UserError: A value is refused.
    """
    data = table(cfg.data) if data is None else data
    own = {"source", "augment", "run_seed"}
    keys = [key for key in inspect.signature(SegmentationDataModule).parameters if key not in own]
    module = partial(
        SegmentationDataModule,
        source=build_source(data),
        run_seed=cfg.seed,
        **{key: data[key] for key in keys if key in data},
    )
    try:
        augment = build(cfg.augment, "augment")
    except UserError:
        module(augment=None)  # has the better words for a data.size that the augmentation takes
        raise
    return module(augment=augment)


def build_source(data: Mapping[str, Any]) -> Source:
    """Makes the data set that the group `data` names.

    Raises:
        UserError: It can't be imported, or refuses a value.
    """
    node = {"_target_": data["_target_"]}
    try:
        keys = list(inspect.signature(get_class(str(data["_target_"]))).parameters)
    except (ImportError, ValueError):
        keys = []  # `build` says in words what is wrong
    source: Source = build(node | {key: data[key] for key in keys if key in data}, "data")
    return source


def build_net(cfg: DictConfig) -> tuple[nn.Module, Cost]:
    """Makes the net and counts what it costs; a net that doesn't fit the data is found here.

    Raises:
        UserError: It refuses images of the data's size, or its logits have another shape.
    """
    net: nn.Module = build(cfg.model, "model")
    channels, size = cfg.data.channels, trained_size(cfg.data)
    expected = (1, len(cfg.data.classes), *size)
    try:
        # Where other programs keep the cores busy, waiting for threads took seconds; one: 0.1 s.
        with threads(1), torch.no_grad():
            logits = net.eval()(torch.zeros(1, channels, *size))
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        with threads(1):
            cost = cost_of(net.train(), size, channels)
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        message = words(error, net)
        of = "" if channels == 3 else f" with {channels} channels"
        if "must match" in message or "must be equal" in message:
            message += (
                ". Where halving and doubling lead to other sizes, call "
                "segpets.model.pad.pad_to_multiple first and crop the logits"
            )
        raise UserError(
            f"the model {cfg.model._target_} doesn't take images of {by(size)}{of}: {message}"
        ) from error
    if shape != expected:
        raise UserError(
            f"the model {cfg.model._target_} maps (1, {channels}, {size[0]}, {size[1]}) to "
            f"{shape}, but should give logits for {len(cfg.data.classes)} classes, {expected}"
        )
    return net, cost


def build_module(cfg: DictConfig, net: nn.Module) -> SegmentationModule:
    """Puts net, loss, optimizer and schedule together.

    Raises:
        UserError: One of them can't be made, or the loss can't be trained with.
    """
    loss = build(cfg.loss, "loss")
    try_loss(loss, classes=len(cfg.data.classes), size=trained_size(cfg.data))
    return SegmentationModule(
        net=net,
        loss=loss,
        preprocess=preprocess_of(table(cfg.data)),
        optimizer=build(cfg.optimizer, "optimizer"),
        scheduler=build(cfg.scheduler, "scheduler"),
        classes=cfg.data.classes,
        window=as_size_or_none(cfg.data.window),
        compile=wants_compile(cfg.trainer.get("compile", False)),
        frozen=_patterns(cfg),
        lr_factors=_factors(cfg),
        aux_weight=float(cfg.get("aux_weight", 0.4)),
    )


def _patterns(cfg: DictConfig) -> list[str]:
    given = cfg.get("freeze") or []
    return [given] if isinstance(given, str) else [str(one) for one in given]


def _factors(cfg: DictConfig) -> dict[str, float]:
    given = cfg.get("lr_factors") or {}
    try:
        return {str(pattern): float(factor) for pattern, factor in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"lr_factors={given} must be a table of patterns and numbers, such as "
            "lr_factors={encoder:0.1}"
        ) from error


def preprocess_of(data: Mapping[str, Any]) -> Preprocess:
    """Makes the normalisation of the group `data`.

    Raises:
        UserError: Mean or standard deviation aren't a number for each channel.
    """
    channels = data["channels"]
    for key in ("mean", "std"):
        if len(data[key]) != channels:
            raise UserError(
                f"data.{key} has {len(data[key])} numbers, but data.channels={channels}: give one "
                "for each channel"
            )
    return Preprocess(mean=data["mean"], std=data["std"], white=Reader.of(data).white)


def build_trainer(cfg: DictConfig, *, extra_callbacks: Sequence[Callback] = ()) -> Trainer:
    """Makes Lightning's Trainer with the callbacks and loggers of the config."""
    callbacks = [build(callback, f"callback.{name}") for name, callback in cfg.callback.items()]
    loggers = [build(logger, f"logger.{name}") for name, logger in cfg.logger.items()]
    if not loggers:  # it refuses to work without one
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    parts = {"callbacks": [*callbacks, *extra_callbacks], "logger": loggers}
    precision = str(cfg.trainer.precision)
    if cfg.trainer.accelerator != "tpu" and precision in _WHOLE:
        raise UserError(
            f"trainer.precision={precision} has the weights in it, too, which is for TPUs: choose "
            "bf16-mixed, 16-mixed or 32-true"
        )
    if precision in ("16-mixed", "16") and _on_cpu(cfg.trainer.accelerator):
        raise UserError(
            f"trainer.precision={precision} is for GPUs, and on a CPU Lightning would take bf16: "
            "choose bf16-mixed or 32-true"
        )
    if cfg.trainer.get("overfit_batches"):
        raise UserError(
            "trainer.overfit_batches replaces the sampler that a training goes on by: give "
            "data.overfit=N, the number of images"
        )
    if cfg.trainer.get("fast_dev_run"):
        raise UserError(
            "trainer.fast_dev_run cuts the data, which no summary would say: debug=smoke tries a "
            "command in seconds"
        )
    try:
        own = {key: value for key, value in cfg.trainer.items() if key not in OURS}
        own["benchmark"] = bool(own.get("benchmark"))  # or an earlier training's choice would stay
        trainer: Trainer = build(own, "trainer", **parts, **_for_several(own))
    except UserError as error:
        if cfg.trainer.accelerator in ("auto", "cpu"):
            raise
        several = "; trainer=ddp_sim trains with several processes on CPUs"
        more = several if "ddp" in str(cfg.trainer.get("strategy")) else ""
        raise UserError(f"{error} trainer=auto takes what this machine has{more}") from error
    for stopping in trainer.early_stopping_callbacks:
        if not trainer.limit_val_batches and stopping.monitor.startswith("val/"):
            raise UserError(
                f"callback.early_stopping.monitor: no epoch measures {stopping.monitor}, since "
                "trainer.limit_val_batches=0"
            )
    return trainer


def _for_several(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the Trainer's arguments that a training of several processes needs.

    Raises:
        UserError: torchrun or srun has started several, and the trainer is for one.
    """
    if (ranks := current()) is not None and ranks.place.world == 1:  # as if started by itself
        return {"strategy": "auto", "devices": 1, "sync_batchnorm": False}
    plugins: list[Any] = list(trainer.get("plugins") or [])
    added = _for_ranks(trainer)
    if added:
        plugins.append(TorchElasticEnvironment())
    if trainer.get("sync_batchnorm") and _on_cpu(trainer["accelerator"]):
        plugins.append(SyncOnCPU())
        added["sync_batchnorm"] = False
    return added | {"plugins": plugins} if added else {}


def _for_ranks(trainer: Mapping[str, Any]) -> dict[str, Any]:
    ranks, strategy = current(), str(trainer.get("strategy", "auto"))
    for_several = strategy.startswith(("ddp", "fsdp"))
    if ranks is None:
        tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
        if for_several and tasks > 1:
            raise UserError(
                f"srun started {tasks} processes, and each would be a training of its own: only "
                "the command itself says that they are one, so add trainer=ddp to it"
            )
        _check_spawned(trainer)
        return {}
    place = ranks.place
    if not for_several:
        raise UserError(
            f"{place.by} started {place.world} processes of one training, but trainer.strategy="
            f"{strategy} is for one: add trainer=ddp"
        )
    if place.world % place.local_world:
        raise UserError(
            f"{place.by} started {place.local_world} of {place.world} processes here: each "
            "machine needs equally many"
        )
    return {
        "strategy": re.sub(r"_(spawn|fork|notebook)", "", strategy),
        "devices": place.local_world,
        "num_nodes": place.world // place.local_world,
    }


def _check_spawned(trainer: Mapping[str, Any]) -> None:
    """Refuses several devices by strategies of Lightning that rerun the command line.

    Raises:
        UserError: Each process would begin a run, or a sweep, of its own.
    """
    devices, strategy = trainer.get("devices", 1), str(trainer.get("strategy", "auto"))
    count = len(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else 1
    if isinstance(devices, int) and not isinstance(devices, bool):
        count = devices
    if count < 0 or devices in ("-1", "auto"):
        count = 1 if _on_cpu(str(trainer["accelerator"])) else torch.accelerator.device_count()
    spawned = "spawn" in strategy or "fork" in strategy or trainer["accelerator"] == "tpu"
    if count > 1 and not spawned:
        raise UserError(
            f"trainer.devices={devices} with trainer.strategy={strategy} would start this command "
            "several times: add trainer=ddp, or trainer=ddp_sim on a CPU, or start the processes "
            "by torchrun"
        )


def _on_cpu(accelerator: str) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.accelerator.is_available())
