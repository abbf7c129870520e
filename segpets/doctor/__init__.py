"""The doctor: what is wrong with a data set before anyone trains on it."""

from segpets.doctor.augmentation import examine_augmentation
from segpets.doctor.finding import Finding, as_csv, exclusions
from segpets.doctor.survey import Survey, survey

__all__ = ["Finding", "Survey", "as_csv", "examine_augmentation", "exclusions", "survey"]
