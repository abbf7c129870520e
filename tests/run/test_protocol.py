"""Equal protocols, and none else, are ranked together."""

import json
from collections.abc import Callable
from pathlib import Path

import made_data
import pytest
from fixture_types import Train

from segpets.build.objects import build_data
from segpets.compare import compare
from segpets.config import compose
from segpets.data.source import Sample
from segpets.run import protocol as protocols


def protocol_of(*words: str) -> dict[str, object]:
    """The protocol of some data, of which no pixel need be decoded."""
    cfg = compose(list(words))
    data = build_data(cfg)
    data.splits = data.source.splits()
    return protocols.protocol(data, dict(cfg.data), classes=list(cfg.data.classes))


FOLDER = ("data=folder", "data.classes=[background,pet]")
PAIRS: dict[str, tuple[Callable[[Path], Path] | None, tuple[str, ...], str, str]] = {
    "labels": (
        None,
        ("data=pets_mini",),
        "data.labels=border_as_pet",
        "data.labels=border_ignored",
    ),
    "split": (None, ("data=pets_mini",), "data.split=holdout", "data.split=article"),
    "seed": (None, ("data=pets_mini",), "data.seed=0", "data.seed=1"),
    "size": (None, ("data=pets_mini",), "data.size=64", "data.size=96"),
    "overfit": (None, ("data=pets_mini",), "data.overfit=4", "data.overfit=5"),
    "values": (
        made_data.folder,
        FOLDER,
        "data.values={0: background, 1: pet, 2: pet}",
        "data.values={0: background, 1: pet, 2: ignore}",
    ),
    "threshold": (made_data.folder, FOLDER, "data.threshold=0", "data.threshold=1"),
    "ignored by a threshold": (
        made_data.folder,
        (*FOLDER, "data.threshold=0"),
        "data.ignore_value=2",
        "data.ignore_value=3",
    ),
    "ignored": (made_data.folder, FOLDER, "data.ignore_value=2", "data.ignore_value=3"),
    "ignored of voc": (
        made_data.voc,
        ("data=voc",),
        "data.ignore_value=19",
        "data.ignore_value=20",
    ),
    "categories": (
        made_data.coco,
        ("data=coco",),
        "data.categories=[cat]",
        "data.categories=[dog]",
    ),
    "fit": (None, ("data=pets_mini",), "data.fit=stretch", "data.fit=letterbox"),
    "shorter side": (None, ("data=pets_mini", "data.fit=shorter"), "data.size=64", "data.size=96"),
    "window": (None, ("data=pets_mini",), "data.window=64", "data.window=[64,96]"),
    "exif": (None, ("data=pets_mini",), "data.exif=apply", "data.exif=ignore"),
    "channels": (made_data.folder, FOLDER, "data.channels=1", "data.channels=4"),
    "range": (made_data.folder, FOLDER, "data.range=[0,4095]", "data.range=[0,65535]"),
    "pages": (made_data.folder, FOLDER, "data.pages=each", "data.pages=channels"),
    "crowd": (made_data.coco, ("data=coco",), "data.crowd=class", "data.crowd=ignore"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_option_that_changes_a_mask_or_its_image_changes_the_protocol(
    name: str, tmp_path: Path
) -> None:
    make, words, one, other = PAIRS[name]
    where = [f"data.root={make(tmp_path / 'data')}"] if make else []
    first, second = (protocol_of(*words, *where, option) for option in (one, other))
    assert first == protocol_of(*words, *where, one)
    assert first != second
    assert json.loads(json.dumps(first)) == first, "a summary holds it as it is"


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("data.fit=stretch", "fit"),
        ("data.window=null", "window"),
        ("data.channels=3", "channels"),
        ("data.range=null", "range"),
        ("data.exif=auto", "exif"),
        ("data.pages=null", "pages"),
    ],
)
def test_what_earlier_versions_did_is_not_named(option: str, key: str) -> None:
    """So that their runs are ranked beside later ones."""
    assert key not in protocol_of("data=pets_mini", option)


@pytest.mark.parametrize("option", ["data.batch_size=3", "data.num_workers=0", "data.cache=none"])
def test_what_changes_no_number_changes_no_protocol(option: str) -> None:
    assert protocol_of("data=pets_mini") == protocol_of("data=pets_mini", option)


def test_trainings_with_other_labels_are_ranked_apart(train_tiny: Train, tmp_path: Path) -> None:
    """Both have the classes pet and background, and the same files."""
    runs = [
        train_tiny(f"data.labels={labels}", "trainer.max_epochs=1", folder=labels).path
        for labels in ("border_as_pet", "border_ignored")
    ]
    words = [f"hydra.run.dir={tmp_path / 'out'}", "images=0", f"runs=[{runs[0]},{runs[1]}]"]
    groups = compare(compose(words, task="compare")).groups
    assert [len(group.configurations) for group in groups] == [1, 1]


def test_the_weights_that_were_tested_are_a_fact() -> None:
    def noted(value: object) -> dict[str, object]:
        return protocols.tested_weights({"protocol": {"tested_weights": value}})

    assert noted({"checkpoint": "best", "monitor": "val/iou/pet"})["monitor"] == "val/iou/pet"
    assert noted("best val/mean_iou") == {"checkpoint": "best", "monitor": "val/mean_iou"}
    assert noted("last epoch") == {"checkpoint": "last"}
    assert noted("init_from=/a/run") == {"init_from": "/a/run"}


def test_the_hash_of_samples_is_that_of_earlier_runs() -> None:
    """Else the runs of a folder with groups would no longer be ranked together."""

    class Splits:
        def stages(self) -> dict[str, list[Sample]]:
            return {"train": [sample("b"), sample("a")], "test": [sample("c")]}

    def sample(name: str) -> Sample:
        return Sample(name=name, image=Path(f"{name}.jpg"), mask=Path(f"{name}.png"))

    assert protocols._names(Splits()) == "238c0746a1a34840"
