"""How well a trained model does, measured in one pass; pure computing, no files."""

from segpets.evaluation.inference import views
from segpets.evaluation.measure import Measured, Options, Task, measure
from segpets.evaluation.protocols import LABELS, Merge, merge
from segpets.evaluation.record import as_record
from segpets.evaluation.walk import Entry, Loss

__all__ = [
    "LABELS",
    "Entry",
    "Loss",
    "Measured",
    "Merge",
    "Options",
    "Task",
    "as_record",
    "measure",
    "merge",
    "views",
]
