"""Images that a run was trained on are known again, in other copies and parts of a data set too."""

from pathlib import Path

import pytest
from pet_folder import PetFolder
from PIL import Image

from segpets.build.objects import build_data
from segpets.build.seen import keys_of, trained_on
from segpets.config import compose
from segpets.settings import table


def test_a_part_of_a_published_set_shares_photographs_with_the_whole(tmp_path: Path) -> None:
    """Another pool gives another split, of the same seed."""
    part, whole = PetFolder(tmp_path / "part"), PetFolder(tmp_path / "whole", trainval=20)
    sets = [compose(["data=oxford_pets", f"data.root={pets.root}"]) for pets in (part, whole)]
    now, before = (table(cfg.data) for cfg in sets)
    val, train = build_data(sets[0]).listed().val, build_data(sets[1]).listed().train
    shared = {s.name for s in val} & {s.name for s in train}
    assert shared
    seen, judged = trained_on(sets[0], before, now, {}), keys_of(val, now)
    assert seen is not None
    assert {judged[key].name for key in seen & judged.keys()} == shared


def test_names_of_ones_own_files_say_nothing_in_another_folder(tmp_path: Path) -> None:
    sets = []
    for name in ("mine", "yours"):
        for index in range(10):
            for folder in ("images", "masks"):
                (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), index % 2).save(tmp_path / name / folder / f"{index}.png")
        words = ["data=folder", f"data.root={tmp_path / name}", "data.classes=[background,leaf]"]
        sets.append(compose(words))
    now, before = (table(cfg.data) for cfg in sets)
    every = trained_on(sets[0], before, now, {})
    assert every and not every & keys_of(build_data(sets[0]).listed().train, now).keys()
    own = trained_on(sets[0], now, now, {})
    assert own == keys_of(build_data(sets[0]).listed().train, now).keys()


@pytest.mark.parametrize(("root", "listed"), [("gone", None), ("whole", set())])
def test_a_folder_that_is_gone_and_another_data_set(
    tmp_path: Path, root: str, listed: set[object] | None
) -> None:
    PetFolder(tmp_path / "whole")
    cfg = compose(["data=oxford_pets", f"data.root={tmp_path / root}"])
    now = table(cfg.data)
    before = now if listed is None else now | {"_target_": "segpets.data.Folder"}
    assert trained_on(cfg, before, now, {}) == listed
