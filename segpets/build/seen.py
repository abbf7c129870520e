"""The images that a run was trained on, to find them among those by which another is judged."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from omegaconf import DictConfig

from segpets.build.objects import build_data
from segpets.data.source import STAGES, Sample, Splits
from segpets.errors import UserError
from segpets.run.protocol import SPLIT_NAMES, split_names

Key = tuple[Path | str, int | None]
"""What says which image a sample is, and the page of it."""

_PUBLISHED: Final = ("OxfordPets", "CamVid", "Cityscapes")
# Their names mean the same photographs wherever a copy lies, smaller ones and parts of a set too.


def keys_of(samples: Iterable[Sample], data: Mapping[str, Any]) -> dict[Key, Sample]:
    """Finds what says which images they are: their names in a published set, else their files."""
    if str(data["_target_"]).rpartition(".")[2] in _PUBLISHED:
        return {(sample.name, sample.page): sample for sample in samples}
    return {(sample.image.resolve(), sample.page): sample for sample in samples}


def trained_on(
    cfg: DictConfig,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> set[Key] | None:
    """Lists the images that a run was trained on.

    Args:
        cfg: With `augment` and `seed`.
        before: The run's `data`, with this machine's paths; see `segpets.run.stored`.
        now: The data in whose terms they are named, and where they are looked for if the run's own
            folder is gone.
        summary: The run's, which says whether its split is still what it was.

    Returns:
        Their keys; none of a run of another data set, and None if they can't be listed, as where
        images were added since.
    """
    if before.get("_target_") != now["_target_"]:
        return set()
    for root in (before.get("root"), now.get("root")):
        with suppress(UserError):
            listed = build_data(cfg, {**before, "root": root}).listed()
            if before.get("overfit") or is_split(listed, summary, ["train"]):
                return set(keys_of(listed.train, now))
    return None


def is_split(splits: Splits, summary: Mapping[str, Any], stages: Sequence[str] = STAGES) -> bool:
    """Tells whether a run's images of some stages are these; true if it doesn't say."""
    noted, now = summary.get(SPLIT_NAMES), split_names(splits)
    known = noted if isinstance(noted, Mapping) else now
    return all(known.get(stage) == now[stage] for stage in stages)
