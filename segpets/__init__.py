"""segpets: semantic segmentation experiments with PyTorch Lightning and Hydra."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from segpets.trained import Trained

__version__ = "0.1.0"

# Under `python -m segpets...`, sys.argv[0] is "-m" while this is imported.
if sys.argv[:1] == ["-m"] and not all(map(importlib.util.find_spec, ("omegaconf", "torch"))):
    print(
        f"error: this Python ({sys.executable}) has not what segpets needs: "
        "source .venv/bin/activate, or make train",
        file=sys.stderr,
    )
    sys.exit(1)


def load(run: str | Path = "latest", **options: Any) -> Trained:
    """Loads the model that a run trained: `segpets.load("DIR").predict(image)`.

    Args:
        run: A run directory, a job of a sweep, or `latest`.
        **options: Those of `segpets.trained.load`, such as `checkpoint` and `device`.

    Raises:
        UserError: There is no such run, its weights can't be used, or it isn't to be trusted.
    """
    from segpets import trained  # late: it takes seconds

    return trained.load(run, **options)
