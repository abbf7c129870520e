"""The keys of a comparison."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from segpets.settings import Natural, Positive, Settings


class CompareSettings(Settings):
    """Keys of `conf/compare.yaml`."""

    runs: str | int | Annotated[Sequence[str | int], Field(min_length=1)]
    metric: str
    pairs: Natural
    resamples: Annotated[int, Field(ge=99)]
    images: Natural
    shown: Positive
    seed: Natural
    ceiling: str | None
