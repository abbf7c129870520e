"""The bounds of what a stored config may say, on both of their sides."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from segpets.errors import FileError
from segpets.run.schema import check
from segpets.run.trust import Trust

GOOD: dict[str, Any] = {
    "data": {
        "_target_": "segpets.data.Folder",
        "size": 64,
        "classes": ["background", "pet"],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    },
    "model": {"_target_": "segpets.model.unet.UNet", "widths": [4, 8]},
    "trainer": {},
}


def with_(place: str, value: object) -> dict[str, Any]:
    config = deepcopy(GOOD)
    group, _, key = place.partition(".")
    config[group][key] = value
    return config


@pytest.mark.parametrize(
    ("place", "allowed", "refused"),
    [
        ("data.batch_size", [1, 64, 65_536], [0, 65_537, True, "8"]),
        ("data.size", [1, 8192, [64, 96]], [0, 8193, [64], [64, 64, 64]]),
        ("data.channels", [3], [0, 4]),
        ("data.std", [[0.1, 1e-9, 9]], [[0.1, 0.1, 0], [0.1, 0.1, float("inf")], [0.1, 0.1]]),
        ("data.mean", [[-1.0, 0, 9]], [[0, 0, float("nan")], [0, 0, float("-inf")]]),
        ("data.num_workers", [0, 1024], [-1, 1025]),
        ("data.range", [[0, 65_535]], [[5, 5], [5, 4], [0, float("inf")], [1]]),
        ("data.classes", [["a"], ["a"] * 254], [[], ["a"] * 255]),
        ("model.widths", [[4] * 64, [16_384]], [[4] * 65, [16_385], [[4] * 65]]),
        ("model.depth", [512], [513]),
        ("model.num_layers", [512], [513]),
    ],
)
def test_what_is_within_the_bounds_passes_and_what_is_beyond_is_refused(
    place: str, allowed: list[object], refused: list[object]
) -> None:
    check(GOOD, Path("config.yaml"))
    for value in allowed:
        check(with_(place, value), Path("config.yaml"))
    for value in refused:
        with pytest.raises(FileError, match=r"config\.yaml"):
            check(with_(place, value), Path("config.yaml"))


def test_a_config_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """Of a folder of one's own configs, each names classes."""
    for name in ("a", "b", "c"):
        (tmp_path / "model").mkdir(exist_ok=True)
        text = "_target_: [" if name == "a" else f"_target_: own.{name}.Net\n"
        (tmp_path / "model" / f"{name}.yaml").write_text(text)
    trust = Trust.of((), [tmp_path])
    for name in ("b", "c"):
        trust.check({"model": {"_target_": f"own.{name}.Net"}}, where="a run")
