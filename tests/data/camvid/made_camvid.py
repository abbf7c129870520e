from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from segpets.config import conf_dir
from segpets.data import CamVid
from segpets.data.source import Sample, Splits
from segpets.errors import UserError

YAML = OmegaConf.load(conf_dir() / "data" / "camvid.yaml")
SEGNET = list(YAML.label_classes.segnet11)
ALL = list(YAML.label_classes.all32)

# label_colors.txt as the data set's page offers it, tabs included.
LABEL_COLORS = """\
64 128 64\tAnimal
192 0 128\tArchway
0 128 192\tBicyclist
0 128 64\tBridge
128 0 0\t\tBuilding
64 0 128\tCar
64 0 192\tCartLuggagePram
192 128 64\tChild
192 192 128\tColumn_Pole
64 64 128\tFence
128 0 192\tLaneMkgsDriv
192 0 64\tLaneMkgsNonDriv
128 128 64\tMisc_Text
192 0 192\tMotorcycleScooter
128 64 64\tOtherMoving
64 192 128\tParkingBlock
64 64 0\t\tPedestrian
128 64 128\tRoad
128 128 192\tRoadShoulder
0 0 192\t\tSidewalk
192 128 128\tSignSymbol
128 128 128\tSky
64 128 192\tSUVPickupTruck
0 0 64\t\tTrafficCone
0 64 64\t\tTrafficLight
192 64 128\tTrain
128 128 0\tTree
192 128 192\tTruck_Bus
64 0 64\t\tTunnel
192 192 0\tVegetationMisc
0 0 0\t\tVoid
64 192 0\tWall
"""
COLOURS = {
    line.split()[3]: [int(part) for part in line.split()[:3]] for line in LABEL_COLORS.splitlines()
}
CLASS_DICT = "name,r,g,b\n" + "".join(
    f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLOURS.items()
)
# camvidPixelLabelIDs of MathWorks' example, written down by hand.
GROUPS = {
    "sky": "Sky",
    "building": "Bridge Building Wall Tunnel Archway",
    "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc",
    "sign_symbol": "SignSymbol Misc_Text TrafficLight",
    "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}
SKY_AND_CAR = [[COLOURS["Sky"], COLOURS["Car"]]]


def save(file: Path, values: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)
    return file


def frame(image: Path, mask: Path, values: object) -> None:
    height, width = np.array(values).shape[:2]
    shade = sum(image.stem.encode()) % 256  # no two frames are the same picture
    save(image, np.full((height, width, 3), shade))
    save(mask, values)


def segnet(home: Path, stages: Iterable[str] = ("train", "val", "test"), *, count: int = 4) -> Path:
    """The layout of SegNet's tutorial: ids, 11 is void."""
    for drive, stage in zip(("0001TP", "0016E5", "Seq05VD"), stages, strict=False):
        for n in range(count):
            name = f"{drive}_{n:06}.png"
            frame(home / stage / name, home / f"{stage}annot" / name, [[0, 5, 10, 11]])
    return home


def kaggle(home: Path) -> Path:
    for drive, stage in (("0001TP", "train"), ("0016E5", "val"), ("Seq05VD", "test")):
        for n in range(3):
            name = f"{drive}_{n:06}"
            frame(home / stage / f"{name}.png", home / f"{stage}_labels/{name}_L.png", SKY_AND_CAR)
    (home / "class_dict.csv").write_text(CLASS_DICT)
    return home


def original(home: Path, names: Iterable[str], values: object = SKY_AND_CAR) -> Path:
    for name in names:
        frame(
            home / "701_StillsRaw_full" / f"{name}.png",
            home / "LabeledApproved_full" / f"{name}_L.png",
            values,
        )
    (home / "label_colors.txt").write_text(LABEL_COLORS)
    return home


def camvid(root: Path, **options: object) -> CamVid:
    return CamVid(**({"root": root} | options))  # type: ignore[arg-type]


def names(splits: Splits) -> list[list[str]]:
    return [[s.name for s in part] for part in (splits.train, splits.val, splits.test)]


def sizes(source: CamVid) -> list[int]:
    return [len(part) for part in names(source.splits())]


def ids(source: CamVid, file: Path) -> list[list[int]]:
    found = source.mask(Sample("x", file, file))
    assert found.dtype == np.uint8
    rows: list[list[int]] = found.tolist()
    return rows


def refusal(source: CamVid) -> str:
    with pytest.raises(UserError) as caught:
        source.splits()
    return str(caught.value)


def problems(source: CamVid) -> list[str]:
    return [str(problem.error) for problem in source.splits().problems]
