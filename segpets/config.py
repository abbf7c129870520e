"""How configs are composed and named, and the resolvers that they use. Imports nothing heavy."""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, ListConfig, OmegaConf

from segpets.coco_files import class_names
from segpets.paths import conf_dir, user_cache

CONTROLS: Final = ("sweep", "sweep_mismatch", "fail_fast", "dry_run", "resume", "allow", "n_trials")
"""The keys that say how a sweep or a run is started, not what it is."""

HOW: Final = ("hydra.", "hydra/", "paths.", *(f"{key}=" for key in CONTROLS))
_NAME_LENGTH = 100
_WORD = r"[A-Za-z0-9.]+(_[A-Za-z0-9.]+)*"
_LOSSLESS = re.compile(rf"[A-Za-z0-9._-]+|{_WORD}={_WORD}(,{_WORD}={_WORD})*")


def safe_name(text: str) -> str:
    """Turns overrides, such as `loss=dice,model=unet`, or a sweep's name into a directory's name.

    Only `[A-Za-z0-9._-]` stay: `loss-dice__model-unet`. Where that could be the name of other
    overrides, too, or is too long, a hash tells them apart. What is safe already stays as it is.
    """
    if not text:
        return "default"
    spelled = text.replace("=", "-").replace(",", "__")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spelled).strip("-._") or "default"
    if name == spelled and len(name) <= _NAME_LENGTH and _LOSSLESS.fullmatch(text):
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: _NAME_LENGTH - 9].rstrip('-._')}-{digest}"


def sweep_name(overrides: Sequence[str]) -> str:
    """A sweep's name when none is given: a hash of its sorted overrides, so it is found again.

    How the sweep is run, by Hydra's own keys and by `CONTROLS`, doesn't matter.
    """
    overrides = [word for word in overrides if not word.lstrip("+~").startswith(HOW)]
    return hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:10]


def fingerprint(cfg: DictConfig) -> str:
    """Names what a config says of an experiment; where and how it is run doesn't matter.

    References are not filled in, so that it is the same on every machine.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    kept = {str(k): v for k, v in plain.items() if k not in (*CONTROLS, "hydra", "paths")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _fastest_precision(accelerator: str) -> str:
    from segpets.hardware import fastest_precision

    return fastest_precision(accelerator)


def _data_workers() -> int:
    from segpets.hardware import data_workers

    return data_workers()


def _length(items: ListConfig) -> int:
    return len(items)


def register_resolvers() -> None:
    """Registers the resolvers of conf/; once is enough, more do no harm."""
    OmegaConf.register_new_resolver("len", _length, replace=True)
    OmegaConf.register_new_resolver("fastest_precision", _fastest_precision, replace=True)
    OmegaConf.register_new_resolver("coco_classes", class_names, replace=True)
    OmegaConf.register_new_resolver("data_workers", _data_workers, replace=True)
    OmegaConf.register_new_resolver("safe_name", safe_name, replace=True)
    OmegaConf.register_new_resolver(
        "unique", lambda: secrets.token_hex(4), replace=True, use_cache=True
    )
    package = str(Path(__file__).parent.absolute())
    OmegaConf.register_new_resolver("package_dir", lambda: package, replace=True)
    OmegaConf.register_new_resolver("user_cache", lambda: str(user_cache()), replace=True)


def compose(overrides: Sequence[str] = (), *, task: str = "train") -> DictConfig:
    """Composes a command's config as the command line does, for use from Python.

    Example:
        >>> from segpets.config import compose
        >>> from segpets.train import train
        >>> result = train(compose(["model=segnet", "loss=soft_iou"]))

    Args:
        overrides: What would stand on the command line.
        task: The command.

    Returns:
        The config. Its `paths.output_dir` is new, unless `hydra.run.dir` is given.
    """
    import hydra

    from segpets.stored import offer_data_of

    register_resolvers()
    offer_data_of(overrides)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        cfg = hydra.compose(task, overrides=list(overrides), return_hydra_config=True)
    output_dir = str(Path(cfg.hydra.run.dir).absolute())
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    cfg.paths.output_dir = output_dir
    OmegaConf.set_struct(cfg, True)
    return cfg
