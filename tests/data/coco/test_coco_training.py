"""COCO from the command to the metric."""

import json
from pathlib import Path

import pytest
from fixture_types import Command
from made_coco import draw, everything, instance, official, one_file, picture, refusal, save, source
from PIL import Image

from segpets.config import compose
from segpets.data import SegmentationDataModule
from segpets.data.pixels import Pixels
from segpets.data.reader import Reader
from segpets.train import train

TINY = (
    *("data.size=32", "data.batch_size=2", "model.widths=[4,8]", "trainer=cpu"),
    *("trainer.precision=32", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
)


def test_a_training_by_the_command_line(command: Command, tmp_path: Path) -> None:
    official(tmp_path / "my")
    chosen = command("data=coco", "data.root=my", "data.categories=[cat,hair drier]", *TINY)
    assert chosen.returncode == 0, chosen.stdout
    assert "9 train, 1 val, 10 test images" in chosen.stdout
    assert "hair drier" in chosen.stdout
    assert "dog" not in chosen.stdout


def test_all_categories_odd_names_among_them_reach_every_part_of_a_training(
    tmp_path: Path,
) -> None:
    odd = ["traffic light", "door/window", 'it\'s "x", [b] {ä} $a\\b$']
    found = [{"id": n, "name": name} for n, name in enumerate(odd)]
    file = one_file(tmp_path / "my", *(instance(n, n, n % 3) for n in range(1, 7)), count=6)
    save(file, json.loads(file.read_text()) | {"categories": found})
    words = ["data=coco", f"data.root={tmp_path}/my", f"hydra.run.dir={tmp_path}/run", *TINY]
    result = train(compose(words))
    text_ = (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(text_)["protocol"]["classes"] == [
        "background",
        *odd[:2],
        'it\'s "x", [b] {ä} a\\b',
    ]
    assert "test/pixel_accuracy" in result.metrics


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.root=no"], "error: data.root=no is not a folder: give data.root=FOLDER with"),
        (["data.root=my", "data.categories=[cta]"], "Did you mean cat?"),
        (["--cfg", "job", "--resolve"], "error: data=coco needs to know where the data lies: give"),
    ],
)
def test_the_command_line_says_in_words_what_is_wrong(
    command: Command, tmp_path: Path, words: list[str], told: str
) -> None:
    one_file(tmp_path / "my")
    done = command("data=coco", *TINY, *words)
    assert done.returncode == 1
    assert told in done.stdout
    assert "Traceback" not in done.stdout and "resolving" not in done.stdout


def test_the_cache_of_pixels_notices_a_corrected_annotation(tmp_path: Path) -> None:
    def pixels() -> Pixels:
        dataset = source(tmp_path)
        samples = everything(dataset.splits())
        ordered = [samples[name] for name in sorted(samples)]
        return Pixels(ordered, source=dataset, reader=Reader((32, 32)), cache="disk")

    file = one_file(tmp_path, instance(1, 1))
    before = pixels()
    assert before.of("000000000001")[1].sum() > 0
    assert pixels().fingerprint == before.fingerprint
    file.write_text(file.read_text().replace('"image_id": 1', '"image_id": 2'))
    after = pixels()
    assert after.of("000000000001")[1].sum() == 0 and after.of("000000000002")[1].sum() > 0
    assert after.fingerprint != before.fingerprint


def test_sizes_that_contradict_the_file_stop_a_training_with_both(tmp_path: Path) -> None:
    one_file(tmp_path / "my", instance(1, 1))
    Image.new("RGB", (9, 6)).save(tmp_path / "my" / "images" / "000000000001.jpg")
    cfg = compose(["data=coco", f"data.root={tmp_path}/my", "data.batch_size=1"])
    dataset = source(tmp_path / "my")
    module = SegmentationDataModule(
        source=dataset,
        augment=lambda image, mask, *, seed: (image, mask),
        **{key: cfg.data[key] for key in ("size", "batch_size", "num_workers")},
        run_seed=0,
    )
    told = refusal(module.setup)
    assert "000000000001.jpg has 9x6 pixels, but its mask" in told and "has 8x6" in told


def test_pictures_that_no_file_lists_are_unused(tmp_path: Path) -> None:
    one_file(tmp_path, instance(1, 1))
    draw(tmp_path / "images", [picture(77)])
    (tmp_path / "images" / "notes.txt").touch()
    options = {"annotations": tmp_path / "my.json", "images": tmp_path / "images"}
    assert source(**options).splits().unused == [tmp_path / "images" / "000000000077.jpg"]
