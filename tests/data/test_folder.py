"""Folders from the command to the metric."""

import re
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Command
from made_folder import draw

from segpets.build.objects import build_source
from segpets.config import compose
from segpets.data.source import Sample
from segpets.errors import UserError
from segpets.train import train

TINY = ["data.size=32", "model.widths=[4,8]", "debug=smoke"]


def plot(root: Path, *, background: object, leaf: object, mask: str) -> None:
    """12 images of different sizes, whose masks are noise of two values."""
    noise = np.random.default_rng(0)
    for n in range(12):
        height, width = noise.integers(20, 60, 2)
        draw(root / f"images/{n}.jpg", noise.integers(0, 256, (height, width, 3)))
        chosen = noise.integers(0, 2, (height, width))
        draw(root / "masks" / mask.format(n), np.array([background, leaf])[chosen])


def test_one_line_trains_on_images_of_different_sizes(command: Command, tmp_path: Path) -> None:
    plot(tmp_path / "my", background=0, leaf=1, mask="{}.png")
    done = command("data=folder", "data.root=my", "data.classes=[background,leaf]", *TINY)
    assert done.returncode == 0, done.stdout
    assert "10 train, 1 val, 1 test images" in done.stdout
    assert "leaf" in done.stdout


def test_what_a_refusal_advises_can_be_pasted_and_works(tmp_path: Path) -> None:
    plot(tmp_path / "my", background=[0, 0, 0], leaf=[0, 255, 0], mask="{}_mask.png")
    words = ["data=folder", f"data.root={tmp_path}/my", "data.classes=[background,leaf]", *TINY]
    for key in ("data.mask_pattern", "data.values"):
        with pytest.raises(UserError) as refused:
            train(compose([*words, f"hydra.run.dir={tmp_path}/{key}"]))
        advised = re.search(rf"{key}=('\".*?\"'|{{.*?}})", str(refused.value))
        assert advised, refused.value
        words.append(advised[0].replace("'", ""))  # which the shell would take
    assert words[-2:] == [
        'data.mask_pattern="{stem}_mask"',
        "data.values={0 0 0: background, 0 255 0: leaf}",
    ]
    assert "test/iou/leaf" in train(compose([*words, f"hydra.run.dir={tmp_path}/run"])).metrics


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.values={0: background, 9: ignore, 255: leaf}"], [0, 255, 1]),
        (["data.values={0: background, 9: null, 255: leaf}"], [0, 255, 1]),
        (["data.threshold=9"], [0, 0, 1]),
        (["data.threshold=0", "data.ignore_value=[255]"], [0, 1, 255]),
    ],
)
def test_meanings_on_the_command_line(
    tmp_path: Path, words: list[str], expected: list[int]
) -> None:
    file = draw(tmp_path / "mask.png", [[0, 9, 255]])
    cfg = compose(["data=folder", "data.classes=[background,leaf]", *words])
    source = build_source(cfg.data)
    assert source.mask(Sample("mask", file, file)).tolist() == [expected]


def test_missing_classes_are_asked_for(command: Command) -> None:
    done = command("data=folder", *TINY)
    assert done.returncode == 1
    assert "data.classes has no value: give one, as in data.classes=" in done.stdout
    assert "Traceback" not in done.stdout
    shown = command("data=folder", "--cfg", "job")
    assert shown.returncode == 0
    assert "_target_: segpets.data.Folder" in shown.stdout
