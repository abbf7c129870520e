"""How well a trained model does, measured in one pass; pure computing, no files."""

from segpets.evaluation.calibration import PixelSample, fit_temperature
from segpets.evaluation.inference import View, averaged, views
from segpets.evaluation.protocols import Merge, merge
from segpets.evaluation.slices import Interval, Slice, intervals, slices
from segpets.evaluation.tally import Judged, Tally
from segpets.evaluation.walk import Entry, Loss, sample_pixels, walk

__all__ = [
    "Entry",
    "Interval",
    "Judged",
    "Loss",
    "Merge",
    "PixelSample",
    "Slice",
    "Tally",
    "View",
    "averaged",
    "fit_temperature",
    "intervals",
    "merge",
    "sample_pixels",
    "slices",
    "views",
    "walk",
]
