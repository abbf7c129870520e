"""The command browse, as one types it."""

import csv
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fixture_types import Command
from PIL import Image

from segpets.browse import browse
from segpets.config import compose


@pytest.fixture
def own_pets(tiny_pets: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pets that a test may damage."""
    root = tmp_path / "pets"
    (root / "annotations" / "trimaps").mkdir(parents=True)
    (root / "images").mkdir()
    for part in ("trainval", "test"):
        lines = (tiny_pets / "annotations" / f"{part}.txt").read_text()
        (root / "annotations" / f"{part}.txt").write_text(lines)
        for name in (line.split()[0] for line in lines.splitlines()):
            shutil.copy(tiny_pets / "images" / f"{name}.jpg", root / "images")
            trimap = tiny_pets / "annotations" / "trimaps" / f"{name}.png"
            shutil.copy(trimap, root / "annotations" / "trimaps")
    return root


class Addresses(HTMLParser):
    """All that a page would fetch, and all text that it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def words(root: Path, *more: str) -> list[str]:
    return ["data=oxford_pets", f"data.root={root}", "data.size=64", "images=5", *more]


def test_the_page_shows_everything_and_fetches_nothing(own_pets: Path, tmp_path: Path) -> None:
    overrides = [*words(own_pets, "doctor=true"), f"hydra.run.dir={tmp_path / 'out'}"]
    result = browse(compose(overrides, task="browse"))
    assert result.findings == []
    page = Addresses((result.path / "browse.html").read_text())
    assert all(address.startswith(("data:image/", "#")) for address in page.found)
    assert "script" not in page.tags
    assert sum(a.startswith("data:image/") for a in page.found) == 5 + 3 + 5 + 3 * 2 + 1
    for shown in ("Abyssinian", "beagle", "Bombay", "cat", "pet", "background", "border"):
        assert shown in page.text
    assert "augmented eight times" in page.text
    assert "images, shown at 64x64 as a training sees them." in page.text
    swatch = '<span class="swatch" style="background: {}"></span>{}'
    written = (result.path / "browse.html").read_text()
    for name, colour in (("pet", "#e69f00"), ("background", "#000000"), ("border", "#56b4e9")):
        assert swatch.format(colour, name) in written
    names = {file.name for file in result.path.iterdir()}
    sheets = {f"{part}.png" for part in ("train", "val", "test", "augmented")}
    lists = {"doctor.csv", "exclude.txt", "duplicates.csv", "duplicates.txt"}
    assert names == {"browse.html"} | lists | sheets
    with Image.open(result.path / "train.png") as sheet:  # 5 rows of image, mask, overlay
        assert sheet.size == (3 * (64 + 4), 2 * 16 + 5 * (64 + 16))
    with Image.open(result.path / "augmented.png") as sheet:  # 3 images by 2 backends
        assert sheet.size == (2 * 9 * (64 + 4), 2 * 16 + 3 * (64 + 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        ["data.fit=none"],
        pytest.param(
            ["data.fit=shorter", "augment=scale_crop", "data.crop=40"], marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_pictures_of_several_sizes_stand_side_by_side(
    command: Command, own_pets: Path, tmp_path: Path, kind: list[str]
) -> None:
    given = words(own_pets, "doctor=true", *kind, "hydra.run.dir=looked")
    done = command(*given, module="segpets.browse")
    assert done.returncode == 0, done.stdout
    there = {file.name for file in (tmp_path / "looked").iterdir()}
    assert {"browse.html", "doctor.csv", "exclude.txt", "augmented.png", "train.png"} <= there
    assert "images, shown as a training" in (tmp_path / "looked" / "browse.html").read_text()


def test_a_sound_set_gives_exit_code_0(command: Command, own_pets: Path, tmp_path: Path) -> None:
    done = command(*words(own_pets, "doctor=true"), module="segpets.browse")
    assert done.returncode == 0, done.stdout
    assert "nothing that a training would suffer from" in done.stdout
    assert (tmp_path / "logs" / "browse" / "latest" / "browse.html").is_file()


def test_the_background_is_black_where_it_is_the_first_class(
    command: Command, own_pets: Path, tmp_path: Path
) -> None:
    species = "data.labels=species"  # background, cat, dog
    done = command(*words(own_pets, species, "augmented=0"), module="segpets.browse")
    assert done.returncode == 0, done.stdout
    with Image.open(tmp_path / "logs" / "browse" / "latest" / "train.png") as sheet:
        masks = sheet.crop((68, 2 * 16, 68 + 64, sheet.height)).getcolors(100_000)
    assert masks is not None
    shares = {colour: count / 64**2 for count, colour in masks}
    # Of five images each class fills more than a fifth of one.
    assert min(shares[0, 0, 0], shares[230, 159, 0], shares[86, 180, 233]) > 0.2


def test_the_doctor_says_what_is_wrong_and_how_to_go_on(
    command: Command, own_pets: Path, tmp_path: Path
) -> None:
    images = sorted((own_pets / "images").iterdir())
    images[0].write_text("<script>alert(1)</script>")
    names = [file.stem for file in images]
    done = command(*words(own_pets, "doctor=true"), module="segpets.browse")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert "the doctor found 1 problem that a training would suffer from" in done.stdout
    assert f"images/{names[0]}.jpg" in re.sub(r"[\s│]+", "", done.stdout)
    out = tmp_path / "logs" / "browse" / "latest"
    with (out / "doctor.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert row["severity"] == "error"
    assert row["file"] == str(images[0])
    exclude = f"data.exclude={out / 'exclude.txt'}"
    again = command(*words(own_pets, "doctor=true", exclude), module="segpets.browse")
    assert again.returncode == 0, again.stdout
    assert names[0] in (out / "exclude.txt").read_text(), "the list goes on"
    refused = command(*words(own_pets)[:-1], "debug=smoke", "trainer=cpu")
    assert refused.returncode == 1
    assert "python -m segpets.browse doctor=true with the same data overrides" in refused.stdout
    trained = command(
        *words(own_pets, exclude)[:3], exclude, "debug=smoke", "trainer=cpu", "model.widths=[4,8]"
    )
    assert trained.returncode == 0, trained.stdout


def test_without_the_doctor_bad_files_are_counted_and_the_rest_is_shown(
    command: Command, own_pets: Path
) -> None:
    image = min((own_pets / "images").iterdir())
    image.write_bytes(b"")
    done = command(*words(own_pets), module="segpets.browse")
    assert done.returncode == 0, done.stdout
    assert "1 files can't be used: doctor=true says why" in done.stdout


def test_names_are_escaped(tmp_path: Path) -> None:
    root = tmp_path / "my <b>leaves</b>"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(4):
        Image.effect_noise((40, 40), 50 + index).convert("RGB").save(
            root / f"images/<i>{index}.png"
        )
        mask = Image.new("L", (40, 40), 0)
        mask.paste(1, (0, 0, 20, 20 + index))
        mask.save(root / f"masks/<i>{index}.png")
    overrides = ["data=folder", f"data.root='{root}'", "data.classes=['<u>soil',leaf]"]
    result = browse(
        compose([*overrides, "data.size=32", f"hydra.run.dir={tmp_path}/out"], task="browse")
    )
    page = Addresses((result.path / "browse.html").read_text())
    assert not page.tags & {"b", "i", "u"}
    assert "<u>soil" in page.text
    assert "my <b>leaves</b>" in page.text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("images=-1", "images=-1 must be a whole number of at least 0"),
        ("doctor=maybe", "doctor=maybe must be true or false"),
        ("data.root=nowhere", "data.root=nowhere is not a folder"),
        ("augment=torchvison", "Did you mean augment=torchvision?"),
        ("docter=true", "Did you mean doctor?"),
    ],
)
def test_wrong_values_are_answered(command: Command, override: str, message: str) -> None:
    done = command("data=oxford_pets", "data.root=x", override, module="segpets.browse")
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout
