"""Instances in COCO's format as semantic masks."""

from segpets.data.coco.dataset import Coco as Coco
