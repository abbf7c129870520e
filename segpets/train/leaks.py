"""Warns of images that another run was trained on, and this one is judged by."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from segpets.run.files import shown

log = logging.getLogger("segpets.train")

_SPLITS: Final = ("_target_", "split", "seed", "folds", "fold", "exclude", "files", "group")


def warn_of_leaks(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warns if a run, whose weights or probabilities are used, had another split of the images.

    Args:
        path: The run.
        before: Its `data`.
        now: Those of this training.
    """
    if differ := [key for key in _SPLITS if now.get(key) != before.get(key)]:
        log.warning(
            "%s was trained with another data.%s: it may have seen images of this val or test, "
            "which then say too much",
            shown(path),
            differ[0],
        )
