"""Whole runs: what they leave, that every choice trains, and that the same seed is the same run."""

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from fixture_types import Command, Start, Tiny, Train
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from segpets.cli.command import groups
from segpets.config import compose, conf_dir
from segpets.errors import UserError
from segpets.metric import SegmentationMetrics, confusion_matrices, soft_iou
from segpets.train import Result, train

ROOT = Path(__file__).parents[2]
GROUPS = groups([conf_dir()])
CLASSES = ("pet", "background", "border")
BRIEF = (
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
)
QUICK = {
    *(
        "unet",
        "vit_tiny",
        "segnet_dsc",
        "combined",
        "focal",
        "torchvision",
        "albumentations_strong",
    ),
    *("muon", "adamw", "sgd", "onecycle", "plateau"),
}
"""Options that train in the fast suite; the others, which contract tests try, in the slow one."""


def options(group: str, *without: str) -> list[object]:
    return [
        option if option in QUICK else pytest.param(option, marks=pytest.mark.slow)
        for option in GROUPS[group]
        if option not in without
    ]


def summary_of(result: Result) -> dict[str, object]:
    summary: dict[str, object] = json.loads((result.path / "summary.json").read_text())
    return summary


def assert_sound(result: Result) -> None:
    """The run is complete and its numbers are numbers."""
    summary = summary_of(result)
    assert summary["status"] == "completed"
    assert summary["error"] is None
    parameters = sum(p.numel() for p in result.module.net.parameters())
    assert summary["params"] == parameters
    for stage in ("val", "test"):
        assert 0 <= result.metrics[f"{stage}/mean_iou"] <= result.metrics[f"{stage}/pixel_accuracy"]
        assert result.metrics[f"{stage}/pixel_accuracy"] <= 1
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert (result.path / "checkpoints" / "best.ckpt").is_file()


def weights(result: Result, name: str = "last") -> dict[str, torch.Tensor]:
    file = result.path / "checkpoints" / f"{name}.ckpt"
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


# What a run leaves.


def test_a_smoke_run_leaves_all_that_a_run_leaves(tmp_path: Path) -> None:
    overrides = ["debug=smoke", "model.widths=[4,8]", "tags=[one,two]"]
    result = train(compose([*overrides, f"hydra.run.dir={tmp_path}/run"]))
    assert_sound(result)
    summary = summary_of(result)
    assert summary["overrides"] == overrides
    assert summary["tags"] == ["one", "two"]
    assert summary["seed"] == 1
    assert summary["epochs"] == 1
    protocol = summary["protocol"]
    assert isinstance(protocol, dict)
    assert protocol["images"] == {"train": 666, "val": 74, "test": 296}
    assert protocol["limits"] == {"train": 2, "val": 2, "test": 2}
    assert protocol["resolution"] == [128, 128]
    assert protocol["classes"] == list(CLASSES)
    for key in ("params", "mult_adds", "seconds", "images_per_second", "peak_memory_mb"):
        value = summary[key]
        assert isinstance(value, int | float)
        assert value > 0, key
    versions = summary["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == torch.__version__.split("+")[0]
    found = {path.relative_to(result.path).as_posix() for path in result.path.rglob("*.*")}
    assert found >= {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "metrics.csv",
        "model.txt",
        "predictions/confusion_test.png",
        "predictions/confusion_val.png",
        "predictions/test.png",
        "predictions/test/counts.csv",
        "predictions/val_epoch_001.png",
        "summary.json",
    }
    assert len(list((result.path / "predictions" / "test" / "masks").iterdir())) == 8


def test_the_summary_holds_final_and_best_metrics(finished: Result) -> None:
    summary = summary_of(finished)
    assert_sound(finished)
    for stage in ("val", "best/val", "test"):
        named = [f"iou/{c}" for c in CLASSES] + [f"dice/{c}" for c in CLASSES]
        for name in ("loss", "pixel_accuracy", "mean_iou", "mean_dice", "soft_iou", *named):
            assert summary[f"{stage}/{name}"] == finished.metrics[f"{stage}/{name}"]
    assert summary["best/epoch"] in (1, 2)
    assert finished.metrics["best/val/mean_iou"] >= finished.metrics["val/mean_iou"]
    assert not [name for name in summary if name.startswith("lr-")], "no result"


def test_tensorboard_has_scalars_images_and_hparams(finished: Result) -> None:
    events = EventAccumulator(str(finished.path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "val/mean_iou", "test/mean_iou"} <= set(tags["scalars"])
    assert [s.step for s in events.Scalars("train/loss")] == list(range(6))
    rates = [tag for tag in tags["scalars"] if tag.startswith("lr")]
    assert len(rates) == 1
    learning_rates = [s.value for s in events.Scalars(rates[0])]
    peak = OmegaConf.load(finished.path / "config.yaml")["optimizer"]["lr"]
    assert max(learning_rates) == pytest.approx(peak, rel=0.1)  # one cycle: up, down to nothing
    assert learning_rates[-1] < 0.01 * peak
    assert len(events.Images("val/predictions")) == 2
    assert {"val/confusion", "test/confusion", "test/predictions"} <= set(tags["images"])

    content = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    chosen = start.session_start_info.hparams
    assert chosen["model"].string_value == "UNet"
    assert chosen["model.widths"].string_value == "[4,8]"  # an override, as it was typed
    assert chosen["seed"].number_value == 1
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    shown = {info.name.tag for info in experiment.metric_infos}
    assert shown >= {name for name in finished.metrics if not name.startswith("lr-")}
    assert shown >= {"params", "mult_adds", "seconds"}
    for tag in shown:  # the tab shows the last scalar of that tag
        last = events.Scalars(tag)[-1].value
        if tag in finished.metrics:
            assert last == pytest.approx(finished.metrics[tag], rel=1e-5), tag


# Every choice trains.


@pytest.mark.parametrize("model", options("model"))
def test_every_model_trains(train_tiny: Train, model: str) -> None:
    assert_sound(train_tiny(f"model={model}", "debug=smoke", "logger=[csv]"))


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_trains(train_tiny: Train, loss: str) -> None:
    assert_sound(train_tiny(f"loss={loss}", "debug=smoke", "logger=[csv]"))


@pytest.mark.parametrize("augment", options("augment"))
def test_every_augmentation_trains(train_tiny: Train, augment: str) -> None:
    assert_sound(train_tiny(f"augment={augment}", "debug=smoke", "logger=[csv]"))


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_trains(train_tiny: Train, optimizer: str) -> None:
    assert_sound(train_tiny(f"optimizer={optimizer}", *BRIEF, "logger=[csv]"))


@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_every_schedule_trains(train_tiny: Train, scheduler: str) -> None:
    assert_sound(train_tiny(f"scheduler={scheduler}", "logger=[csv]"))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["auto", "cpu"])
def test_the_trainers_of_every_machine_train(train_tiny: Train, trainer: str) -> None:
    precision = str(compose([f"trainer={trainer}", "hydra.run.dir=x"]).trainer.precision)
    result = train_tiny(f"trainer={trainer}", f"trainer.precision={precision}", *BRIEF)
    assert_sound(result)
    assert summary_of(result)["precision"] == precision


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["callback=ema"],
        ["callback=early_stopping"],
        ["callback=[early_stopping,ema]"],
        ["callback=early_stopping", "trainer.max_steps=4"],  # of 3 an epoch
        ["logger=[]"],
        ["logger=[csv]"],
        ["test=false"],
        ["trainer.max_steps=2"],
        ["trainer.check_val_every_n_epoch=2"],
        ["+trainer.accumulate_grad_batches=2"],
        ["trainer.gradient_clip_val=0.1"],
        ["+trainer.val_check_interval=1"],
        ["data.split=article"],
        ["data.size=45"],
    ],
    ids=" ".join,
)
def test_a_variant_trains(train_tiny: Train, words: list[str]) -> None:
    result = train_tiny(*words)
    assert summary_of(result)["status"] == "completed"
    assert ("test/mean_iou" in result.metrics) == ("test=false" not in words)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.precision=bf16-true", "has the weights in it, too, which is for TPUs"),
        ("trainer.precision=64-true", "choose bf16-mixed, 16-mixed or 32-true"),
        ("trainer.precision=16-mixed", "is for GPUs, and on a CPU Lightning would take bf16"),
        ("+trainer.overfit_batches=2", "give data.overfit=N, the number of images"),
        ("+trainer.fast_dev_run=true", "debug=smoke tries a command in seconds"),
        ("+trainer.val_check_interval=2", "an epoch of 3 batches would not end with a validation"),
        ("callback.pictures.every_n_epochs=0", "callback.pictures: every_n_epochs is 0: give 1"),
        ("optimized_metric=train/mean_iou", "train/mean_iou, which isn't measured on val images"),
    ],
)
def test_values_that_cannot_be_are_refused(train_tiny: Train, word: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        train_tiny(word)


def test_an_epoch_that_is_cut_off_is_said(
    train_tiny: Train, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="segpets")
    train_tiny("trainer.max_steps=4", "test=false")  # of 3 an epoch
    (told,) = [message for message in caplog.messages if "cut off" in message]
    assert told.startswith("Epoch 2 was cut off after 1 of 3 batches; resume=RUN would begin")


def test_cudnn_tries_its_algorithms_only_where_it_is_told_to(train_tiny: Train) -> None:
    before = torch.backends.cudnn.benchmark
    try:
        train_tiny("trainer.benchmark=true", "test=false", folder="one")
        assert torch.backends.cudnn.benchmark
        train_tiny("test=false", folder="other")
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before


def test_the_end_lists_what_is_there(train_tiny: Train, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="segpets")
    for loggers, there in (("[]", False), ("[csv,tensorboard]", True)):
        caplog.clear()
        run = train_tiny(f"logger={loggers}", folder=f"there_{there}")
        (line,) = [message for message in caplog.messages if message.startswith("  summary.json")]
        assert all((run.path / name).exists() for name in line.split())
        assert ("tensorboard/" in line) == ("metrics.csv" in line) == there
        assert any("tensorboard --logdir" in message for message in caplog.messages) == there


def test_early_stopping_stops(train_tiny: Train) -> None:
    words = ["callback=early_stopping", "callback.early_stopping.patience=1", "optimizer.lr=0"]
    result = train_tiny(*words, "trainer.max_epochs=9", "logger=[]", "test=false")
    assert 1 < int(str(summary_of(result)["epochs"])) < 9


def test_the_article_split_reports_the_last_epoch(train_tiny: Train) -> None:
    result = train_tiny("data.split=article", "trainer.max_epochs=3", "logger=[]")
    protocol = summary_of(result)["protocol"]
    assert isinstance(protocol, dict)
    assert protocol["tested_weights"] == {"checkpoint": "last"}
    assert protocol["selected_on_test"] is False
    assert same(dict(result.module.state_dict()), weights(result, "last"))
    assert not same(weights(result, "best"), weights(result, "last")), "another seed would do"
    words = ["data.split=article", f"init_from={result.path}", "train=false", "logger=[]"]
    again = train_tiny(*words, folder="again")
    assert again.metrics["test/mean_iou"] == result.metrics["test/mean_iou"]


@pytest.mark.slow
@pytest.mark.parametrize("debug", options("debug", "overfit", "replay", "smoke"))
def test_debug_configs_run(debug: str, tmp_path: Path) -> None:
    small = ["data.size=32", "model.widths=[4,8]", "trainer=cpu", "logger=[csv]"]
    result = train(compose([f"debug={debug}", *small, f"hydra.run.dir={tmp_path}/run"]))
    assert_sound(result)
    if debug == "profiler":
        assert "run_training_batch" in (tmp_path / "run" / "fit-profile.txt").read_text()


@pytest.mark.slow
def test_eight_images_are_learnt_by_heart(tmp_path: Path) -> None:
    result = train(compose(["debug=overfit", f"hydra.run.dir={tmp_path}/run"]))
    assert result.metrics["val/mean_iou"] > 0.9


# The same seed is the same run.


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ["model=unet", "model.widths=[4,8]"],
        pytest.param(  # it has dropout
            ["model=vit", "model.width=16", "model.depth=2", "model.heads=2"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["unet", "vit"],
)
def test_the_seed_decides_and_the_workers_do_not(train_tiny: Train, model: list[str]) -> None:
    words = [*model, "augment=torchvision_strong", "logger=[]", "test=false"]

    def run(folder: str, *more: str) -> dict[str, torch.Tensor]:
        return weights(train_tiny(*words, *more, folder=folder))

    first = run("first")
    torch.rand(7)  # what happened before in the process doesn't matter
    assert same(first, run("again"))
    for workers in (1, 2):
        assert same(first, run(f"workers_{workers}", f"data.num_workers={workers}"))
    assert not same(first, run("another", "seed=2"))


def test_what_looks_on_does_not_change_the_weights(train_tiny: Train, finished: Result) -> None:
    without = [f"~callback.{name}" for name in ("pictures", "throughput", "confusion_matrix")]
    plain = train_tiny("logger=[]", "test=false", *without)
    assert same(weights(plain), weights(finished))


# Weights of other runs.


def test_weights_of_another_run_are_tested(train_tiny: Train, finished: Result) -> None:
    result = train_tiny("train=false", f"init_from={finished.path}", "logger=[]")
    tested = {name: value for name, value in finished.metrics.items() if name.startswith("test/")}
    assert result.metrics == tested


def test_what_fits_is_taken_over_and_the_rest_is_said(
    train_tiny: Train, finished: Result, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["model.widths=[4,16]", f"init_from={finished.path}", "optimizer.lr=0", "test=false"]
    with caplog.at_level(logging.INFO, logger="segpets"):
        result = train_tiny(*words, *BRIEF, "logger=[]")
    before, after = weights(finished, "best"), weights(result)
    parameters = dict(result.module.named_parameters())
    fitting = {k for k in parameters if before[k].shape == after[k].shape}
    assert 0 < len(fitting) < len(parameters)
    assert all(torch.equal(before[name], after[name]) for name in fitting)
    said = next(record.message for record in caplog.records if "not taken over" in record.message)
    assert all(name in said for name in parameters.keys() - fitting)
    assert not any(name in said.split(": ")[1].split(", ") for name in fitting)


def test_weights_of_which_none_fits_are_refused(train_tiny: Train, finished: Result) -> None:
    words = ["model=vit", "model.width=16", "model.depth=1", "model.heads=1"]
    with pytest.raises(UserError, match="not one of its weights fits"):
        train_tiny(*words, f"init_from={finished.path}", "logger=[]")


# Two processes.


@pytest.mark.slow
def test_two_processes_measure_what_one_does(
    command: Command, tiny: Tiny, finished: Result, tmp_path: Path
) -> None:
    words = tiny("trainer=ddp_sim", "train=false", f"init_from={finished.path}")
    done = command(*words, "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    # The loss is a mean over batches, which other batches make differ.
    for name, value in finished.metrics.items():
        if name.startswith("test/") and name != "test/loss":
            assert summary[name] == value, name
    one, two = (
        (path / "predictions" / "test" / "counts.csv").read_text()
        for path in (finished.path, tmp_path / "run")
    )
    assert one == two


@pytest.mark.slow
def test_two_processes_validate_the_weights_that_they_save(
    command: Command, tiny: Tiny, finished: Result, tmp_path: Path
) -> None:
    done = command(*tiny("trainer=ddp_sim"), "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout
    for file in ("config.yaml", "metrics.csv", "predictions/test.png", "checkpoints/best.ckpt"):
        assert (tmp_path / "run" / file).is_file(), file
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    module = finished.module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    metrics = SegmentationMetrics(classes=CLASSES)
    try:
        module.load_state_dict(last["state_dict"])
        module.eval()
        with torch.no_grad():
            for batch in finished.datamodule.val_dataloader():
                logits = module(batch["image"])
                confusion = confusion_matrices(logits.argmax(1), batch["mask"], 3)
                metrics.update(confusion, soft_iou(logits, batch["mask"]))
    finally:
        module.load_state_dict(before)
    expected = metrics.compute()
    for name in ("pixel_accuracy", "mean_iou", "soft_iou"):
        assert last["metrics"][f"val/{name}"] == pytest.approx(expected[name], rel=1e-6), name


# Installed elsewhere.


@pytest.mark.slow
def test_an_installed_wheel_trains(tmp_path: Path) -> None:
    def run(*words: str, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    isolated = ["--no-build-isolation"] if find_spec("hatchling") else []
    run("pip", "wheel", "--no-deps", "--wheel-dir", "dist", *isolated, str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("segpets-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"segpets/{file.relative_to(ROOT)}" for file in conf_dir().rglob("*.yaml")}
    assert configs - {n for n in configs if "/local/" in n} <= names
    pets = ROOT / "segpets" / "data" / "pets_mini"
    images = {file.relative_to(ROOT).as_posix() for file in pets.rglob("*.*")}
    assert len(images) > 2 * 1036
    assert images <= names
    assert not [name for name in names if name.startswith(("tests/", "conf/", "logs/"))]

    run("pip", "install", "--no-deps", "--target", "site", str(wheel))
    site = str(tmp_path / "site")
    where = run("segpets.train", "paths.log_dir=here", "--help", PYTHONPATH=site)
    assert "Groups and their options" in where
    run("segpets", "train", "debug=smoke", "data.size=32", "hydra.run.dir=run", PYTHONPATH=site)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["versions"]["git"] is None
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert site in config
    assert str(ROOT) not in config


@pytest.mark.slow
def test_latest_is_the_last_run_that_trained(command: Command, tiny: Tiny, tmp_path: Path) -> None:
    latest = tmp_path / "logs" / "train" / "latest"
    words = tiny("trainer.max_epochs=1", "test=false", "logger=[]")
    assert command(*words).returncode == 0
    first = latest.resolve()
    for broken in (["data.exclude=nowhere.txt"], ["init_from=nowhere"]):
        assert command(*words, *broken).returncode == 1
        assert latest.resolve() == first
    done = command(*words, "init_from=latest")
    assert done.returncode == 0, done.stdout
    assert f"Weights from {first}/checkpoints/best.ckpt" in done.stdout
    assert latest.resolve() != first


def test_an_interrupted_run_says_how_it_goes_on(start: Start, tiny: Tiny, tmp_path: Path) -> None:
    process = start(*tiny("trainer.max_epochs=500", "logger=[]", "hydra.run.dir=run"))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    until = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    process.kill(signal.SIGTERM)
    done = process.wait(timeout=60)
    assert done.returncode == 130, done.stdout
    assert "What is done so far lies in run; resume=run goes on from there" in done.stdout
