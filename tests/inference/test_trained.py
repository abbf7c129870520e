"""A run describes its model by itself, and nothing that it holds is executed."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fixture_types import Command
from made_runs import edit
from omegaconf import OmegaConf

import segpets
from segpets.errors import UserError
from segpets.run.stored import open_run
from segpets.train import Result


@pytest.fixture
def copied(finished: Result, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    return copy


def test_the_loaded_model_is_the_one_that_was_tested(finished: Result) -> None:
    trained = segpets.load(finished.path)
    batch = next(iter(finished.datamodule.test_dataloader()))
    with torch.no_grad():
        expected = finished.module.eval()(batch["image"])
    torch.testing.assert_close(trained.logits(batch["image"]), expected, rtol=0, atol=0)
    assert trained.classes == ("pet", "background", "border")
    assert (trained.size, trained.stride, trained.precision) == ((64, 64), 2, "32-true")
    assert not trained.segmenter.training


def test_best_and_last_are_chosen_by_name(finished: Result) -> None:
    epochs = {name: segpets.load(finished.path, checkpoint=name).epoch for name in ("best", "last")}
    assert epochs["last"] == 2
    assert epochs["best"] == finished.metrics["best/epoch"]
    with pytest.raises(UserError, match=r"checkpoint=worst is unknown: choose best or last"):
        segpets.load(finished.path, checkpoint="worst")


def test_loading_leaves_the_random_state_alone(finished: Result) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    segpets.load(finished.path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("model", "os.system"),
        ("data.module.source", "subprocess.run"),
        ("data.module.source.hidden", "builtins.eval"),
        ("callback.progress", "torch.utils.collect_env.run"),
        ("loss", ["os", "system"]),
    ],
)
def test_a_config_that_calls_anything_else_is_refused(
    copied: Path, key: str, target: Any, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    edit(copied, key, {"_target_": target, "_args_": [f"touch {trap}"]})
    with pytest.raises(UserError, match=r"would call .* which is none of the classes"):
        segpets.load(copied)
    assert not trap.exists()


def test_a_resume_refuses_a_hostile_config_too(copied: Path, command: Command) -> None:
    edit(copied, "callback.progress", {"_target_": "os.system", "command": "touch trap"})
    done = command(f"resume={copied}", "trainer.max_epochs=3")
    assert done.returncode == 1
    assert "would call 'os.system'" in done.stdout
    assert "Traceback" not in done.stdout
    assert not (copied.parent / "trap").exists()


def test_a_class_of_the_users_own_is_used_when_allowed(copied: Path, tmp_path: Path) -> None:
    edit(copied, "model._target_", "segpets.model.unet.DoubleConv")
    with pytest.raises(UserError, match=r"segpets\.model\.unet\.DoubleConv.*allow="):
        segpets.load(copied)
    config = "_target_: segpets.model.unet.DoubleConv\n"
    for group in ("loss", "model"):  # what may be a loss may not be a model for that
        (tmp_path / group / group).mkdir(parents=True)
        (tmp_path / group / group / "double.yaml").write_text(config)
    with pytest.raises(UserError, match=r"segpets\.model\.unet\.DoubleConv.*allow="):
        segpets.load(copied, folders=[str(tmp_path / "loss")])
    with pytest.raises(UserError, match="model: "):
        segpets.load(copied, folders=[str(tmp_path / "model")])
    with pytest.raises(UserError, match="nowhere is no folder with configs"):
        segpets.load(copied, folders=["nowhere"])
    with pytest.raises(UserError, match="model: "):  # it is called, with what it doesn't take
        segpets.load(copied, allow=["segpets.model.unet.DoubleConv"])


def test_all_classes_of_ones_own_are_named_with_both_remedies(
    copied: Path, command: Command
) -> None:
    edit(copied, "model._target_", "my_nets.EncDec")
    edit(copied, "loss", {"_target_": "my_losses.FocalDice"})
    done = command(f"run={copied}", module="segpets.evaluate")
    assert done.returncode == 1
    assert "model would call 'my_nets.EncDec', loss would call 'my_losses.FocalDice'" in done.stdout
    assert "add --config-dir FOLDER" in done.stdout
    assert "or allow=[my_nets.EncDec,my_losses.FocalDice]" in done.stdout
    assert "my_nets.py, my_losses.py must be on PYTHONPATH" in done.stdout
    both = "allow=[my_nets.EncDec,my_losses.FocalDice]"
    assert "would call" not in command(f"run={copied}", both, module="segpets.evaluate").stdout
    edit(copied, "loss", {"_target_": "segpets.loss.dice.DiceLoss", "num_classes": 3})
    one = command(f"run={copied}", "allow=my_nets.EncDec", module="segpets.evaluate")
    assert "would call" not in one.stdout
    assert "my_nets" in one.stdout


def test_what_is_no_class_of_ones_own_is_not_offered_to_be_allowed(copied: Path) -> None:
    edit(copied, "model._target_", "os.system")
    edit(copied, "loss._target_", "mine.Loss],model=[x")
    with pytest.raises(UserError, match="don't use this run") as refused:
        segpets.load(copied)
    assert "allow=" not in str(refused.value)
    edit(copied, "model._target_", "__main__.Net")
    edit(copied, "many", {f"a{i}": {"_target_": f"os.{'x' * 999}"} for i in range(99)})
    with pytest.raises(UserError, match=r"allow=\[__main__\.Net\]") as refused:
        segpets.load(copied)
    assert len(str(refused.value)) < 4000


def test_a_checkpoint_that_holds_code_is_refused_and_not_executed(
    copied: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {trap}",)

    for save in (torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))):
        (copied / "checkpoints" / "best.ckpt").unlink()
        save({"state_dict": Trap()}, copied / "checkpoints" / "best.ckpt")
        with pytest.raises(UserError, match=r"best.ckpt (holds more than weights|can.t be read)"):
            segpets.load(copied)
        assert not trap.exists()


def test_a_half_written_checkpoint_is_refused(copied: Path) -> None:
    file = copied / "checkpoints" / "best.ckpt"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"best.ckpt can't be read .* checkpoint=last"):
        segpets.load(copied)
    assert segpets.load(copied, checkpoint="last").epoch == 2


def test_weights_of_another_architecture_are_refused(copied: Path) -> None:
    edit(copied, "model.widths", [4, 8, 16])
    with pytest.raises(UserError, match="weights differ, for example"):
        segpets.load(copied)


def saved(run: Path, **changes: Any) -> None:
    file = run / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    file.unlink()
    torch.save(content | changes, file)


def test_untrained_and_diverged_weights_are_refused(copied: Path) -> None:
    saved(copied, global_step=0)
    with pytest.raises(UserError, match="untrained weights"):
        segpets.load(copied)
    state = torch.load(copied / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    key = next(k for k in state if k.endswith("weight"))
    saved(copied, global_step=8, state_dict=state | {key: state[key] * float("nan")})
    with pytest.raises(UserError, match=f"NaN or infinite, for example {key[4:]}"):
        segpets.load(copied)


def test_a_run_without_a_checkpoint_is_refused(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserError, match=r"holds no checkpoints/best.ckpt: train it first"):
        segpets.load(copied)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [1", "can't be read"),
        ("- 1\n", "no table"),
        ("data: !!python/object/apply:os.system ['touch trap']\n", "can't be read"),
        ("data: {root: '${oc.env:HOME}'}\n", "the reference"),
        ("x: 1\n", "says nothing of data"),
        (None, "is missing"),
    ],
)
def test_a_damaged_config_is_refused(copied: Path, content: str | None, reason: str) -> None:
    (copied / "config.yaml").unlink()
    if content is not None:
        (copied / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=reason):
        segpets.load(copied)


def test_a_config_that_never_ends_is_refused(copied: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    (copied / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match="more than 20,000 values"):
        segpets.load(copied)


def test_a_sweeps_folder_is_answered_with_its_runs(copied: Path) -> None:
    with pytest.raises(UserError, match=rf"It holds 1 runs: choose one, run=.*{copied.name}"):
        open_run(copied.parent)
    loaded = segpets.load(copied.parent)  # which takes several, too
    assert (loaded.path.name, loaded.members) == (copied.name, ())


def test_the_data_of_a_run_are_its_own_but_for_what_is_changed(finished: Result) -> None:
    run = open_run(finished.path)
    assert run.data({})["size"] == 64
    changed = run.data({"size": 96, "root": "elsewhere"})
    assert (changed["size"], changed["root"], changed["download"]) == (96, "elsewhere", False)
    assert changed | {"size": 64, "root": run.config["data"]["root"]} == run.data({})
    assert run.data({"_target_": "segpets.data.Voc"}) == {"_target_": "segpets.data.Voc"}
    with pytest.raises(UserError, match=r"data.sise is no key .* Did you mean data.size\?"):
        run.data({"sise": 96})


def test_what_is_read_of_a_config_is_what_was_written(finished: Result) -> None:
    read = open_run(finished.path, key="resume").config
    assert read == OmegaConf.to_container(OmegaConf.load(finished.path / "config.yaml"))
    assert yaml.safe_load((finished.path / "config.yaml").read_text()) == read
    described = open_run(finished.path).config
    assert described.pop("trainer") == {"precision": 32}
    assert described.items() <= read.items()
    assert not {"callback", "logger", "paths", "resume", "allow"} & described.keys()
