"""Runs side by side: found, read with distrust, grouped by protocol, folded over seeds, tested."""

from segpets.comparison.find import Unranked, find_runs
from segpets.comparison.group import Configuration, Group, grouped, lower_is_better
from segpets.comparison.paired import Comparison, compared
from segpets.comparison.pictures import Disputed, disputed
from segpets.comparison.record import Record, read_record

__all__ = [
    "Comparison",
    "Configuration",
    "Disputed",
    "Group",
    "Record",
    "Unranked",
    "compared",
    "disputed",
    "find_runs",
    "grouped",
    "lower_is_better",
    "read_record",
]
