"""Every config composes, and names things that exist."""

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from segpets.cli.command import groups
from segpets.config import compose, conf_dir

GROUPS = groups([conf_dir()])
COMMANDS = sorted(file.stem for file in conf_dir().glob("*.yaml"))
CHOICES = [(group, option) for group, options in GROUPS.items() for option in options]

INDEPENDENT = ("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer")

# What an option wants from its user.
NEEDS = {
    "data=coco": ["data.categories=[cat,dog]"],
    "data=folder": ["data.classes=[background,leaf]"],
}


def composed(overrides: list[str], folder: Path) -> dict[str, Any]:
    cfg = compose([*overrides, f"hydra.run.dir={folder}"])
    resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def locate(target: str) -> Any:
    """What a dotted name stands for: the longest module in it, and attributes of that."""
    words = target.split(".")
    for end in range(len(words) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(words[:end]))
        except ModuleNotFoundError:
            continue
        for word in words[end:]:
            found = getattr(found, word)
        return found
    raise AssertionError(f"{target} can't be imported")


def together() -> list[list[tuple[str, str]]]:
    """Options that are composed at once: one of each group that has no say in the others."""
    alone = [[choice] for choice in CHOICES if choice[0] not in INDEPENDENT]
    columns = [[(group, option) for option in GROUPS[group]] for group in INDEPENDENT]
    rows = itertools.zip_longest(*columns)
    return [[choice for choice in row if choice is not None] for row in rows] + alone


@pytest.mark.parametrize("choices", together(), ids=lambda row: " ".join("=".join(c) for c in row))
def test_every_option_composes_and_names_what_exists(
    choices: list[tuple[str, str]], tmp_path: Path
) -> None:
    overrides = []
    for group, option in choices:
        # callback=[default,ema]: what is added to the default list is chosen along with it
        value = f"[default,{option}]" if group == "callback" and option != "default" else option
        overrides += [f"{group}={value}", *NEEDS.get(f"{group}={option}", [])]
    found = list(targets(composed(overrides, tmp_path)))
    assert found
    for target in found:
        assert callable(locate(target)), target
    for group, option in choices:
        chosen = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
        if "_target_" in chosen:
            target = chosen["_target_"]
            assert callable(locate(target))
            # compose() keeps no config of Hydra's
            assert target in found or group.startswith("hydra")


def test_the_parametrisation_leaves_no_config_out() -> None:
    files = {file.relative_to(conf_dir()).with_suffix("") for file in conf_dir().rglob("*.yaml")}
    listed = {Path(group, option) for group, option in CHOICES} | {Path(c) for c in COMMANDS}
    parts = {file for file in files if file.name.startswith("_")}
    assert files - parts == listed
    text = "".join(file.read_text() for file in conf_dir().rglob("*.yaml"))
    assert all(f"- {part.name}\n" in text for part in parts)


@pytest.mark.parametrize(
    ("override", "callbacks"),
    [
        ("callback=default", set()),
        ("callback=[default,ema]", {"ema"}),
        ("callback=[default,early_stopping]", {"early_stopping"}),
        ("callback=[default,early_stopping,ema]", {"early_stopping", "ema"}),
    ],
)
def test_callbacks_are_added_to_a_list(override: str, callbacks: set[str], tmp_path: Path) -> None:
    default = composed([], tmp_path)["callback"]
    assert "best_and_last" in default
    assert set(composed([override], tmp_path)["callback"]) == set(default) | callbacks


@pytest.mark.parametrize(
    ("override", "loggers"),
    [
        ("logger=[]", set()),
        ("logger=[csv]", {"csv"}),
        ("logger=tensorboard", {"tensorboard"}),
        ("tags=[]", {"csv", "tensorboard"}),
    ],
)
def test_loggers_are_a_list(override: str, loggers: set[str], tmp_path: Path) -> None:
    assert set(composed([override], tmp_path).get("logger") or {}) == loggers


@pytest.mark.slow
def test_number_of_classes_has_one_place(tmp_path: Path) -> None:
    for model in GROUPS["model"]:
        for loss in ("cross_entropy", "combined"):
            overrides = [f"model={model}", f"loss={loss}", "data.classes=[a,b,c,d]"]
            cfg = composed(overrides, tmp_path)
            assert cfg["model"]["num_classes"] == 4
            terms = cfg["loss"].get("losses", {"all": cfg["loss"]})
            assert {term["num_classes"] for term in terms.values()} == {4}


def test_compose_gives_each_run_a_directory_of_its_own(tmp_path: Path) -> None:
    log_dir = f"paths.log_dir={tmp_path}"
    first, second = (Path(compose([log_dir]).paths.output_dir) for _ in range(2))
    assert first != second
    assert first.parent == second.parent == tmp_path / "runs"
    assert Path(compose([f"hydra.run.dir={tmp_path}/mine"]).paths.output_dir) == tmp_path / "mine"


def test_a_combined_loss_takes_other_terms(tmp_path: Path) -> None:
    words = ["loss=combined", "loss@loss.losses.overlap=dice", "loss.weights.overlap=0.5"]
    loss = composed(words, tmp_path)["loss"]
    assert loss["losses"]["overlap"]["_target_"] == "segpets.loss.dice.DiceLoss"
    assert loss["weights"] == {"pixel": 1.0, "overlap": 0.5}
