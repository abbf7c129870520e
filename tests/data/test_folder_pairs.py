"""Images of a folder and the masks that belong to them."""

import logging
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from made_folder import draw, folder, many, pair, partners, problems, refusal

from segpets.data import SegmentationDataModule
from segpets.data.source import leave_out
from segpets.errors import UserError


def test_a_mask_has_the_stem_of_its_image_whatever_the_suffix_and_the_sub_folder(
    tmp_path: Path,
) -> None:
    expected = {
        "a.jpg": "a.png",
        "B b.JPEG": "B b.tif",
        "deep/ü, [1] {x}.bmp": "deep/ü, [1] {x}.gif",
        "deep/a.webp": "deep/a.bmp",
        "x.y.TIFF": "x.y.PNG",
    }
    for image, mask in expected.items():
        pair(tmp_path, image, mask)
    source = folder(tmp_path)
    assert partners(source) == expected
    splits = source.splits()
    names = [s.name for s in (*splits.train, *splits.val, *splits.test)]
    assert len(set(names)) == len(expected)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_sub_folders_never_share_a_name(tmp_path: Path) -> None:
    for stem in ("a/b", "a__b", "a-b", "a_b"):
        pair(tmp_path, f"{stem}.png", f"{stem}.png")
    splits = folder(tmp_path).splits()
    assert len({s.name for s in (*splits.train, *splits.val, *splits.test)}) == 4


def test_a_mask_in_another_sub_folder_is_found_by_its_stem_alone(tmp_path: Path) -> None:
    expected = {"red/a.png": "a.png", "red/b.png": "all/b.png", "blue/c.png": "blue/c.png"}
    for image, mask in expected.items():
        pair(tmp_path, image, mask)
    assert partners(folder(tmp_path)) == expected


def test_a_stem_alone_must_be_the_only_one(tmp_path: Path) -> None:
    many(tmp_path, 3)
    pair(tmp_path, "one/a.png", "x/a.png")
    draw(tmp_path / "masks/y/a.png", [[0]])
    pair(tmp_path, "one/b.png", "z/b.png")
    pair(tmp_path, "two/b.png")
    told = sorted(problems(folder(tmp_path)).values())
    images, masks = tmp_path / "images", tmp_path / "masks"
    assert len(told) == 3
    assert told[0].startswith(f"{images}/one/b.png and {images}/two/b.png are partners")
    assert told[1].startswith(f"{images}/one/b.png and {images}/two/b.png are partners")
    assert told[2].startswith(f"{masks}/x/a.png and {masks}/y/a.png are partners")


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [
        ("{stem}_mask", "b 1_mask"),
        ("{stem}_L", "b 1_L"),
        ("mask_{stem}", "mask_b 1"),
        ("{stem}/{stem}", "b 1/b 1"),
    ],
)
def test_a_pattern_names_the_masks(tmp_path: Path, pattern: str, mask: str) -> None:
    for stem in ("a", "sub/b 1", "c"):
        head, _, last = stem.rpartition("/")
        pair(tmp_path, f"{stem}.png", f"{head}/{pattern.replace('{stem}', last)}.gif".lstrip("/"))
    assert partners(folder(tmp_path, mask_pattern=pattern))["sub/b 1.png"] == f"sub/{mask}.gif"


def test_a_pattern_tells_images_from_masks_in_one_folder(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / "all" / f"{stem}.png", np.zeros((2, 4, 3)))
        draw(tmp_path / "all" / f"{stem}_L.png", [[0]])
    options = {"images": tmp_path / "all", "masks": tmp_path / "all"}
    expected = {f"{stem}.png": f"{stem}_L.png" for stem in "abc"}
    assert partners(folder(None, mask_pattern="{stem}_L", **options)) == expected
    told = refusal(folder(None, **options))
    assert "are the same folder" in told
    assert "named {stem}_M after another" in refusal(
        folder(None, mask_pattern="{stem}_M", **options)
    )
    assert "data.mask_pattern" in told


def test_masks_in_a_folder_within_that_of_the_images(tmp_path: Path) -> None:
    for stem in "abc":
        draw(tmp_path / f"{stem}.png", np.zeros((2, 4, 3)))
        draw(tmp_path / "truth" / f"{stem}.png", [[0]])
    source = folder(None, images=tmp_path, masks=tmp_path / "truth")
    assert partners(source) == {f"{stem}.png": f"{stem}.png" for stem in "abc"}


def test_folders_are_looked_for_here_and_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(tmp_path / "my", 3)
    monkeypatch.chdir(tmp_path)
    here = folder(None, images="my/images", masks="my/masks")
    assert here.root == Path("my")
    assert partners(here) == partners(folder(Path("my"), images="images", masks="masks"))
    monkeypatch.chdir(tmp_path / "my")
    assert partners(folder(None)) == partners(folder(tmp_path / "my"))


def test_missing_and_doubtful_partners_are_listed_and_can_be_excluded(tmp_path: Path) -> None:
    many(tmp_path, 3)
    pair(tmp_path, "lonely.png")
    draw(tmp_path / "masks" / "orphan.png", [[0]])
    pair(tmp_path, "two masks.png", "two masks.png")
    draw(tmp_path / "masks" / "two masks.gif", [[0]])
    pair(tmp_path, "two_images.png", "two_images.png")
    draw(tmp_path / "images" / "two_images.jpg", np.zeros((2, 4, 3)))
    told = problems(folder(tmp_path))
    masks = next(name for name in told if name.startswith("two-masks"))
    assert told.keys() == {"lonely", "orphan", "two_images", masks}
    assert f"images/lonely.png has no mask {tmp_path}/masks/lonely.*: add it" in told["lonely"]
    assert "masks/orphan.png is a mask without an image" in told["orphan"]
    assert "two masks.gif" in told[masks] and "two masks.png" in told[masks]
    assert "two_images.jpg" in told["two_images"] and "two_images.png" in told["two_images"]

    def started(exclude: Path | None) -> SegmentationDataModule:
        module = SegmentationDataModule(
            source=folder(tmp_path),
            augment=lambda image, mask, seed: (image, mask),
            size=32,
            batch_size=1,
            num_workers=0,
            run_seed=0,
            cache="none",
            exclude=exclude,
        )
        module.setup()
        return module

    with pytest.raises(UserError, match="3 more can't be used either"):
        started(None)
    (tmp_path / "exclude.txt").write_text("\n".join(told))
    assert len(started(tmp_path / "exclude.txt").pixels) == 3


def test_a_name_in_the_list_may_hold_a_number_sign(tmp_path: Path) -> None:
    for name in ("#1.png", "c 2 # b.png", "c.png", "d.png", "e.png"):
        pair(tmp_path, name, name)
    splits = folder(tmp_path).splits()
    (tmp_path / "list.txt").write_text("#1.png\nc 2 # b.png\nc.png  # a comment\n# d.png\n")
    left = leave_out(splits, tmp_path / "list.txt")
    stages = (*left.train, *left.val, *left.test)
    assert sorted(sample.image.name for sample in stages) == ["d.png", "e.png"]


def test_what_is_no_picture_is_left_alone_or_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    many(tmp_path, 3)
    for clutter in ("Thumbs.db", ".DS_Store", "._i00.png", ".hidden/i09.png", "desktop.ini"):
        draw(tmp_path / "images" / "x.png", [[0]]).rename(tmp_path / "images" / "x.tmp")
        (tmp_path / "images" / clutter).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / "x.tmp").rename(tmp_path / "images" / clutter)
    assert len(partners(folder(tmp_path))) == 3
    assert caplog.text == ""
    for name in ("notes.txt", "a.xml", "b.XML"):
        (tmp_path / "images" / name).touch()
    assert len(partners(folder(tmp_path))) == 3
    assert f"{tmp_path}/images: files of other kinds are left out: 2 .xml, 1 .txt" in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    many(tmp_path / "store", 3)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "sub").symlink_to(tmp_path / "store" / "images")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    (tmp_path / "store" / "images" / "up").symlink_to(tmp_path)
    (tmp_path / "masks").symlink_to(tmp_path / "store" / "masks")
    found = partners(folder(tmp_path))
    assert found == {f"sub/i{n:02}.png": f"i{n:02}.png" for n in range(3)}


def test_names_match_in_either_spelling_of_an_accent(tmp_path: Path) -> None:
    for stem in "äöü":
        composed, apart = (unicodedata.normalize(form, stem) for form in ("NFC", "NFD"))
        pair(tmp_path, f"{composed}.png")
        draw(tmp_path / "masks" / f"{apart}.png", [[0, 0, 1, 1]] * 2)
    assert len(partners(folder(tmp_path))) == 3


def test_where_no_name_fits_the_pattern_is_guessed(tmp_path: Path) -> None:
    for n in range(1, 13):
        pair(tmp_path, f"{n}.jpg", f"{n}_mask.png")
    told = refusal(folder(tmp_path))
    assert "12 images, such as 1.jpg" in told
    assert "data.mask_pattern='\"{stem}_mask\"'" in told
    shutil.rmtree(tmp_path / "masks")
    draw(tmp_path / "masks" / "other.png", [[0]])
    assert "data.mask_pattern, or data.pairs" in refusal(folder(tmp_path))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ([], "is not there, but must hold images/ and masks/"),
        (["Pictures/a.png", "labels/a.png"], "holds Pictures/, labels/, but must hold images/"),
        (["images/a.png"], r"data\.masks: .*masks is not a folder"),
        (["images/a.svg", "masks/a.png"], r"data\.images: .* holds no pictures but 1 \.svg"),
        (["images/a.png", "masks/a.dcm"], r"data\.masks: .* holds no pictures but 1 \.dcm"),
        (["images/a.png", "masks/a.png"], r"1 images with masks, but train, val and test need"),
    ],
)
def test_a_root_with_nothing_to_list(tmp_path: Path, there: list[str], words: str) -> None:
    for name in there:
        (tmp_path / "my" / name).parent.mkdir(parents=True)
        (tmp_path / "my" / name).touch()
    assert re.search(words, refusal(folder(tmp_path / "my")))


def test_no_image_takes_the_mask_of_another_film(tmp_path: Path) -> None:
    """Frame 3 of one lacks its mask, that of the other its image: both are problems."""
    for film in ("p1", "p2"):
        for frame in range(5):
            pair(tmp_path, f"{film}/{frame:03}.png", f"{film}/{frame:03}.png")
    (tmp_path / "masks/p1/003.png").unlink()
    (tmp_path / "images/p2/003.png").unlink()
    found = problems(folder(tmp_path))
    assert len(found) == 2, found
    assert sum("has no mask" in told for told in found.values()) == 1


def test_several_masks_lie_beside_their_image(tmp_path: Path) -> None:
    """Those with a number behind, too."""
    for n in range(40):
        for end in ("", "_mask", "_mask_1"):
            draw(tmp_path / f"i{n}{end}.png", [[0, 1]] if end else np.full((1, 2, 3), 9))
    source = folder(
        tmp_path,
        images=tmp_path,
        masks=tmp_path,
        mask_pattern="{stem}_mask",
        masks_per_image="union",
    )
    splits = source.splits()
    samples = [*splits.train, *splits.val, *splits.test]
    assert sorted(s.image.stem for s in samples) == sorted(f"i{n}" for n in range(40))
    assert all(s.mask.stem == f"{s.image.stem}_mask" and len(s.masks) == 1 for s in samples)
