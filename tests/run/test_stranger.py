"""A run that a stranger made: nothing of it acts, and what it costs is bounded."""

import io
import os
import pickle
import shutil
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fixture_types import Command
from made_runs import edit

import segpets
from segpets.config import compose
from segpets.errors import UserError
from segpets.hardware import peak_memory_mb
from segpets.records.record import read_record
from segpets.run.checkpoint import _is_whole
from segpets.run.directory import thread_count
from segpets.run.failed_step import read_failed_step
from segpets.run.files import RunFiles
from segpets.run.stored import open_run
from segpets.run.trust import Trust
from segpets.train import Result, train

LOGGER = "lightning.pytorch.loggers.TensorBoardLogger"


@pytest.fixture
def run(finished: Result, tmp_path: Path) -> Path:
    """A run that a stranger may have changed."""
    copy = tmp_path / "run"
    shutil.copytree(finished.path, copy)
    return copy


def append(run: Path, text: str) -> None:
    with (run / "config.yaml").open("a") as file:
        file.write(text)


def resume(run: Path, *more: str) -> Result:
    return train(compose([f"resume={run}", "trainer.max_epochs=3", *more]))


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """How many functions are called within, which is the same on a fast and a slow machine."""
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, _arg: calls.update([event]))
    try:
        yield calls
    finally:
        sys.setprofile(None)


def refused(run: Path) -> str:
    """What every command that opens the run says, with little work and without much memory."""
    before = peak_memory_mb(torch.device("cpu"))
    with counted_calls() as calls, pytest.raises(UserError) as error:
        segpets.load(run)
    assert calls["call"] < 1_000_000
    assert peak_memory_mb(torch.device("cpu")) - before < 500
    text = str(error.value)
    assert str(run) in text
    assert "\x1b" not in text
    assert "weights_only" not in text, "PyTorch's advice is to load unsafely"
    return text


# What its config says.


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model", LOGGER),  # whose save_dir fsspec opens, through programs
        ("loss", LOGGER),
        ("data", "segpets.model.unet.UNet"),
        ("optimizer", "segpets.callback.MetricsCSV"),
        ("model", "segpets.loss.dice.DiceLoss"),
        ("elsewhere", "segpets.model.unet.UNet"),
    ],
)
def test_a_class_is_allowed_in_its_own_place_only(run: Path, key: str, target: str) -> None:
    edit(run, f"{key}._target_", target)
    assert f"{key} would call '{target}'" in refused(run)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("defaults: [/data@_global_: stored]\n", "a list of defaults"),
        ("x: 'reference::http://127.0.0.1/evil.json'\n", "an address"),
        ("x: ftp://127.0.0.1/\n", "an address"),
        ('x: "a\\nimport os"\n', "steer a terminal"),
        ('x: "\\e[2J"\n', "steer a terminal"),
        ('? "a\\nb"\n: 1\n', "steer a terminal"),
        (f"x: {'1:' * 300_000}1\n", "600,001 characters"),
        (f"x: [{'x, ' * 30_000}]\n", "20,000 values"),
        (f"x: {'[' * 5000}{']' * 5000}\n", "can't be read"),
        (f"x: {'y' * 1_000_001}\n", "1,000,000 bytes"),
    ],
)
def test_a_config_that_no_training_writes_is_refused(run: Path, text: str, reason: str) -> None:
    append(run, text)
    assert reason in refused(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.size", 1_000_000),
        ("data.size", -5),
        ("data.size", "64"),
        ("data.classes", ["a"] * 300),
        ("data.classes", "pet"),
        ("data.classes", None),
        ("data.mean", [0.0]),
        ("data.std", [0.0, 1.0, 1.0]),
        ("data.num_workers", 100_000),
        ("model.widths", [16_000, 140_000]),
        ("model.widths", [4] * 1000),
        ("model._target_", None),
        ("loss._target_", 3),
        ("model.depth", 1_000_000),
        ("seed", "x"),
        ("trainer", None),
    ],
)
def test_values_out_of_bounds_are_refused_by_their_key(run: Path, key: str, value: Any) -> None:
    edit(run, key, value)
    assert key.split(".")[0] in refused(run)


def test_a_net_that_no_machine_could_hold_is_never_made(run: Path) -> None:
    edit(run, "model.widths", [16_000, 14_000])  # 8 GB of weights
    assert "doesn't fit the model" in refused(run)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", ["config.yaml", "summary.json", "checkpoints/best.ckpt"])
def test_what_is_no_file_is_refused_at_once(run: Path, name: str, kind: str) -> None:
    (run / name).unlink()
    make: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": Path.mkdir,
    }
    make[kind](run / name)
    refused(run)


def test_a_lock_that_is_a_pipe_holds_nobody_up(run: Path) -> None:
    (run / ".lock").unlink(missing_ok=True)
    os.mkfifo(run / ".lock")
    summary = (run / "summary.json").read_text()
    (run / "summary.json").write_text(summary.replace('"completed"', '"running"', 1))
    assert segpets.load(run).summary["status"] == "interrupted"


def test_nothing_of_a_run_says_what_to_fetch_or_where_to_write(run: Path, tmp_path: Path) -> None:
    for key, value in {
        "download": True,
        "mirrors": ["http://127.0.0.1:9/"],
        "cache_dir": str(tmp_path / "planted"),
        "cache_gb": 0,
        "num_workers": 900,
    }.items():
        edit(run, f"data.{key}", value)
    data = open_run(run).data({})
    assert (data["download"], data["mirrors"]) == (False, [])
    assert str(tmp_path) not in str(data["cache_dir"])
    assert data["cache_gb"] == 50
    assert data["num_workers"] <= (os.cpu_count() or 1)


@pytest.mark.parametrize("count", [-1, 0, "x", 10**6, True, None, 1.5])
def test_a_summary_does_not_choose_any_number_of_threads(count: Any) -> None:
    assert thread_count({"threads": count}) is None
    assert thread_count({"threads": 1}) == 1


def test_a_summary_of_thousands_of_classes_makes_no_table_of_their_square(run: Path) -> None:
    summary = (run / "summary.json").read_text()
    names = ", ".join(f'"c{i}"' for i in range(6000))
    (run / "summary.json").write_text(summary.replace('"border"\n', f'"border", {names}\n', 1))
    assert read_record(run).protocol == {}


# What its checkpoints hold.


class _Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def archive(run: Path, saved: Any, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Writes a pickle into the archive of the best checkpoint."""
    file = run / "checkpoints" / "best.ckpt"
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as old:
        records = {r.filename: old.read(r) for r in old.infolist()}
    file.unlink()
    with zipfile.ZipFile(file, "w", compression) as new:
        for name, content in records.items():
            raw = saved if isinstance(saved, bytes) else pickle.dumps(saved, protocol=2)
            new.writestr(name, raw if name.endswith("data.pkl") else content)


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ({"state_dict": {}, "x": _Call(bytearray, 6_000_000_000)}, "bytearray"),
        ({"state_dict": _Call(os.system, "touch trap")}, "posix.system"),
        ({"state_dict": _Call(torch.zeros, 10**10)}, "getattr"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}.", "the operation"),
        (b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".", "more than 64"),
        (b"\x80\x02}", "can't be read"),
        ([1], "no checkpoint of a training"),
        ({"state_dict": {1: 2}}, "no checkpoint of a training"),
        ({"state_dict": {"net.x": 2}}, "no tensor of numbers"),
    ],
)
def test_a_checkpoint_names_tensors_and_plain_data_only(
    run: Path, saved: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archive(run, saved)
    assert reason in refused(run)
    assert not Path("trap").exists()


def test_a_checkpoint_that_unpacks_to_gigabytes_is_refused(run: Path) -> None:
    archive(run, b"\x80\x02" + b"N0" * 60_000_000 + b"N.", compression=zipfile.ZIP_DEFLATED)
    assert "compressed records" in refused(run)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(10**12),  # one number, said to be many
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
    ],
    ids=["expanded", "meta", "sparse"],
)
def test_odd_tensors_are_refused(run: Path, value: torch.Tensor) -> None:
    file = run / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    content["state_dict"]["net.head.bias"] = value
    file.unlink()
    torch.save(content, file)
    assert "best.ckpt" in refused(run)


# What it does when it goes on.


@pytest.mark.parametrize(
    "key",
    [
        "callback.best_and_last.folder",
        "callback.pictures.folder",
        "callback.test_predictions.folder",
        "logger.csv.path",
        "logger.tensorboard.save_dir",
        "trainer.default_root_dir",
    ],
)
@pytest.mark.parametrize("place", ["{home}/theirs", "relative", "~/x", "{run}/../up"])
def test_a_run_that_goes_on_writes_within_itself(
    run: Path, tmp_path: Path, key: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    edit(run, key, place.format(home=tmp_path, run=run))
    with pytest.raises(UserError, match=rf"{key}=.*, outside of the run"):
        resume(run)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("callback.best_and_last.folder", "."),
        ("callback.best_and_last.folder", ""),
        ("callback.test_predictions.folder", "."),
        ("logger.tensorboard.sub_dir", ".."),
        ("logger.tensorboard._args_", ["elsewhere"]),
        ("logger.csv.path", "."),
    ],
)
def test_the_current_folder_is_outside_of_the_run(run: Path, key: str, place: object) -> None:
    edit(run, key, place)
    with pytest.raises(UserError, match=r"outside of the run"):
        resume(run)


def test_the_users_own_words_may_hold_anything(run: Path) -> None:
    """An address, a long list, a tab: they are shown, and act on nothing."""
    words = ["data.mirrors=[https://x/a]", f"data.exclude={'a,' * 3000}", "tags=[a\tb]"]
    edit(run, "overrides", words)
    edit(run, "tags", ["https://issues/12", "a\tb"])
    assert segpets.load(run).classes


def test_a_logger_s_name_does_not_lead_out(run: Path) -> None:
    edit(run, "logger.tensorboard.name", "../../up")
    with pytest.raises(UserError, match=r"logger\.tensorboard\.name=.*outside of the run"):
        resume(run)


@pytest.mark.parametrize(
    "name", [".lock", "train.log", "model.txt", "checkpoints", "tensorboard", ".hydra", "new/x"]
)
def test_links_out_of_a_run_that_goes_on_are_refused(
    run: Path, tmp_path: Path, name: str, command: Command
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine").write_text("mine")
    link = run / name
    link.parent.mkdir(exist_ok=True)
    target = home if link.is_dir() else home / "mine"
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    done = command(f"resume={run}", "trainer.max_epochs=3")
    assert done.returncode == 1
    assert "is a link that leads out of the run" in done.stdout, done.stdout
    assert sorted(home.iterdir()) == [home / "mine"]
    assert (home / "mine").read_text() == "mine"


def test_a_place_that_the_user_says_again_is_the_users(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    edit(run, "logger.csv.path", str(mine))
    assert resume(run, f"logger.csv.path={mine}").metrics["val/mean_iou"] >= 0
    assert mine.is_file()


def test_of_many_foreign_classes_some_are_named_and_all_counted() -> None:
    config = {"callback": {f"c{index}": {"_target_": f"mine.C{index}"} for index in range(25)}}
    with pytest.raises(UserError) as error:
        Trust.of(()).check(config, where="it")
    text = str(error.value)
    assert "callback.c19 would call 'mine.C19' and 5 more, which" in text
    assert "c20" not in text


def test_a_run_without_a_failed_step_has_none_to_replay(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no step of it failed\. Say .* replay_step=NUMBER"):
        read_failed_step(RunFiles(tmp_path))


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (torch.ones(4, 4), True),
        (torch.ones(4, 4).t(), True),
        (torch.ones(8)[2:5], True),
        (torch.ones(1).expand(3), False),  # three values of one
        (torch.ones(3, dtype=torch.uint8).view(torch.uint8).expand(2, 3), False),
        (torch.ones(3).to_sparse(), False),
        ([1.0], False),
    ],
)
def test_a_tensor_of_a_checkpoint_has_an_element_of_the_file_for_each_value(
    value: object, whole: bool
) -> None:
    assert _is_whole(value) is whole
