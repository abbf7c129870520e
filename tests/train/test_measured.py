"""A metric that an epoch didn't measure chooses nothing, and is shown as nobody's."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixture_types import Command, Tiny, Train
from lightning.pytorch import Callback

import segpets
from segpets.config import compose
from segpets.errors import UserError
from segpets.train import Result, train


def checkpoint(path: Path, name: str = "last") -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(path / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return saved


def test_without_validation_the_last_weights_are_tested_and_it_is_said(
    train_tiny: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="segpets"):
        result = train_tiny("trainer.limit_val_batches=0", "trainer.max_epochs=3", "logger=[]")
    assert not (result.path / "checkpoints" / "best.ckpt").exists()
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["protocol"]["tested_weights"] == {"checkpoint": "last"}
    assert not [key for key in summary if key.startswith(("best/", "val/"))]
    assert "Tested are the last weights" in caplog.text
    assert segpets.load(result.path).epoch == 3
    last = checkpoint(result.path)["state_dict"]
    assert all(torch.equal(v, last[k]) for k, v in result.module.state_dict().items() if k in last)


def test_only_epochs_with_a_validation_show_and_log_one(
    train_tiny: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="segpets"):
        result = train_tiny(
            *("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5", "logger=[csv]"),
            *("scheduler=plateau", "scheduler.patience=0"),
        )
    lines = [line for line in caplog.messages if line.startswith("epoch ")]
    assert ["val mean IoU" in line for line in lines] == [False, True, False, True, False]
    with (result.path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/mean_iou")]
    assert [row["epoch"] for row in rows] == ["1", "3"]
    saved = checkpoint(result.path)
    assert saved["lr_schedulers"][0]["last_epoch"] == 2, "the schedule counts validations"
    assert "val/mean_iou" not in saved["metrics"], "the fifth epoch measured none"
    summary = json.loads((result.path / "summary.json").read_text())
    assert summary["best/epoch"] in (2, 4)
    assert checkpoint(result.path, "best")["epoch"] == summary["best/epoch"] - 1


def test_stopping_early_by_what_is_never_measured_is_an_error_in_words(train_tiny: Train) -> None:
    with pytest.raises(UserError, match=r"early_stopping\.monitor: no epoch measures val"):
        train_tiny("callback=early_stopping", "trainer.limit_val_batches=0", "logger=[]")


def resume(result: Result, *more: str) -> Result:
    return train(compose([f"resume={result.path}", *more]))


class _Numpy(Callback):
    """A callback of the user's own, with a number that weights_only won't read back."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(0.5)}


def test_a_state_that_can_not_be_read_back_is_said_at_the_first_save(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = compose(tiny("logger=[]", "test=false", f"hydra.run.dir={tmp_path / 'run'}"))
    result = train(cfg, callbacks=[_Numpy()])
    said = [m for m in caplog.messages if "can't be resumed later" in m]
    assert len(said) == 1
    assert "numpy" in said[0]
    before = {f: f.read_bytes() for f in (result.path / "checkpoints").iterdir()}
    with pytest.raises(UserError, match="there is no sound checkpoint beside it"):
        resume(result, "trainer.max_epochs=4")
    assert {f: f.read_bytes() for f in (result.path / "checkpoints").iterdir()} == before


def test_lost_best_weights_stop_a_resume_and_nothing_is_replaced(train_tiny: Train) -> None:
    result = train_tiny("trainer.max_epochs=3", "logger=[]", "test=false")
    folder = result.path / "checkpoints"
    best = folder / "best.ckpt"
    content = bytearray(best.read_bytes())
    best.unlink()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(archive.infolist(), key=lambda r: "/data/" in r.filename and r.file_size)
    content[largest.header_offset + largest.file_size // 2 + 200] ^= 1  # of a number of a tensor
    best.write_bytes(content)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError, match=r"best\.ckpt is damaged: its checksum is another.*move it"):
        resume(result, "trainer.max_epochs=4")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    best.rename(folder / "aside")
    again = resume(result, "trainer.max_epochs=4")
    assert again.metrics["best/epoch"] == 4, "the best of the epochs to come"
    assert checkpoint(result.path, "best")["epoch"] == 3


def test_a_damaged_last_checkpoint_is_kept_aside(train_tiny: Train) -> None:
    whole = train_tiny("trainer.max_epochs=3", "test=false", folder="whole")
    result = train_tiny("trainer.max_epochs=3", "test=false")
    last = result.path / "checkpoints" / "last.ckpt"
    damaged = last.read_bytes()[:-100]
    last.unlink()
    last.write_bytes(damaged)
    resume(result)
    assert last.with_name("last.ckpt.damaged-1").read_bytes() == damaged
    for name, value in checkpoint(whole.path)["state_dict"].items():
        assert torch.equal(value, checkpoint(result.path)["state_dict"][name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "word",
    [
        "data.classes=[background,pet,border]",
        "data.mean=[0.5,0.5,0.5]",
        "data.std=[0.5,0.5,0.5]",
    ],
)
def test_weights_are_not_tested_under_another_meaning(
    train_tiny: Train, finished: Result, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = word.partition("=")[0]
    with pytest.raises(UserError, match=rf"were trained with {key}=\[.*say the same here"):
        train_tiny(word, f"init_from={finished.path}", "train=false", "logger=[]")
    train_tiny(word, f"init_from={finished.path}", "trainer.max_epochs=1", folder="other")
    assert f"was trained with {key}=[" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "module://matplotlib_inline.not_there"},
        {
            **{"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4"},
            **{"SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0"},
            **{"SLURM_NNODES": "1", "SLURM_NODELIST": "localhost"},
        },
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"},
        {"HOME": "FOLDER/not/there", "XDG_CACHE_HOME": ""},
    ],
    ids=["a notebook", "slurm", "torchrun", "no home"],
)
def test_what_surrounds_a_training_does_not_change_it(
    command: Command, tmp_path: Path, variables: dict[str, str]
) -> None:
    words = ["debug=smoke", "model.widths=[4,8]", "hydra.run.dir=run", "trainer=cpu"]
    here = {k: v.replace("FOLDER", str(tmp_path)) for k, v in variables.items()}
    done = command(*words, **here)
    assert done.returncode == 0, done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "run" / "predictions" / "test.png").is_file()
