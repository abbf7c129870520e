from pathlib import Path

import pytest
import torch
from pet_folder import PetFolder

from segpets.data import OxfordPets, SegmentationDataModule
from segpets.data.pixels import Pixels
from segpets.data.reader import Reader
from segpets.data.source import merged
from segpets.errors import UserError

SIZE = 32


def pixels(pets: PetFolder, *, size: int = SIZE, cache: str = "none", **more: object) -> Pixels:
    source = OxfordPets(root=pets.root)
    splits = source.splits()
    samples, _ = merged(splits)
    return Pixels(samples, source=source, reader=Reader((size, size)), cache=cache, **more)  # type: ignore[arg-type]


def names(pets: PetFolder) -> list[str]:
    return [*pets.names("trainval"), *pets.names("test")]


def test_cached_or_decoded_at_each_access_the_pixels_are_the_same(pets: PetFolder) -> None:
    decoded, built = pixels(pets), pixels(pets, cache="disk")
    opened = pixels(pets, cache="disk")
    assert decoded.cache is None
    assert built.cache is not None and opened.cache is not None
    assert decoded.fingerprint == built.fingerprint == opened.fingerprint
    for name in names(pets):
        for one, two, three in zip(decoded.of(name), built.of(name), opened.of(name), strict=True):
            assert torch.equal(one, two)
            assert torch.equal(one, three)
            assert one.dtype == two.dtype == torch.uint8
            assert one.is_contiguous() and two.is_contiguous()


def test_what_is_given_belongs_to_the_caller(pets: PetFolder) -> None:
    kept = pixels(pets, cache="disk")
    before = [pixel.clone() for pixel in kept.of("beagle_1")]
    for pixel in kept.of("beagle_1"):
        pixel.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, kept.of("beagle_1"), strict=True))


def test_the_fingerprint_names_the_bytes_of_all_files(pets: PetFolder) -> None:
    before = pixels(pets).fingerprint
    assert pixels(pets, size=SIZE + 1).fingerprint == before
    with pets.image("beagle_1").open("ab") as file:
        file.write(b"\0")  # behind the end: no pixel changes
    assert pixels(pets).fingerprint != before


def test_an_unknown_name(pets: PetFolder) -> None:
    with pytest.raises(KeyError):
        pixels(pets).of("beagle")


def test_of_several_bad_files_the_first_is_named_and_the_rest_are_counted(pets: PetFolder) -> None:
    for name in ("beagle_3", "Maine_Coon_2", "Abyssinian_201"):
        pets.image(name).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        pixels(pets)
    told = str(caught.value)
    assert "Abyssinian_201.jpg" in told
    assert told.endswith(
        " 2 more can't be used either. python -m segpets.browse doctor=true with the same data "
        "overrides lists them all and writes a list for data.exclude"
    )


def test_a_single_bad_file_leads_to_the_doctor_too(pets: PetFolder) -> None:
    pets.image("beagle_3").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        pixels(pets)
    assert str(caught.value).endswith(
        ". python -m segpets.browse doctor=true with the same data overrides writes a list for "
        "data.exclude"
    )
    assert "either" not in str(caught.value)


# leaving images out


def datamodule(pets: PetFolder, exclude: Path | None) -> SegmentationDataModule:
    made = SegmentationDataModule(
        source=OxfordPets(root=pets.root),
        augment=lambda image, mask, seed: (image, mask),  # type: ignore[arg-type]
        size=SIZE,
        batch_size=2,
        num_workers=0,
        run_seed=1,
        exclude=exclude,
    )
    made.setup()
    return made


def test_excluded_images_are_in_no_stage_and_their_problems_are_mended(pets: PetFolder) -> None:
    pets.image("beagle_3").write_bytes(b"GIF89a")  # can't be decoded
    pets.trimap("beagle_4").unlink()
    with pytest.raises(UserError, match="beagle_4"):
        datamodule(pets, None)
    exclude = pets.root / "exclude.txt"
    exclude.write_text("# by the doctor\nbeagle_3  # broken\nbeagle_4\nMaine_Coon_201.jpg\n\n")
    splits = datamodule(pets, exclude).splits
    found = {sample.name for sample in [*splits.train, *splits.val, *splits.test]}
    assert found == set(names(pets)) - {"beagle_3", "beagle_4", "Maine_Coon_201"}


def test_a_name_to_exclude_that_the_data_has_not_is_said(
    pets: PetFolder, caplog: pytest.LogCaptureFixture
) -> None:
    exclude = pets.root / "exclude.txt"
    exclude.write_text("beagel_3\n")
    datamodule(pets, exclude)
    assert "names 1 images that the data set hasn't, for example beagel_3" in caplog.text


def test_a_list_to_exclude_that_cannot_be_read(pets: PetFolder) -> None:
    with pytest.raises(UserError, match=r"data\.exclude=.*nowhere\.txt can't be read"):
        datamodule(pets, pets.root / "nowhere.txt")
