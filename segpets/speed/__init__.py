"""How fast nets are: each variant in a process of its own, in turn with the others."""

from segpets.speed.measured import Measured
from segpets.speed.subject import Subject
from segpets.speed.timing import Timing
from segpets.speed.variants import EXPORTS, OWN, VARIANTS, Variant
from segpets.speed.workers import Job, Plan, Row, measure

__all__ = [
    "EXPORTS",
    "OWN",
    "VARIANTS",
    "Job",
    "Measured",
    "Plan",
    "Row",
    "Subject",
    "Timing",
    "Variant",
    "measure",
]
