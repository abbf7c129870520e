"""Composing configs from Python, and the resolvers that conf/ uses. Imports nothing heavy."""

import importlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from segpets.paths import conf_dir as conf_dir
from segpets.paths import user_cache
from segpets.run.names import safe_name

DATA_OF_A_RUN: Final = ("evaluate", "export")
"""The commands that work on the data of their run, unless others are chosen."""


def _late(module: str, name: str) -> Any:
    """Makes a resolver of a function whose module takes long to import."""

    def resolver(*args: Any) -> Any:
        value = getattr(importlib.import_module(module), name)(*args)
        return ListConfig(value) if isinstance(value, list) else value  # or --resolve refuses it

    return resolver


def _length(items: ListConfig) -> int:
    return len(items)


def register_resolvers() -> None:
    """Registers the resolvers of conf/; once is enough, more do no harm."""
    package = str(Path(__file__).parent.absolute())
    resolvers = {
        "len": _length,
        "fastest_precision": _late("segpets.hardware", "fastest_precision"),
        "data_workers": _late("segpets.hardware", "data_workers"),
        "coco_classes": _late("segpets.data.coco.files", "class_names"),
        "channel_statistics": _late("segpets.data.geometry", "channel_statistics"),
        "crop_ratios": _late("segpets.data.geometry", "crop_ratios"),
        "sides": _late("segpets.data.geometry", "sides"),
        "net_size": _late("segpets.data.geometry", "net_size"),
        "safe_name": safe_name,
        "package_dir": lambda: package,
        "user_cache": lambda: str(user_cache()),
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    OmegaConf.register_new_resolver(
        "unique", lambda: secrets.token_hex(4), replace=True, use_cache=True
    )


def data_changes(words: Sequence[str]) -> list[str]:
    """Lets overrides of `data.` through where the data are the run's, whose keys are known later.

    With an option of the group, as in `data=pets_mini`, Hydra knows them.
    """
    if any(word.startswith("data=") for word in words):
        return list(words)
    return [f"++{word}" if word.startswith("data.") else word for word in words]


def compose(overrides: Sequence[str] = (), *, task: str = "train") -> DictConfig:
    """Composes a command's config as the command line does, for use from Python.

    Example:
        >>> from segpets.config import compose
        >>> from segpets.train import train
        >>> result = train(compose(["model=segnet", "loss=soft_iou"]))

    Returns:
        The config. Its `paths.output_dir` is new, unless `hydra.run.dir` is given.
    """
    register_resolvers()
    words = data_changes(overrides) if task in DATA_OF_A_RUN else list(overrides)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = hydra.compose(task, overrides=words, return_hydra_config=True)
    with open_dict(cfg):
        output_dir = str(Path(cfg.hydra.run.dir).absolute())
        del cfg["hydra"]
        cfg.paths.output_dir = output_dir
        if "overrides" in cfg:
            cfg.overrides = [word for word in overrides if not word.startswith("hydra")]
    return cfg
