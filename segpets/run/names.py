"""The names of jobs and sweeps, and the fingerprint of a config. Imports nothing heavy."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from omegaconf import DictConfig, OmegaConf

OF_SWEEPS: Final = (
    "sweep",
    "sweep_mismatch",
    "fail_fast",
    "jobs_per_gpu",
    "dry_run",
    "n_trials",
)
"""The keys that say how a sweep is started."""
CONTROLS: Final = (*OF_SWEEPS, "resume", "allow")
"""The keys that say how a sweep or a run is started, not what it is."""

HOW: Final = ("hydra.", "hydra/", "paths.", *(f"{key}=" for key in CONTROLS))
_NOT_THE_EXPERIMENT: Final = (*CONTROLS, "hydra", "paths", "overrides")
_NAME_LENGTH = 100
_DIGEST_LENGTH = 8
_WORD = r"[A-Za-z0-9.]+(_[A-Za-z0-9.]+)*"
_LOSSLESS = re.compile(rf"[A-Za-z0-9._-]+|{_WORD}={_WORD}(,{_WORD}={_WORD})*")


def safe_name(text: str) -> str:
    """Turns overrides, such as `loss=dice,model=unet`, or a sweep's name into a directory's name.

    Only `[A-Za-z0-9._-]` are kept: `loss-dice__model-unet`. A hash follows if other overrides could
    have the same name, or if it is too long; a long name keeps a part of each override.
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
    """Makes one name of overrides: cuts long values first, then keys, then all values.

    The names of earlier sweeps' jobs depend on every step here.
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
    """Yields how many letters keys and values may keep, from many to few."""
    yield from ((room, of_value) for of_value in range(room, 11, -1))
    yield from ((of_key, 12) for of_key in range(12, 1, -1))
    yield from ((2, of_value) for of_value in range(11, 2, -1))
    yield from ((1, of_value) for of_value in range(3, 0, -1))


def _part(key: str, value: str, of_key: int, of_value: int) -> str:
    """Shortens an override; the end of a path tells it apart, the start of anything else."""
    key, value_ = _safe(key).strip("-._"), _safe(value).strip("-._")
    if not value_:
        return key[:of_value]
    if len(key) > of_key or of_key <= 12:  # of model.widths, widths stays
        key = re.split(r"[./@]", key)[-1][:of_key]
    cut = value_[-of_value:] if "/" in value else value_[:of_value]
    return f"{key}-{cut.strip('-._')}"


def sweep_name(overrides: Sequence[str]) -> str:
    """Names a sweep by a hash of its sorted overrides, so that it is found again.

    How the sweep is run, by Hydra's own keys and by `CONTROLS`, doesn't matter.
    """
    chosen = [word for word in overrides if not word.lstrip("+~").startswith(HOW)]
    return hashlib.sha256("\n".join(sorted(chosen)).encode()).hexdigest()[:10]


def fingerprint(cfg: DictConfig) -> str:
    """Hashes what a config says about an experiment; where and how it is run doesn't matter.

    References are not resolved, so that the hash is the same on every machine.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    kept = {str(k): v for k, v in plain.items() if k not in _NOT_THE_EXPERIMENT}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]
