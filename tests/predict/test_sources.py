"""Which files are predicted, and that no two share a name."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segpets.errors import UserError
from segpets.predict.sources import PictureFile, each_page, find_sources


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.jpg, a.PNG, sub/a.jpg, and what is no picture."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("a.jpg", "b.PNG", "sub/a.jpg", "notes.txt", ".hidden/c.jpg", ".d.jpg"):
        (root / name).touch()
    return root


def names(sources: list[PictureFile], root: Path) -> dict[str, str]:
    return {s.path.relative_to(root).as_posix(): s.name for s in sources}


def found(root: Path, *given: str) -> dict[str, str]:
    return names(find_sources(given or [str(root)], output=root.parent / "out"), root)


def test_a_folder_is_all_pictures_below_it(photos: Path) -> None:
    assert found(photos) == {"a.jpg": "a", "b.PNG": "b", "sub/a.jpg": "sub/a"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", {"a.jpg": "a"}),
        ("**/*.jpg", {"a.jpg": "a", "sub/a.jpg": "sub/a"}),
        ("*/a.jpg", {"sub/a.jpg": "sub/a"}),
        ("*", {"a.jpg": "a", "b.PNG": "b"}),
        ("[ab].*", {"a.jpg": "a", "b.PNG": "b"}),
        ("notes.txt", {"notes.txt": "notes"}),
    ],
)
def test_a_pattern_is_the_files_that_it_matches(
    photos: Path, pattern: str, expected: dict[str, str]
) -> None:
    assert found(photos, f"{photos}/{pattern}") == expected


def test_what_exists_is_meant_literally(photos: Path) -> None:
    (photos / "a[1].jpg").touch()
    (photos / "a1.jpg").touch()
    assert found(photos, f"{photos}/a[1].jpg") == {"a[1].jpg": "a[1]"}


def test_home_is_understood(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(photos))
    assert found(photos, "~/a.jpg") == {"a.jpg": "a"}


def test_a_file_that_is_given_twice_is_predicted_once(photos: Path) -> None:
    (photos / "link.jpg").symlink_to(photos / "a.jpg")
    assert found(photos, f"{photos}/a.jpg", f"{photos}/*.jpg") == {"a.jpg": "a"}


def test_pictures_of_one_stem_keep_their_suffix(photos: Path) -> None:
    (photos / "a.png").touch()
    assert found(photos)["a.jpg"] == "a.jpg"
    assert found(photos)["a.png"] == "a.png"
    assert found(photos)["sub/a.jpg"] == "sub/a"


def test_names_that_differ_in_case_alone_are_told_apart(photos: Path) -> None:
    (photos / "A.jpg").touch()
    (photos / "a.jpg.gif").touch()
    given = found(photos)
    assert len({name.casefold() for name in given.values()}) == len(given) == 5


def test_pictures_of_several_folders_are_told_apart(photos: Path) -> None:
    given = found(photos, f"{photos}/a.jpg", f"{photos}/sub")
    assert len({name.casefold() for name in given.values()}) == len(given) == 2


def test_earlier_predictions_keep_their_names(photos: Path, tmp_path: Path) -> None:
    known = {str(photos / "b.PNG"): "mine", "/elsewhere/a.jpg": "a"}
    sources = find_sources([str(photos)], output=tmp_path / "out", known=known)
    assert names(sources, photos) == {"a.jpg": "a.jpg", "b.PNG": "mine", "sub/a.jpg": "sub/a"}


def test_a_long_name_leaves_room_for_a_suffix(photos: Path) -> None:
    for end in "xy":
        (photos / (250 * "l" + end + ".jpg")).touch()
    long = [name for name in found(photos).values() if "l" in name]
    assert len(set(long)) == 2
    assert all(len(name) == 200 for name in long)


def test_outputs_are_never_sources(photos: Path) -> None:
    for folder in ("masks", "overlays", "cutouts", "composites"):
        (photos / folder / "sub").mkdir(parents=True)
        (photos / folder / "a.png").touch()
        (photos / folder / "sub" / "b.jpg").touch()
    sources = find_sources([str(photos)], output=photos)
    assert names(sources, photos) == {"a.jpg": "a", "b.PNG": "b", "sub/a.jpg": "sub/a"}
    with pytest.raises(UserError, match=r"all its pictures are outputs of earlier predictions"):
        find_sources([str(photos / "masks")], output=photos)


def test_a_source_without_pictures_is_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (str(tmp_path / "empty"), f"{photos}/*.tif"):
        with pytest.raises(UserError, match="there is no picture in it"):
            find_sources([str(photos), source], output=tmp_path / "out")
    with pytest.raises(UserError, match=r"there is no file or folder .*\"source='my pictures"):
        find_sources(["my pics (1)"], output=tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_error(photos: Path, tmp_path: Path) -> None:
    (photos / "sub").chmod(0)
    with pytest.raises(UserError, match="can't be listed"):
        find_sources([str(photos)], output=tmp_path / "out")


def test_no_page_has_the_name_of_another_picture(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    tifffile.imwrite(
        photos / "x.tif", np.zeros((2, 8, 8), dtype=np.uint8), photometric="minisblack"
    )
    Image.new("L", (8, 8)).save(photos / "X-page1.png")
    Image.new("L", (8, 8)).save(photos / "y.png")
    whole = find_sources([str(photos)], output=tmp_path / "out")
    pages = {source.source: source.name for source in each_page(whole)}
    assert len(pages) == 4 and len({name.casefold() for name in pages.values()}) == 4
    assert pages[f"{photos}/X-page1.png"] == "X-page1"
    again = {source.source: source.name for source in each_page(whole, known=pages)}
    assert again == pages
    (photos / "X-page1.png").unlink()  # what was predicted keeps its name
    left = find_sources([str(photos)], output=tmp_path / "out", known=pages)
    assert {source.source: source.name for source in each_page(left, known=pages)}.items() <= (
        pages.items()
    )
