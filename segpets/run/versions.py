"""The versions that a result depends on, and the revision of the code that made it."""

import functools
import hashlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")
DOES_NOT_TRAIN: Final = frozenset(
    {
        *("__main__", "cli", "records", "report", "significance", "stats"),
        *("benchmark", "browse", "compare", "evaluate", "export", "predict", "sweep"),
    }
)
"""Rooms that change no weight and no metric, only what is made of runs, and what runs when."""

PACKAGE: Final = Path(__file__).resolve().parents[1]


def versions() -> dict[str, str | None]:
    """Lists the versions of Python and packages, and the revisions of segpets."""
    numbers = {package: package_version(package) for package in ("segpets", *PACKAGES)}
    own = numbers.pop("segpets")
    python = ".".join(map(str, sys.version_info[:3]))
    return {"segpets": own, "git": git_revision(), "code": code_revision(), "python": python} | (
        numbers
    )


def package_version(package: str) -> str | None:
    """Looks up the version of an installed package; None if it isn't installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Names the commit of the checkout that segpets runs from, `+changes` if it was edited since.

    None when segpets is installed from a wheel.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")) / "segpets" != PACKAGE:
            return None
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return _git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def code_revision() -> str:
    """Hashes the code that trains: all of the package but `DOES_NOT_TRAIN`.

    Files that nobody thought of count, as do the user's own in `segpets/model/` and elsewhere.
    """
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        if place.parts[0].removesuffix(".py") not in DOES_NOT_TRAIN:
            digest.update(f"{place}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _git(*words: str) -> str:
    command = ["git", "-C", str(PACKAGE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
