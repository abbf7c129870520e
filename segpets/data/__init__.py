"""Data sets, one file each, and the one DataModule for all of them."""

from typing import TYPE_CHECKING

from segpets.data.camvid.dataset import CamVid
from segpets.data.cityscapes import Cityscapes
from segpets.data.coco.dataset import Coco
from segpets.data.folder import Folder
from segpets.data.oxford_pets import OxfordPets
from segpets.data.source import Sample, Source, Splits
from segpets.data.voc import Voc
from segpets.lazy import lazily

if TYPE_CHECKING:
    from segpets.data.datamodule import SegmentationDataModule

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
__getattr__ = lazily(__name__, "datamodule", ["SegmentationDataModule"])
