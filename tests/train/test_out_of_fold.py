"""Predictions of folds, and the masks that they contradict."""

import csv
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fixture_types import Command, Tiny, Train
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

import segpets
from segpets.browse.label_issues import Issue, _mean
from segpets.labels import IGNORE_INDEX
from segpets.metric import confusion_matrices, scores
from segpets.train.out_of_fold import FoldPredictions, contradiction


def test_the_contradiction_by_hand() -> None:
    """Two pixels: sure of another class by 0.7 - 0.2, and of the true one; the third is ignored."""
    probs = torch.tensor([[0.7, 0.1, 0.9], [0.2, 0.8, 0.05], [0.1, 0.1, 0.05]])
    logits = probs.log().view(1, 3, 1, 3)
    assert contradiction(logits, torch.tensor([[[1, 1, 255]]])) == pytest.approx(0.25)
    assert contradiction(logits, torch.full((1, 1, 3), 255)) == 0


class Slow(Callback):
    """Takes longer than all that is before the training."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        time.sleep(4)


@pytest.mark.slow
def test_the_seconds_of_a_fold_count_once(train_tiny: Train) -> None:
    """Its predictions load a checkpoint, which knows the seconds until then."""
    begun = time.monotonic()
    words = ["data.folds=2", "data.fold=0", "logger=[]", "test=false"]
    result = train_tiny(*words, callbacks=[Slow()])
    passed = time.monotonic() - begun
    summary = json.loads((result.path / "summary.json").read_text())
    assert 0 < summary["seconds"] <= passed


def test_a_fold_predicts_what_it_validates_and_only_after_a_training(
    train_tiny: Train, tmp_path: Path
) -> None:
    words = ["data.folds=3", "data.fold=0", "test=false", "trainer.max_epochs=1"]
    limited = train_tiny(*words, "trainer.limit_val_batches=1", folder="limited")
    table = limited.path / "predictions" / "val" / "out_of_fold.csv"
    assert len(table.read_text().splitlines()) == 1 + 4, "a batch of 6 images"
    again = [*words[:2], "train=false", f"init_from={limited.path}"]
    tested = train_tiny(*again, folder="tested")
    assert not (tested.path / "predictions" / "val").exists(), "its fold may be of other weights"


@pytest.mark.slow
def test_two_processes_predict_each_image_of_a_fold_once(
    tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    words = tiny("trainer=ddp_sim", "data.batch_size=2", "data.folds=3", "data.fold=0")
    done = command(*words, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout
    with (tmp_path / "run" / "predictions" / "val" / "out_of_fold.csv").open() as file:
        names = [row["name"] for row in csv.DictReader(file)]
    assert len(names) == len(set(names)) == 6
    assert len([*(tmp_path / "run" / "predictions" / "val" / "masks").iterdir()]) == 6


def own_pets(tiny_pets: Path, root: Path) -> Path:
    """A copy of the tiny pets whose masks can be spoilt."""
    shutil.copytree(tiny_pets, root)
    return root


@pytest.mark.slow
def test_masks_are_ranked_by_what_other_folds_say(
    tiny: Tiny, tiny_pets: Path, tmp_path: Path, command: Command
) -> None:
    root = own_pets(tiny_pets, tmp_path / "pets")
    lines = (root / "annotations" / "trainval.txt").read_text().splitlines()
    names = [line.split()[0] for line in lines]
    spoilt = names[4]
    mask = root / "annotations" / "trimaps" / f"{spoilt}.png"
    with Image.open(mask) as before:
        size = before.size
    Image.new("L", size, 3).save(mask)  # border throughout

    words = tiny(f"data.root={root}", "data.folds=2", "trainer.max_epochs=4", "sweep=folds")
    done = command("-m", *words, "data.fold=0,1")
    assert done.returncode == 0, done.stdout
    sweep = tmp_path / "logs" / "train" / "multiruns" / "folds"
    tables = sorted(sweep.glob("*/predictions/val/out_of_fold.csv"))
    assert len(tables) == 2
    rows = {}
    for file in tables:
        with file.open() as table:
            read = {row["name"]: row for row in csv.DictReader(table)}
        assert not rows.keys() & read.keys()
        rows |= read
    assert rows.keys() == set(names), "each image of train and val, once"

    # A row says what the run's own weights predict of an image that they weren't trained on.
    run = tables[0].parents[2]
    with tables[0].open() as table:
        name = next(csv.DictReader(table))["name"]
    trained = segpets.load(run)
    picture = Image.open(root / "images" / f"{name}.jpg").convert("RGB")
    shown = trained.predict(picture)
    stored = np.asarray(Image.open(tables[0].parent / "masks" / f"{name}.png"))
    assert (shown[:: size[1] // 64, :: size[0] // 64] == stored).mean() > 0.97
    truth = Image.open(root / "annotations" / "trimaps" / f"{name}.png")
    small = np.array(truth.resize((64, 64), Image.Resampling.NEAREST)) - 1
    counts = confusion_matrices(torch.from_numpy(stored.copy())[None], torch.tensor(small)[None], 3)
    mean = float(scores(counts[0])["iou"].nanmean())
    assert float(rows[name]["mean_iou"]) == pytest.approx(mean, abs=1e-5)

    data = ["data=oxford_pets", f"data.root={root}", "data.size=64"]
    looked = command(*data, f"predictions={sweep}", "hydra.run.dir=out", module="segpets.browse")
    assert looked.returncode == 0, looked.stdout
    with (tmp_path / "out" / "label_issues.csv").open() as table:
        issues = list(csv.DictReader(table))
    assert spoilt in rows
    assert [i["name"] for i in issues] == sorted(
        rows, key=lambda name: -float(rows[name]["contradiction"])
    )
    assert f"# {spoilt}  # contradicted by" in (tmp_path / "out" / "label_issues.txt").read_text()
    assert (tmp_path / "out" / "label_issues.png").is_file()
    assert "have no prediction" not in looked.stdout
    # One fold of two, with pictures of all sizes; and with masks that mean something else.
    words = [*data, "data.fit=none", f"predictions={run}"]
    half = command(*words, "hydra.run.dir=half", module="segpets.browse")
    assert half.returncode == 0, half.stdout
    left = len(rows) - len(tables[0].read_text().splitlines()) + 1
    assert f"; {left} of train and val have no prediction" in " ".join(half.stdout.split())
    assert (tmp_path / "half" / "label_issues.png").is_file()
    other = command(
        *data, "data.labels=border_as_pet", f"predictions={run}", module="segpets.browse"
    )
    assert other.returncode == 1
    assert "(classes: pet, background, border; and not pet, background)" in (
        " ".join(other.stdout.split())
    )
    noted = json.loads((run / "summary.json").read_text())
    noted["protocol"]["data"] = "Folder"  # whose images have the same names
    (run / "summary.json").write_text(json.dumps(noted))
    other = command(*data, f"predictions={run}", module="segpets.browse")
    assert other.returncode == 1
    assert "(data: Folder; and not OxfordPets): give those" in " ".join(other.stdout.split())
    page = (tmp_path / "out" / "browse.html").read_text()
    assert "Masks that models of other folds contradict" in page and f"{spoilt}: contra" in page
    noted["protocol"]["data"] = "OxfordPets"
    (run / "summary.json").write_text(json.dumps(noted))
    # A mask that was mended is no more in question, and other data were never judged.
    shutil.copy(tiny_pets / "annotations" / "trimaps" / f"{spoilt}.png", mask)
    again = command(*data, f"predictions={sweep}", "hydra.run.dir=again", module="segpets.browse")
    assert again.returncode == 0, again.stdout
    said = " ".join(again.stdout.split())
    assert f"1 of the masks have changed since, such as that of {spoilt}: they are ranked" in said
    with (tmp_path / "again" / "label_issues.csv").open() as table:
        marked = [(i["name"], i["changed"]) for i in csv.DictReader(table)]
    kept = [i["name"] for i in issues if i["name"] != spoilt]
    assert marked == [*((name, "") for name in kept), (spoilt, "yes")]
    assert spoilt not in (tmp_path / "again" / "label_issues.txt").read_text()
    for file in (root / "annotations" / "trimaps").glob("*.png"):
        with Image.open(file) as before:
            turned = before.transpose(Image.Transpose.ROTATE_180)
        turned.save(file)
    strange = command(*data, f"predictions={sweep}", module="segpets.browse")
    assert strange.returncode == 1
    assert "masks aren't those that the runs of predictions= were judged by" in (
        " ".join(strange.stdout.split())
    )


def test_runs_without_folds_are_answered(tiny_pets: Path, command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text('{"status": "completed"}')
    data = ["data=oxford_pets", f"data.root={tiny_pets}", "data.size=64"]
    done = command(*data, f"predictions={run}", "hydra.run.dir=out", module="segpets.browse")
    assert done.returncode == 1
    assert "no run there holds predictions/val/out_of_fold.csv of these images" in done.stdout
    folder = run / "predictions" / "val"
    folder.mkdir(parents=True)
    for text in ("name,mean_iou,contradiction\n../../etc,0.5,7\n", "\0", "name\nx\n"):
        (folder / "out_of_fold.csv").write_text(text)
        done = command(*data, f"predictions={run}", "hydra.run.dir=out", module="segpets.browse")
        assert done.returncode == 1
        assert "Traceback" not in done.stdout
        assert "out_of_fold.csv" in "".join(done.stdout.split())
    assert not (tmp_path / "out" / "label_issues.csv").exists()


def test_a_mask_without_a_pixel_that_counts_has_no_iou(tmp_path: Path) -> None:
    writer = FoldPredictions(tmp_path / "out_of_fold.csv")
    (tmp_path / "masks").mkdir()
    mask = torch.stack([torch.full((4, 4), IGNORE_INDEX), torch.zeros(4, 4)]).to(torch.uint8)
    batch = {"mask": mask, "name": ["a", "b"]}
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 0] = 9
    writer.on_predict_batch_end(None, None, logits, batch, 0)  # type: ignore[arg-type]
    assert writer._rows == [["a", "", "", "0.000000"], ["b", "1.000000", "1.000000", "0.000000"]]


def test_several_runs_are_averaged(tmp_path: Path) -> None:
    told = [Issue(3, c, 0.5, tmp_path / str(c), tmp_path / str(c)) for c in (0.1, 0.3, 0.8)]
    mean = _mean(told)
    assert mean.contradiction == pytest.approx(0.4)
    assert mean.run.name == "0.3", "the nearest to it, and not the most outspoken"
