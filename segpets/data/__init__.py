"""Data sets, one file each, and the one DataModule for all of them."""

from typing import TYPE_CHECKING, Any

from segpets.data.camvid.dataset import CamVid
from segpets.data.cityscapes import Cityscapes
from segpets.data.coco.dataset import Coco
from segpets.data.folder import Folder
from segpets.data.oxford_pets import OxfordPets
from segpets.data.source import Sample, Source, Splits
from segpets.data.voc import Voc

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


def __getattr__(name: str) -> Any:
    # Lightning takes seconds to import, and who only reads images needs none of it.
    if name == "SegmentationDataModule":
        from segpets.data.datamodule import SegmentationDataModule

        return SegmentationDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
