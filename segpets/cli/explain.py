"""Errors of a command in words: what is wrong, where, and what to type instead."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from segpets.cli.suggest import composed, config_dirs, groups, suggest, unreadable
from segpets.errors import JobError, UserError, disk_is_full, out_of_memory, overlong
from segpets.reading import printable
from segpets.run.files import OTHER_FOLDER, RunFiles

FULL_ERROR = "HYDRA_FULL_ERROR"
EXAMPLES = {
    "data.classes": "'[background,leaf]'",
    "data.root": "FOLDER",
    "output": "predicted",
    "run": "latest",
    "runs": "logs/train/multiruns/NAME",
    "source": "photos",
    "status": "logs/train/multiruns/NAME",
}
"""What keys without a default may look like."""
SMALLER = {
    "train": "a smaller data.batch_size, and +trainer.accumulate_grad_batches=2 to keep the size "
    "of a step",
    "predict": "a smaller batch_size, or tile=512",
    "benchmark": "smaller batch_sizes, or a smaller size",
}
"""What takes less memory."""
LAUNCHERS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
"""Launchers of Hydra that are packages of their own, and the extra that brings each."""


def fail(message: str) -> NoReturn:
    """Prints an error and ends the process."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1)


def explain(
    error: BaseException, name: str, argv: Sequence[str] = (), *, folder: str | None = None
) -> str:
    """Explains what went wrong in a command."""
    refused = isinstance(error.__cause__, InstantiationException)  # by a constructor
    if refused or isinstance(error, TypeError | ValueError):
        if wrong := _no_numbers(name, argv):
            cause = str(error) if refused else f"{type(error).__name__}: {error}"
            return f"{' and '.join(wrong)} must be a number ({cause})"
    if (mended := _in_own_words(error)) is not None:
        return mended
    if disk_is_full(error):
        begun = name == "train" and folder is not None and RunFiles(Path(folder)).summary.exists()
        again = f"resume={folder} goes on" if begun else "give the same command again"
        return f"{error}: make room, and {again}"
    if out_of_memory(error):
        remedy = SMALLER.get(name, "a smaller data.batch_size")
        why = str(error).partition("DefaultCPUAllocator: ")[2] or str(error) or "MemoryError"
        return f"out of memory: {' '.join(why.split())}. Take {remedy}; see docs/errors.md"
    if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
        missing = re.search(r"[Mm]issing[^\n]*?\b((?:\w+\.)+\w+)", str(error))
        key = missing[1] if missing else getattr(error, "full_key", None) or str(error)
        return f"{key} has no value: give one, as in {key}={EXAMPLES.get(key, '...')}"
    where = "" if folder is None else f"The traceback is in {Path(folder, f'{name}.log')}; "
    return f"{type(error).__name__}: {error}\n{where}{FULL_ERROR}=1 before the command prints it"


def _no_numbers(name: str, argv: Sequence[str]) -> list[str]:
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    known, parser, wrong = groups(config_dirs(argv)), OverridesParser.create(), []
    try:
        chosen = [word for word in overrides if word.partition("=")[0] in known]
        defaults = composed(name, chosen, argv)
        for word in overrides:
            key = word.partition("=")[0]
            if key not in chosen and not key.startswith(("+", "~")) and "@" not in key:
                value = parser.parse_override(word).value()
                if _is_word(value) and _is_number(OmegaConf.select(defaults, key)):
                    wrong.append(word)
    except (HydraException, OmegaConfBaseException, OSError, ValueError):
        pass  # then the error itself is all that is known
    return wrong


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_word(value: Any) -> bool:
    """Tells whether a value is a text, but not one of Lightning's for `trainer.devices`."""
    return isinstance(value, str) and re.fullmatch(r"auto|[\d, ]+", value) is None


def explain_config(error: BaseException, name: str, argv: Sequence[str]) -> str:
    """Explains why no config could be made, and suggests the nearest name for a misspelt one."""
    if isinstance(error, JobError) and isinstance(error.__cause__, Exception):
        folders = [f"--config-dir={folder}" for folder in config_dirs(argv)[1:]]
        why = explain_config(error.__cause__, name, [*folders, *error.overrides])
        return f"{error}, so none was started. {why}"
    if isinstance(error, ConfigCompositionException) and "Ambiguous value" in str(error):
        word = next((word for word in argv if "," in word and word in str(error)), "an override")
        key, _, values = word.partition("=")
        listed = f", or {key}=[{values}] for one list" if "." in key else ""
        return f"{word} lists values: add -m to run each of them{listed}"
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override), str(error).splitlines()[0])
    if (mended := _in_own_words(error)) is not None:
        return mended
    if disk_is_full(error):  # Hydra writes its log before all else
        return explain(error, name)
    if isinstance(error, OSError) and error.filename and not str(error.filename).endswith(".yaml"):
        return f"{error.filename} can't be written ({error.strerror}): {OTHER_FOLDER}"
    for word in argv:
        key, _, launcher = word.partition("=")
        if key == "hydra/launcher" and launcher in LAUNCHERS and launcher in str(error):
            extra = LAUNCHERS[launcher]
            return f"{word} needs a launcher that isn't installed: pip install 'segpets[{extra}]'"
    try:
        suggestion = suggest(name, argv)
    except (HydraException, OmegaConfBaseException, OSError, ValueError):
        suggestion = None
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return suggestion or f"{error}{cause}".strip()


def _in_own_words(error: BaseException) -> str | None:
    """Returns the words for what a user can mend, also of a resolver; None for other errors."""
    inner: BaseException | None = error
    while isinstance(inner, InterpolationResolutionError):
        inner = inner.__cause__ or inner.__context__
    if inner is not None and (name := overlong(inner)) is not None:
        return f"{name} is longer than a name of a file may be: correct it"
    return str(inner) if isinstance(inner, UserError) else None
