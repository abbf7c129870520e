"""The names of a run's files, and writing that never leaves half a file.

<run>/  summary.json  config.yaml  train.log  metrics.csv  model.txt  trial.json  benchmark.json
        failed_step.json
        checkpoints/  predictions/  export/  tensorboard/  .hydra/  .lock
"""

import functools
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segpets.errors import UserError

log = logging.getLogger(__name__)

SUMMARY: Final = "summary.json"
CONFIG: Final = "config.yaml"
METRICS: Final = "metrics.csv"
COUNTS: Final = "predictions/test/counts.csv"
OUT_OF_FOLD: Final = "predictions/val/out_of_fold.csv"
BENCHMARK: Final = "benchmark.json"
CHECKPOINTS: Final = "checkpoints"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
TRIAL: Final = "trial.json"
FAILED_STEP: Final = "failed_step.json"
LATEST: Final = "latest"

EVALUATION, COMPARISON, BROWSING = "evaluation.json", "compare.html", "browse.html"
SWEEP: Final = "sweep.json"
RECORDS: Final = {
    SUMMARY: "already holds a run: choose another hydra.run.dir, or continue it with resume=RUN",
    EVALUATION: f"already holds an {EVALUATION}: choose another hydra.run.dir",
    COMPARISON: f"already holds a {COMPARISON}: choose another hydra.run.dir",
    BROWSING: f"already holds a {BROWSING}: choose another hydra.run.dir",
    SWEEP: "is the folder of a sweep: choose another hydra.run.dir",
}
"""What shows that a command has ended in a folder, and what to do instead."""

NEVER_BEGAN: Final = (
    "holds a run that failed before its first checkpoint: delete the folder, or choose another "
    "hydra.run.dir"
)
"""The same for a run that can't go on."""

OTHER_FOLDER: Final = "choose another by hydra.run.dir=FOLDER or paths.log_dir=FOLDER"
"""The remedy where results can't be written."""


@dataclass(frozen=True)
class RunFiles:
    """The paths of the files of a run.

    Attributes:
        path: The run directory.
    """

    path: Path

    @property
    def summary(self) -> Path:
        """Status, overrides, metrics, protocol and versions."""
        return self.path / SUMMARY

    @property
    def config(self) -> Path:
        """The config, with every reference filled in."""
        return self.path / CONFIG

    @property
    def metrics(self) -> Path:
        """The learning curves."""
        return self.path / METRICS

    @property
    def model(self) -> Path:
        """The table of the net's layers."""
        return self.path / "model.txt"

    @property
    def trial(self) -> Path:
        """The number of the run's trial, if a search started it."""
        return self.path / TRIAL

    @property
    def failed_step(self) -> Path:
        """The step at which the training stopped, if its numbers were none."""
        return self.path / FAILED_STEP

    @property
    def benchmark(self) -> Path:
        """The latency, if it was measured: `latency_ms` of one image, and the `device`."""
        return self.path / BENCHMARK

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.checkpoints / BEST

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch."""
        return self.checkpoints / LAST

    @property
    def previous(self) -> Path:
        """The checkpoint of the epoch before the last."""
        return self.checkpoints / PREVIOUS

    def checkpoint(self, name: str) -> Path:
        """Returns the path of the checkpoint `best` or `last`."""
        return self.checkpoints / f"{name}.ckpt"

    @property
    def masks(self) -> Path:
        """The folder of the predicted masks of the test images."""
        return self.path / "predictions" / "test" / "masks"

    @property
    def counts(self) -> Path:
        """The pixels of each test image by truth and prediction."""
        return self.path / COUNTS

    @property
    def test_picture(self) -> Path:
        """The sheet of test predictions."""
        return self.path / "predictions" / "test.png"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.path / "tensorboard"

    @property
    def export(self) -> Path:
        """The folder of exported models."""
        return self.path / "export"

    @property
    def lock(self) -> Path:
        """The lock held by the process that writes the run."""
        return self.path / ".lock"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a power cut, sees the old content or the new one."""
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def remove_unfinished(path: Path) -> None:
    """Removes what `write_atomically` began beside a file when it was killed.

    Only for who holds the folder's lock, since another process may be writing.
    """
    for file in path.parent.glob(f".{path.name}.{'?' * 8}"):
        if file.is_file() and not file.is_symlink():
            file.unlink(missing_ok=True)


def set_aside(path: Path, why: str) -> Path:
    """Renames a file or folder to a name that nothing has yet, `NAME.WHY-1`; returns the name."""
    number = 1
    while (beside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    return path.rename(beside)


@functools.cache
def umask() -> int:
    """Reads the mask of permissions, which the system gives only in exchange for another."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def point(link: Path, target: Path) -> None:
    """Makes or moves a symbolic link in one step; a file or folder in its place stays."""
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists() and not link.is_symlink():
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        there, here = os.path.realpath(target), os.path.realpath(link.parent)
        temporary.symlink_to(os.path.relpath(there, here))  # from where it really lies
        os.replace(temporary, link)
    except OSError as error:  # some file systems have no links, and it is a convenience
        log.info("%s can't be made here (%s): name the run itself", link, error.strerror)


def make_ready(folder: Path, otherwise: str, *, key: str = "") -> Path:
    """Makes a folder and tests that it can be written, before anything long begins.

    Raises:
        UserError: It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{key}{folder} can't be written ({error.strerror}): {otherwise}"
        ) from error
    return folder


def shown(path: Path) -> str:
    """Shortens a path to what a user would type here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
