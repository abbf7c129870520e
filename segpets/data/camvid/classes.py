"""CamVid's 32 classes, and SegNet's 11 that they make up; see `segpets.data.camvid.dataset`."""

import re
from pathlib import Path
from typing import Final

from segpets.data.mask_values import IGNORE
from segpets.errors import UserError

# The classes in the order of fast.ai's codes.txt: colour, and which of the 11 it belongs to.
CLASSES: Final = {
    "Animal": ("64 128 64", "pedestrian"),
    "Archway": ("192 0 128", "building"),
    "Bicyclist": ("0 128 192", "bicyclist"),
    "Bridge": ("0 128 64", "building"),
    "Building": ("128 0 0", "building"),
    "Car": ("64 0 128", "car"),
    "CartLuggagePram": ("64 0 192", "pedestrian"),
    "Child": ("192 128 64", "pedestrian"),
    "Column_Pole": ("192 192 128", "pole"),
    "Fence": ("64 64 128", "fence"),
    "LaneMkgsDriv": ("128 0 192", "road"),
    "LaneMkgsNonDriv": ("192 0 64", "road"),
    "Misc_Text": ("128 128 64", "sign_symbol"),
    "MotorcycleScooter": ("192 0 192", "bicyclist"),
    "OtherMoving": ("128 64 64", "car"),
    "ParkingBlock": ("64 192 128", "pavement"),
    "Pedestrian": ("64 64 0", "pedestrian"),
    "Road": ("128 64 128", "road"),
    "RoadShoulder": ("128 128 192", "pavement"),
    "Sidewalk": ("0 0 192", "pavement"),
    "SignSymbol": ("192 128 128", "sign_symbol"),
    "Sky": ("128 128 128", "sky"),
    "SUVPickupTruck": ("64 128 192", "car"),
    "TrafficCone": ("0 0 64", "pole"),
    "TrafficLight": ("0 64 64", "sign_symbol"),
    "Train": ("192 64 128", "car"),
    "Tree": ("128 128 0", "tree"),
    "Truck_Bus": ("192 128 192", "car"),
    "Tunnel": ("64 0 64", "building"),
    "VegetationMisc": ("192 192 0", "tree"),
    "Void": ("0 0 0", IGNORE),
    "Wall": ("64 192 0", "building"),
}


SEGNET: Final = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car"),
    *("pedestrian", "bicyclist"),
)
"""The 11 classes in the order of SegNet's ids; 11 is void."""


NAMES: Final = {"segnet11": SEGNET, "all32": tuple(CLASSES)}


_VOID: Final = {"void", "unlabelled", "unlabeled", "background", "ignore"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def class_of(name: str, labels: str, file: Path | None) -> str:
    """Finds the class that one of CamVid's names, in any spelling, belongs to."""
    plain = _plain(name)
    classes = {_plain(known): known for known in CLASSES}
    known = classes.get("void" if plain in _VOID else plain)
    if labels == "all32" and known:
        return known
    groups = {_plain(group): group for group in SEGNET} | {"roadmarking": "road"}
    group = CLASSES[known][1] if known else groups.get(plain)
    if labels == "segnet11" and group:
        return group
    if group:
        raise UserError(
            f"{file} names {name}, one of SegNet's 11 classes, so data.labels=all32 can't be "
            "had: use data.labels=segnet11"
        )
    raise UserError(
        f"{file} names {name!r}, which is no class of CamVid: correct it, or read a set with "
        "classes of its own by data=folder, data.classes and data.values"
    )
