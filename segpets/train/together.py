"""One run of one or several processes: who writes it, and whether they are all about the same."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from lightning.pytorch import Trainer
from omegaconf import DictConfig

from segpets.data import SegmentationDataModule
from segpets.errors import UserError
from segpets.run.directory import Run
from segpets.run.ranks import current
from segpets.run.versions import PACKAGES, code_revision, git_revision, package_version
from segpets.settings import table
from segpets.train.interruption import interrupted_by_sigterm

_OF_A_MACHINE: Final = {"root", "cache", "cache_dir", "cache_gb", "num_workers", "mirrors"}
"""Keys of the group `data` that may differ from one machine to another."""
_SECONDS: Final = 30


@contextmanager
def together(run: Run, cfg: DictConfig, *, resuming: bool, **facts: Any) -> Iterator[None]:
    """Owns the run directory while a training runs; of several processes, the first does.

    An error in any of them is the run's.

    Raises:
        UserError: Another process holds the directory, or one of this training failed.
    """
    ranks = current()
    if ranks is None:
        with run.hold(cfg, resuming=resuming, **facts):
            yield
        return
    with interrupted_by_sigterm(run), ExitStack() as stack:
        if ranks.leads:
            stack.enter_context(run.hold(cfg, resuming=resuming, **facts))
        threads = ranks.same("threads", lambda: json.dumps(run.summary.get("threads")))
        if not ranks.leads:  # which would compute otherwise than a run that was begun elsewhere
            run.summary = {"threads": json.loads(threads)}
        stack.enter_context(ranks.failing_once(run.path))
        yield


@contextmanager
def all_ready(run: Run, cfg: DictConfig) -> Iterator[dict[str, Any]]:
    """Waits, in the end, until all processes of this training are ready, with the same.

    Yields:
        What must be the same, by the words for it; to be added to.

    Raises:
        UserError: Another process can't begin, or is about something else.
    """
    ranks = current()
    facts: dict[str, Any] = {}
    try:
        yield facts
        if ranks is not None and not ranks.leads:
            _check_seen(run)
    except Exception as error:
        if ranks is not None and not ranks.leads:
            ranks.agree({}, error)
        raise
    if ranks is not None:
        packages = {name: package_version(name) for name in PACKAGES}
        same = {"other code": code_revision(), "other versions of packages": packages}
        commits = {"other code": f"{code_revision()} of commit {git_revision() or 'unknown'}"}
        ranks.agree(same | {"another config": _flat(_shared(cfg))} | facts, shown=commits)


def check_shares(cfg: DictConfig, datamodule: SegmentationDataModule, trainer: Trainer) -> None:
    """Checks that each process has an image of each stage.

    Raises:
        UserError: There are fewer images than processes.
    """
    for stage, word in (("train", "training"), ("val", "val"), ("test", "test")):
        count, processes = len(datamodule.splits[stage]), trainer.world_size
        if 0 < count < processes and cfg["test" if stage == "test" else "train"]:
            otherwise = ", or leave the test for later by test=false" if stage == "test" else ""
            raise UserError(
                f"{processes} processes would share {count} {word} image{'s' * (count > 1)}: start "
                f"fewer processes{otherwise}"
            )


def connect(trainer: Trainer) -> None:
    """Connects the processes; before they are all ready, one would wait for another in vain."""
    if (ranks := current()) is not None and trainer.world_size > 1:
        ranks.connect(trainer.strategy.root_device)


def _shared(cfg: DictConfig) -> dict[str, Any]:
    """The config without what a machine may have of its own."""
    whole = {k: v for k, v in table(cfg).items() if k not in ("paths", "resume", "overrides")}
    return whole | {"data": {k: v for k, v in whole["data"].items() if k not in _OF_A_MACHINE}}


def _flat(node: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(node, dict):
        parts = (_flat(value, f"{prefix}.{key}".lstrip(".")) for key, value in node.items())
        return {key: value for part in parts for key, value in part.items()}
    return {prefix: str(node)}


def _check_seen(run: Run) -> None:
    """Refuses a run directory that this machine doesn't see, or sees another in its place of."""
    end = time.monotonic() + _SECONDS
    while not run.files.summary.is_file():  # file systems of clusters may take a while
        if time.monotonic() > end:
            raise UserError(
                f"this machine doesn't see the run directory {run.path}: let paths.log_dir lie in "
                "a folder that all machines share"
            )
        time.sleep(0.2)
