"""How configs are composed and named, and the resolvers that they use. Imports nothing heavy."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from omegaconf import DictConfig, ListConfig, OmegaConf

from segpets.coco_files import class_names
from segpets.paths import conf_dir, user_cache

CONTROLS: Final = ("sweep", "sweep_mismatch", "fail_fast", "dry_run", "resume", "allow", "n_trials")
"""The keys that say how a sweep or a run is started, not what it is."""

HOW: Final = ("hydra.", "hydra/", "paths.", *(f"{key}=" for key in CONTROLS))
_NAME_LENGTH = 100
_DIGEST_LENGTH = 8
_WORD = r"[A-Za-z0-9.]+(_[A-Za-z0-9.]+)*"
_LOSSLESS = re.compile(rf"[A-Za-z0-9._-]+|{_WORD}={_WORD}(,{_WORD}={_WORD})*")


def safe_name(text: str) -> str:
    """Turns overrides, such as `loss=dice,model=unet`, or a sweep's name into a directory's name.

    Only `[A-Za-z0-9._-]` stay: `loss-dice__model-unet`. Where that could be the name of other
    overrides, too, or is too long, a hash tells them apart; if it is too long, each override is
    shortened, so that something of each can be read. What is safe already stays as it is.
    """
    if not text:
        return "default"
    spelled = text.replace("=", "-").replace(",", "__")
    name = _safe(spelled).strip("-._") or "default"
    if name == spelled and len(name) <= _NAME_LENGTH and _LOSSLESS.fullmatch(text):
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
    room = _NAME_LENGTH - _DIGEST_LENGTH - 1
    if len(name) > room:
        name = _shortened(re.split(r",(?=[+~]*[\w./@]+=)", text), room) or "default"
    return f"{name}-{digest}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def _shortened(overrides: Sequence[str], room: int) -> str:
    """Makes one name of overrides: long values are cut first, then keys, then all values.

    It depends on nothing but them, so that a job of a sweep has the same name when the sweep grows.
    """
    pairs = [word.partition("=")[::2] for word in overrides]
    name = ""
    for of_key, of_value in _lengths(room):
        parts = (_part(key, value, of_key, of_value) for key, value in pairs)
        name = "__".join(filter(None, parts)).strip("-._")
        if len(name) <= room:
            break
    return name[:room].rstrip("-._")


def _lengths(room: int) -> Iterator[tuple[int, int]]:
    """How many letters keys and values may keep, from many to few."""
    yield from ((room, of_value) for of_value in range(room, 11, -1))
    yield from ((of_key, 12) for of_key in range(12, 1, -1))
    yield from ((2, of_value) for of_value in range(11, 2, -1))
    yield from ((1, of_value) for of_value in range(3, 0, -1))


def _part(key: str, value: str, of_key: int, of_value: int) -> str:
    """An override within so many letters: of `model.widths` they are those of `widths`.

    Of a path the end is kept, of other values the start.
    """
    key, value_ = _safe(key).strip("-._"), _safe(value).strip("-._")
    if not value_:
        return key[:of_value]
    if len(key) > of_key or of_key <= 12:
        key = re.split(r"[./@]", key)[-1][:of_key]
    cut = value_[-of_value:] if "/" in value else value_[:of_value]
    return f"{key}-{cut.strip('-._')}"


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


def own_folders() -> list[Path]:
    """The folders that `--config-dir` gave to this command, with configs of the user's own."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.provider == "command-line"]


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
