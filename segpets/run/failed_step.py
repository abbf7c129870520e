"""The note of a step at which a training stopped, by which it can be run again."""

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segpets.errors import FileError, UserError
from segpets.reading import read_json
from segpets.run.files import RunFiles, shown, write_atomically

_Count = Annotated[int, Field(ge=1)]


class FailedStep(BaseModel):
    """A step at which numbers were none.

    Attributes:
        step: Its number, from 1.
        epoch: Its epoch, from 1.
        batch: Its last batch in the epoch, from 1.
        what: What was no number.
        layer: Where that began, if it is known.
        images: The names of the batch's images.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    step: _Count
    epoch: _Count
    batch: int
    what: str
    layer: str | None
    images: list[str]

    def write(self, run: RunFiles) -> None:
        """Writes it into the run."""
        write_atomically(run.failed_step, json.dumps(self.model_dump(), indent=2) + "\n")


def read_failed_step(run: RunFiles) -> FailedStep:
    """Reads the note of a run.

    Raises:
        UserError: There is none, or it can't be read.
    """
    try:
        return FailedStep(**read_json(run.failed_step))
    except FileNotFoundError as error:
        raise UserError(
            f"{shown(run.path)} holds no {run.failed_step.name}: no step of it failed. Say which "
            "one to run again by replay_step=NUMBER"
        ) from error
    except (ValueError, TypeError, OSError, ValidationError) as error:
        raise FileError(
            run.failed_step, "is no note of a step", "say replay_step=NUMBER instead"
        ) from error
