"""What was found of a model."""

from dataclasses import dataclass

from segpets.cost import Cost
from segpets.speed.subject import Subject
from segpets.speed.workers import Row


@dataclass(frozen=True)
class Measured:
    """A model, what it costs, and how fast it is.

    Attributes:
        subject: The model.
        name: What it is called in tables.
        weights: Where its weights come from, in words.
        cost: Parameters, multiply-accumulates and layers.
        own: The device and the variant by which `segpets.load` computes with it.
        rows: How fast it is, in each variant and batch size.
    """

    subject: Subject
    name: str
    weights: str
    cost: Cost
    own: tuple[str, str]
    rows: list[Row]

    @property
    def latency(self) -> Row | None:
        """One image, on the device and in the variant of its own; None if it wasn't measured."""
        for row in self.rows:
            found = (row.job.device, row.job.variant) == self.own and row.batch == 1
            if found and row.timing is not None:
                return row
        return None
