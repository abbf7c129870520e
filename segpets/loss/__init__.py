"""Losses: logits (B, C, H, W) and class ids (B, H, W) to a scalar, one equation a file."""

from segpets.loss.base import SegmentationLoss
from segpets.loss.combined import CombinedLoss
from segpets.loss.cross_entropy import CrossEntropyLoss
from segpets.loss.dice import DiceLoss
from segpets.loss.focal import FocalLoss
from segpets.loss.jaccard import JaccardLoss
from segpets.loss.lovasz import LovaszLoss
from segpets.loss.soft_iou import SoftIoULoss
from segpets.loss.top_k import TopKLoss
from segpets.loss.tversky import TverskyLoss

__all__ = [
    "CombinedLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszLoss",
    "SegmentationLoss",
    "SoftIoULoss",
    "TopKLoss",
    "TverskyLoss",
]
