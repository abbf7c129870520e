"""Whatever looks on while a training runs; nothing here changes what is trained."""

from segpets.callback.checkpoint import BestAndLast
from segpets.callback.confusion import ConfusionMatrixFigure
from segpets.callback.ema import EMA
from segpets.callback.finite import StopOnNaN
from segpets.callback.metrics_csv import MetricsCSV
from segpets.callback.pictures import Pictures
from segpets.callback.predictions import TestPredictions
from segpets.callback.progress import Progress
from segpets.callback.pruning import PruneHopeless
from segpets.callback.scalars import ScalarLayout
from segpets.callback.throughput import Throughput

__all__ = [
    "EMA",
    "BestAndLast",
    "ConfusionMatrixFigure",
    "MetricsCSV",
    "Pictures",
    "Progress",
    "PruneHopeless",
    "ScalarLayout",
    "StopOnNaN",
    "TestPredictions",
    "Throughput",
]
