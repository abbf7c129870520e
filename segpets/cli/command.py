"""Runs a command under Hydra.

Imports nothing heavy: a command's recipe is loaded when its config stands, so `--help` and typos
are answered at once.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segpets.cli.explain import EXAMPLES, FULL_ERROR, explain, explain_config, fail
from segpets.cli.help import help_text
from segpets.cli.started import NO_SWEEP, OF_TORCHRUN, follow, join_others
from segpets.cli.suggest import composed, config_dirs, groups, meant, quoted, spaced, superfluous
from segpets.config import DATA_OF_A_RUN, conf_dir, data_changes, register_resolvers
from segpets.errors import UserError, nearest, overlong
from segpets.lazy import imported
from segpets.run.confine import check_links
from segpets.run.directory import find_run
from segpets.run.files import LATEST, RunFiles, point
from segpets.run.lock import check_new
from segpets.run.names import OF_SWEEPS, sweep_name
from segpets.run.ranks import Ranks, current, leads
from segpets.run.trust import Trust

log = logging.getLogger("segpets.command")

INTERRUPTED = 130
_OF_A_CLUSTER = {
    *("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NNODES"),
    *("SLURM_JOB_NAME", "SLURM_NTASKS_PER_NODE", "SLURM_NODELIST"),
    *(*OF_TORCHRUN, "NODE_RANK", "KUBERNETES_PORT"),
    *("PMI_RANK", "OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK", "LSB_JOBID"),
}


def run_command(name: str, *, example: str, needs: str | None = None) -> None:
    """Runs `main` of `segpets.<name>.recipe`; ends the process with exit code 1 when it fails."""
    argv = sys.argv[1:]
    if {"-h", "--help", "-c", "--cfg"} & {word.partition("=")[0] for word in argv}:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    if {"-h", "--help"} & set(argv):
        print(help_text(name, example, conf_dir() / f"{name}.yaml", groups(config_dirs(argv))))
        return
    register_resolvers()
    argv = sys.argv[1:] = _gathered(argv)
    ranks = join_others(name, argv)
    _leave_surroundings(but=() if ranks is None or ranks.place.world == 1 else OF_TORCHRUN)
    with ranks.ending() if ranks else nullcontext():
        if ranks is not None and not ranks.leads:
            _add(follow(ranks))
            _run(name, argv)
            return
        _check_options(argv, name)
        if needs is not None and not any(word.startswith(f"{needs}=") for word in argv):
            fail(f"{needs} has no value: give one, as in {needs}={EXAMPLES.get(needs, '...')}")
        if (told := superfluous(name, argv)) is not None:
            fail(told)
        try:
            _complete(argv, name)
        except (UserError, OSError) as error:
            if not isinstance(error, UserError) and overlong(error) is None:
                raise
            fail(explain(error, name, argv))
        _run(name, argv)


def _gathered(argv: Sequence[str]) -> list[str]:
    """Moves the overrides before the options: behind one, argparse would not know them."""

    def unknown(message: str) -> NoReturn:
        raise ValueError(message)

    parser, rest = get_args_parser(), list(argv)
    parser.error = unknown  # type: ignore[method-assign]
    try:
        overrides: list[str] = parser.parse_intermixed_args(argv).overrides
    except ValueError:  # said in words later, and by one of several processes
        return rest
    if not all("=" in word or word.startswith("~") for word in overrides):
        return rest  # said in words, too
    for word in overrides:
        rest.remove(word)
    return [*overrides, *rest]


def _leave_surroundings(*, but: Sequence[str] = ()) -> None:
    """Takes away what a cluster's or a notebook's environment says to the libraries.

    By SLURM's, torchrun's and Kubernetes' variables Lightning would wait for others, or take each
    process that segpets starts for the first; and a notebook's backend of matplotlib isn't there
    outside of it.

    Args:
        but: The variables that stay.
    """
    if "matplotlib" not in sys.modules:
        os.environ["MPLBACKEND"] = "agg"
    for variable in list(os.environ):
        if variable in _OF_A_CLUSTER or variable.startswith("TORCHELASTIC_"):
            if variable not in but:
                del os.environ[variable]


def _run(name: str, argv: Sequence[str]) -> None:
    """Hands the command to Hydra, and reports what goes wrong."""
    failure: list[Exception] = []
    folders: list[str] = []

    def begin(cfg: DictConfig) -> Any:
        try:
            return _begin(name, cfg)
        except Exception as error:
            failure.append(error)  # Hydra would print the overrides again, and a traceback
            log.debug("%s failed", name, exc_info=error)
            if _logs_to_a_file():
                folders.append(HydraConfig.get().runtime.output_dir)
            return None

    logging.raiseExceptions = False  # a log on a full disk adds nothing to the error itself
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then leaves exceptions to us
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=name)(begin)()
        if failure:
            raise failure[0]
    except KeyboardInterrupt as interrupt:
        if leads():
            print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (ranks := current()) is not None and not ranks.tells(error):
            sys.exit(1)
        if wants_traceback:
            traceback.print_exc()
        if isinstance(error, UserError) or error in failure:
            words = explain(error, name, argv, folder=folders[-1] if folders else None)
            fail(words if ranks is None or ranks.leads else f"{ranks.place}: {words}")
        fail(explain_config(error, name, argv))
    finally:
        if not wants_traceback:
            os.environ.pop(FULL_ERROR, None)


def _logs_to_a_file() -> bool:
    return any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger().handlers)


def _begin(name: str, cfg: DictConfig) -> Any:
    """Loads the recipe and runs it; then points `latest` to what it wrote."""
    context = HydraConfig.get()
    own = [Path(s.path) for s in context.runtime.config_sources if s.provider == "command-line"]
    if "overrides" in cfg:
        cfg.overrides = list(context.overrides.task)
    if (ranks := current()) is not None:
        _meet(cfg, ranks, Path(context.runtime.output_dir))
    result = imported(f"segpets.{name}.recipe").main(cfg, Trust.of(cfg.get("allow"), own))
    if isinstance(result, Path):
        point(Path(cfg.paths.log_dir) / LATEST, result)
        return None
    return result


def _meet(cfg: DictConfig, ranks: Ranks, folder: Path) -> None:
    """Has all processes of a training write one run, and go on with one that they had begun."""
    if ranks.leads:
        begun = ranks.earlier_run() == str(folder) and RunFiles(folder).summary.is_file()
        ranks.publish(str(folder), resumes=begun and cfg.resume is None)
    if ranks.run().resumes:
        cfg.resume, cfg.overrides = str(folder), [f"resume={folder}"]


def _complete(argv: Sequence[str], name: str) -> None:
    """Adds the overrides that follow from others: a sweep's name, a resumed run's directory."""
    plain = [word.lstrip("+") for word in argv]  # which only says that a key may be new
    if (ranks := current()) is not None:
        if _is_sweep(argv):
            raise UserError(NO_SWEEP)
        if (earlier := ranks.earlier_run()) is not None:
            _add(_in_directory(Path(earlier)))
            return
    if any(word.startswith("sweep=") and "," in word for word in plain):
        raise UserError("sweep= names one folder, so it holds no comma")
    if name == "train" and not _is_sweep(argv):
        for word in argv:
            key, _, value = word.lstrip("+").partition("=")
            if key in OF_SWEEPS and value not in ("null", "false"):
                raise UserError(
                    f"{word} is about a sweep, and this is one run: add -m, or leave it out"
                )
    if _is_sweep(argv) and not any(word.startswith("sweep=") for word in plain):
        overrides = [word for word in argv if ("=" in word or word[0] == "~") and word[0] != "-"]
        _add([f"sweep=sweep-{sweep_name(overrides)}"])
    if resumed := [word.partition("=")[2] for word in plain if word.startswith("resume=")]:
        _add(_directories_of(resumed[-1], name, argv))
    for word in plain:
        key, _, value = word.partition("=")
        if key == "hydra.run.dir" and not resumed and "$" not in value:
            check_new(Path(value.strip("'\"")), name, before_hydra=True)
    if name in DATA_OF_A_RUN:
        sys.argv[1:] = data_changes(sys.argv[1:])


def _is_sweep(argv: Sequence[str]) -> bool:
    of_a_search = any(word.startswith("hparams_search=") for word in argv)
    return of_a_search or bool({"-m", "--multirun"} & set(argv))


def _add(overrides: Sequence[str]) -> None:
    """Adds overrides beside the others, since argparse wants them in one piece."""
    at = [i for i, word in enumerate(sys.argv) if i and "=" in word and not word.startswith("-")]
    where = at[-1] + 1 if at else len(sys.argv)
    sys.argv[where:where] = overrides


def _directories_of(run: str, name: str, argv: Sequence[str]) -> list[str]:
    """Makes the overrides by which Hydra works in the directory of a resumed run."""
    places = [word for word in argv if word.lstrip("+").startswith(("paths.", "local="))]
    log_dir = Path(composed(name, places, argv).paths.log_dir)  # which a local config may say
    path = find_run(run.strip("'\""), log_dir=log_dir, key="resume")
    check_links(path)  # Hydra writes there first
    return _in_directory(path)


def _in_directory(path: Path) -> list[str]:
    """Makes the overrides by which Hydra works in the directory of a run that goes on."""
    earlier = len(list((path / ".hydra").glob("resumed-*")))
    return [
        f"hydra.run.dir={quoted(path)}",
        f"hydra.output_subdir=.hydra/resumed-{earlier + 1}",
    ]


def _check_options(argv: Sequence[str], name: str) -> None:
    """Ends the process when an option such as `--cfg` is misspelt; else argparse prints a page.

    It does the same for words that are neither an option nor an override.
    """
    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign]
    known = [option for action in parser._actions for option in action.option_strings]
    for at, word in enumerate(argv):
        option, _, value = word.partition("=")
        following = argv[at + 1] if argv[at + 1 :] and "=" not in argv[at + 1] else ""
        if option == "--run" and (value or following):
            fail(f"--run: keys are written without dashes: run={value or following}")
        if word.startswith("--") and not any(k.startswith(option) for k in known):
            if (near := nearest(option, known, 0.7)) is not None:
                fail(f"{option} is no option. Did you mean {near}? --help shows what there is")
            typed = option[2:].replace("-", "_")
            if (key := meant(typed, name, argv)) is not None:
                kept = value or following or "VALUE"
                fail(f"{option}: keys are written without dashes: {key}={kept}")
            fail(f"{option} is no option. --help shows what there is")
    parsed = parser.parse_args(argv)
    if (folder := parsed.config_dir) is not None and not Path(folder).is_dir():
        fail(f"--config-dir {folder}: there is no folder {Path(folder).absolute()}")
    if (torn := spaced(parsed.overrides, list(groups(config_dirs(argv))))) is not None:
        fail(torn)
