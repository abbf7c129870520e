"""segpets: semantic segmentation experiments with PyTorch Lightning and Hydra."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpets.inference.trained import Trained

try:
    __version__ = version("segpets")
except PackageNotFoundError:  # a checkout that isn't installed
    __version__ = "0"


def load(
    run: str | Path | Sequence[str | Path] = "latest",
    *,
    log_dir: str | Path = "logs/train",
    allow: Any = None,
    folders: Any = (),
    **options: Any,
) -> "Trained":
    """Loads the model that a run trained: `segpets.load("DIR").predict(image)`.

    A list of runs, or the folder of a sweep, is an ensemble: probabilities are averaged.

    The config and the weights of a run may come from anyone: nothing is unpickled but tensors
    and plain data, and no class is made that segpets' configs, or the user, don't name.

    Args:
        run: A run directory, a job of a sweep, or `latest`; a list of them, or a sweep's folder.
        log_dir: Where `latest` is looked for.
        allow: Classes of the user's own that the run's config may name.
        folders: Folders with configs of the user's own, whose classes are allowed, too.
        **options: Those of `segpets.inference.trained.load`: `checkpoint`, `device`, `precision`.

    Raises:
        UserError: There is no such run, its weights can't be used, or it isn't to be trusted.
    """
    ensemble = import_module("segpets.inference.ensemble")  # late: it takes seconds
    trust = import_module("segpets.run.trust").Trust.of(allow, folders)
    runs = ensemble.open_runs(run, log_dir=log_dir, trust=trust)
    model: Trained = ensemble.load_runs(runs, **options)
    return model
