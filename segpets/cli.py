"""The way from a command line to a command: Hydra, help, and errors in words.

Imports nothing heavy, so that `--help` and typos are answered at once.
"""

import functools
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from segpets.config import register_resolvers, sweep_name
from segpets.errors import JobError, UserError, disk_is_full, out_of_memory
from segpets.help import help_text
from segpets.hints import nearest, nearest_key, quoted, spaced, unreadable, where_looked
from segpets.paths import conf_dir
from segpets.stored import offer_data_of

FULL_ERROR = "HYDRA_FULL_ERROR"
INTERRUPTED = 130
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


def run_command(
    task: Callable[[DictConfig], Any], *, name: str, example: str, needs: str | None = None
) -> None:
    """Runs a command under Hydra; ends the process with exit code 1 when it fails.

    Args:
        task: The command.
        name: Its name, and that of its config.
        example: A command line for the help.
        needs: A key, such as `run`, without whose value not even a config can be made.
    """
    argv = sys.argv[1:]
    if {"-h", "--help", "-c", "--cfg"} & {word.partition("=")[0] for word in argv}:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    if {"-h", "--help"} & set(argv):
        found = groups(_config_dirs(argv))
        print(help_text(name, example, conf_dir() / f"{name}.yaml", found))
        return
    register_resolvers()
    _check_options(argv, name)
    if needs is not None and not any(word.startswith(f"{needs}=") for word in argv):
        fail(f"{needs} has no value: give one, as in {needs}={EXAMPLES.get(needs, '...')}")
    several = {"-m", "--multirun"} & set(argv) or any(w.startswith("hparams_search=") for w in argv)
    if any(word.startswith("sweep=") and "," in word for word in argv):
        fail("sweep= names one folder, so it holds no comma")
    if several and not any(word.startswith("sweep=") for word in argv):
        overrides = [word for word in argv if "=" in word and not word.startswith("-")]
        _add([f"sweep=sweep-{sweep_name(overrides)}"])
    if resumed := [word.partition("=")[2] for word in argv if word.startswith("resume=")]:
        try:
            _add(_directories_of(resumed[-1], name, argv))
        except UserError as error:
            fail(str(error))
    try:
        offer_data_of(argv, _config_dirs(argv)[1:])
    except UserError as error:
        fail(str(error))
    failure: list[Exception] = []
    folders: list[str] = []

    @functools.wraps(task)
    def begin(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except Exception as error:
            failure.append(error)  # Hydra would print the overrides again, and a traceback
            folders.append(HydraConfig.get().runtime.output_dir)
            return None

    logging.raiseExceptions = False  # a log on a full disk is no news beside the error itself
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then leaves exceptions to us
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(begin)()
        if failure:
            raise failure[0]
    except KeyboardInterrupt as interrupt:
        print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if wants_traceback:
            traceback.print_exc()
        known = isinstance(error, UserError) or error in failure
        folder = folders[-1] if folders else None
        fail(
            explain(error, name, argv, folder=folder)
            if known
            else explain_config(error, name, argv)
        )
    finally:
        if not wants_traceback:
            os.environ.pop(FULL_ERROR, None)


def _add(overrides: Sequence[str]) -> None:
    """Adds overrides beside the others, since argparse wants them in one piece."""
    at = [i for i, word in enumerate(sys.argv) if i and "=" in word and not word.startswith("-")]
    where = at[-1] + 1 if at else len(sys.argv)
    sys.argv[where:where] = overrides


def _directories_of(run: str, name: str, argv: Sequence[str]) -> list[str]:
    """The overrides by which Hydra works in the directory of a run that goes on."""
    from segpets.run import find_run

    given = [word.partition("=")[2] for word in argv if word.startswith("paths.log_dir=")]
    log_dir = Path(given[-1].strip("'\"")) if given else Path("logs", name)
    path = find_run(run.strip("'\""), log_dir=log_dir, key="resume")
    earlier = len(list((path / ".hydra").glob("resumed-*")))
    return [
        f"hydra.run.dir={quoted(path)}",
        f"hydra.output_subdir=.hydra/resumed-{earlier + 1}",
    ]


def _check_options(argv: Sequence[str], name: str) -> None:
    """Ends the process when an option such as `--cfg` is misspelt; else argparse prints a page.

    The same for words that are neither an option nor an override.
    """
    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign]
    known = [option for action in parser._actions for option in action.option_strings]
    for at, word in enumerate(argv):
        option, _, value = word.partition("=")
        if option == "--run" and (value or (argv[at + 1 :] and "=" not in argv[at + 1])):
            fail(f"--run: keys are written without dashes: run={value or argv[at + 1]}")
        if word.startswith("--") and not any(k.startswith(option) for k in known):
            if (near := nearest(option, known, 0.7)) is not None:
                fail(f"{option} is no option. Did you mean {near}? --help shows what there is")
            typed = option[2:].replace("-", "_")
            if (key := _meant(typed, name, argv)) is not None:
                following = argv[at + 1] if argv[at + 1 :] and "=" not in argv[at + 1] else "VALUE"
                fail(f"{option}: keys are written without dashes: {key}={value or following}")
            fail(f"{option} is no option. --help shows what there is")
    parsed = parser.parse_args(argv)
    if (folder := parsed.config_dir) is not None and not Path(folder).is_dir():
        fail(f"--config-dir {folder}: there is no folder {Path(folder).absolute()}")
    if (torn := spaced(parsed.overrides, list(groups(_config_dirs(argv))))) is not None:
        fail(torn)


def _meant(key: str, name: str, argv: Sequence[str]) -> str | None:
    """The key of a command's config that somebody means who writes an option."""
    try:
        keys = _keys(_composed(name, [], argv))
    except HydraException:  # there is no run yet whose data complete it
        keys = [str(own) for own in OmegaConf.load(conf_dir() / f"{name}.yaml")]
    return nearest_key(key, keys, list(groups(_config_dirs(argv))))


def fail(message: str) -> NoReturn:
    """Prints an error and ends the process."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def explain(
    error: BaseException, name: str, argv: Sequence[str] = (), *, folder: str | None = None
) -> str:
    """Says what went wrong in a command.

    Args:
        error: What it raised.
        name: The command.
        argv: Its arguments, among which may be the cause.
        folder: Where its log lies.
    """
    refused = isinstance(error.__cause__, InstantiationException)  # by a constructor
    if refused or isinstance(error, TypeError | ValueError):
        if wrong := _no_numbers(name, argv):
            cause = str(error) if refused else f"{type(error).__name__}: {error}"
            return f"{' and '.join(wrong)} must be a number ({cause})"
    if (mendable := _user_error(error)) is not None:
        return str(mendable)
    if disk_is_full(error):
        return f"{error}: make room, and give the same command again"
    if out_of_memory(error):
        remedy = SMALLER.get(name, "a smaller data.batch_size")
        why = str(error).partition("DefaultCPUAllocator: ")[2] or str(error) or "MemoryError"
        return f"out of memory: {' '.join(why.split())}. Take {remedy}; see docs/errors.md"
    if isinstance(error, (MissingMandatoryValue, InterpolationToMissingValueError)):
        missing = re.search(r"[Mm]issing[^\n]*?\b((?:\w+\.)+\w+)", str(error))
        key = missing[1] if missing else getattr(error, "full_key", None) or str(error)
        return f"{key} has no value: give one, as in {key}={EXAMPLES.get(key, '...')}"
    file = f"the run's {name}.log" if folder is None else Path(folder, f"{name}.log")
    return (
        f"{type(error).__name__}: {error}\n"
        f"The traceback is in {file}; {FULL_ERROR}=1 before the command prints it"
    )


def _no_numbers(name: str, argv: Sequence[str]) -> list[str]:
    """The overrides that give words to keys whose defaults are numbers."""
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    known, parser, wrong = groups(_config_dirs(argv)), OverridesParser.create(), []
    try:
        chosen = [word for word in overrides if word.partition("=")[0] in known]
        defaults = _composed(name, chosen, argv)
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
    """Whether a value is a text, other than those that Lightning takes for `trainer.devices`."""
    return isinstance(value, str) and re.fullmatch(r"auto|[\d, ]+", value) is None


def explain_config(error: BaseException, name: str, argv: Sequence[str]) -> str:
    """Says why no config could be made, and where a name is misspelt, which one is nearest."""
    if isinstance(error, JobError) and isinstance(error.__cause__, Exception):
        folders = [f"--config-dir={folder}" for folder in _config_dirs(argv)[1:]]
        why = explain_config(error.__cause__, name, [*folders, *error.overrides])
        return f"{error}, so none was started. {why}"
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override), str(error).splitlines()[0])
    if (mendable := _user_error(error)) is not None:
        return str(mendable)
    if disk_is_full(error):  # Hydra writes its log before all else
        return explain(error, name)
    if isinstance(error, OSError) and error.filename and not str(error.filename).endswith(".yaml"):
        from segpets.run import OTHER_FOLDER

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


def _user_error(error: BaseException) -> UserError | None:
    """The error itself, or what a resolver raised before OmegaConf made another error of it."""
    inner: BaseException | None = error
    while isinstance(inner, InterpolationResolutionError):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, UserError) else None


def groups(folders: Sequence[Path]) -> dict[str, list[str]]:
    """The config groups and their options, with those of nested groups.

    What begins with `_` is a part of options, and none itself.
    """
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group != "." and not file.stem.startswith("_"):
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def suggest(name: str, argv: Sequence[str]) -> str | None:
    """Finds the first override that names nothing, and what comes nearest to it.

    Args:
        name: The command.
        argv: Its arguments.

    Returns:
        What to tell the user; None if all names are known.
    """
    known_groups = groups(_config_dirs(argv))
    overrides = [word for word in argv if "=" in word and not word.startswith("-")]
    choices = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        group, _, _package = key.partition("@")
        options = known_groups.get(group.strip("/"))
        if options is None:
            continue
        value = re.sub(r"^choice\((.*)\)$", r"\1", value)
        words = [w for w in re.split(r"[\[\],\s'\"]+", value) if w and w != "null"]
        if not value:
            return f"{override} names no {group}. Available: {', '.join(options)}"
        for word in words:
            if word not in options:
                near = nearest(word, options, 0.6)
                hint = f"Did you mean {group}={near}? " if near else ""
                listed = ", ".join(options)
                told = f"{group}={word}: there is no such {group}. {hint}Available: {listed}"
                given = _config_dirs(argv)[1:]
                return told + (where_looked(group, conf_dir(), given) if given or not near else "")
        choices.append(override)
    ordered = _keys(_composed(name, [c for c in choices if "," not in c or "[" in c], argv))
    keys = set(ordered) | set(known_groups)
    for override in overrides:
        key = override.partition("=")[0]
        if key.startswith(("+", "~")) or "@" in key or key in keys:
            continue
        near = nearest_key(key, ordered, list(known_groups))
        hint = f" Did you mean {near}?" if near else ""
        return (
            f"{key} is no key of the config.{hint} `--cfg job` prints all keys; "
            f"+{override} adds a new one"
        )
    return None


def _composed(name: str, choices: list[str], argv: Sequence[str]) -> DictConfig:
    """A command's config with some options of groups, and Hydra's own part."""
    if own := [quoted(folder.absolute()) for folder in _config_dirs(argv)[1:]]:
        choices = [*choices, f"hydra.searchpath=[{','.join(own)}]"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return hydra.compose(name, overrides=choices, return_hydra_config=True)


def _keys(cfg: Any, prefix: str = "") -> list[str]:
    if not isinstance(cfg, DictConfig):
        return []
    keys: list[str] = []
    for key in map(str, cfg):
        path = f"{prefix}{key}"
        keys.append(path)
        if not OmegaConf.is_interpolation(cfg, key) and not OmegaConf.is_missing(cfg, key):
            keys += _keys(cfg._get_node(key), f"{path}.")
    return keys


def _config_dirs(argv: Sequence[str]) -> list[Path]:
    folders = [conf_dir()]
    for index, word in enumerate(argv):
        if word.startswith(("--config-dir=", "-cd=")):
            folders.append(Path(word.partition("=")[2]))
        elif word in ("--config-dir", "-cd") and index + 1 < len(argv):
            folders.append(Path(argv[index + 1]))
    return [folder for folder in folders if folder.is_dir()]
