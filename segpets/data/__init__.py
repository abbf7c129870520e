"""Data sets, one file each, and the one DataModule for all of them."""

from segpets.data.camvid import CamVid
from segpets.data.cityscapes import Cityscapes
from segpets.data.coco import Coco
from segpets.data.datamodule import SegmentationDataModule
from segpets.data.folder import Folder
from segpets.data.oxford_pets import OxfordPets
from segpets.data.source import Sample, Source, Splits
from segpets.data.voc import Voc

__all__ = [
    "CamVid",
    "Cityscapes",
    "Coco",
    "Folder",
    "OxfordPets",
    "Sample",
    "SegmentationDataModule",
    "Source",
    "Splits",
    "Voc",
]
