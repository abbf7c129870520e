"""The arrow of imports, and one name for one thing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segpets.run import DOES_NOT_TRAIN

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "segpets"
CONF = ROOT / "conf"

# What each room may import of segpets; a room is a folder of segpets, or a file beside them.
MAY_IMPORT = {
    "labels": set(),
    "errors": set(),
    "hardware": {"errors"},
    "paths": set(),
    "coco_files": {"errors"},
    "cost": set(),
    "enlarge": set(),
    "scheduler": {"errors"},
    "trust": {"errors"},
    "stored": {"errors", "paths", "run", "trust"},
    "config": {"coco_files", "hardware", "paths", "stored"},
    "run": {"errors"},
    "jobs": {"errors", "run"},
    "sweeping": {"config", "errors", "hardware", "jobs", "report", "run"},
    "study": {"errors"},
    "search": {"config", "errors", "jobs", "report", "run", "study", "sweeping"},
    "help": set(),
    "hints": set(),
    "cli": {"config", "errors", "help", "hints", "paths", "run", "stored"},
    "metric": {"labels"},
    "model": {"errors"},
    "loss": {"errors", "labels"},
    "augment": {"errors", "labels"},
    "data": {"coco_files", "errors", "labels", "paths"},
    "doctor": {"data", "errors", "labels"},
    "report": {"labels"},
    "stats": set(),
    "comparison": {"data", "errors", "jobs", "labels", "report", "run", "stats"},
    "module": {"errors", "labels", "metric"},
    "callback": {"errors", "labels", "metric", "report", "run", "study"},
    "resume": {"callback", "errors", "run", "stored", "trust"},
    "trial": {"errors", "labels"},
    "build": {"cost", "errors", "module", "run", "trial"},
    "evaluation": {
        *("data", "enlarge", "errors", "hardware", "labels", "metric", "stats", "trained"),
    },
    "speed": {"build", "comparison", "cost", "errors", "module", "report", "run", "trained"},
    "exporting": {"errors", "labels", "metric", "model", "trained"},
    "prediction": {"data", "enlarge", "errors", "labels", "run"},
    "trained": {"build", "errors", "hardware", "module", "prediction", "run", "stored"},
}
# Libraries that a room does without.
MUST_NOT_IMPORT = {
    "labels": {"lightning", "hydra", "omegaconf", "matplotlib"},
    "model": {"lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "loss": {"lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "augment": {"lightning", "hydra", "omegaconf", "pathlib", "io", "PIL"},
    "data": {"hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "metric": {"lightning", "hydra", "omegaconf", "matplotlib"},
    "module": {"hydra", "omegaconf", "matplotlib", "PIL", "rich"},
    "callback": {"hydra", "omegaconf"},
    "doctor": {"hydra", "omegaconf", "matplotlib"},
    "report": {"lightning", "hydra", "omegaconf"},
    "stats": {"lightning", "hydra", "omegaconf", "matplotlib", "torch"},
    "comparison": {"lightning", "hydra", "omegaconf", "matplotlib", "torch"},
    "evaluation": {"hydra", "omegaconf", "matplotlib", "PIL", "rich", "pathlib", "io"},
    "prediction": {"lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "run": {"lightning", "hydra", "torch"},
    "speed": {"lightning", "hydra", "matplotlib"},
    "exporting": {"lightning", "hydra", "omegaconf", "matplotlib", "rich"},
}
# What files of one folder share; their other siblings don't know each other.
SHARED = {
    "model": {"pad", "separable"},
    "loss": {"base"},
    "augment": {"pair"},
    "data": {
        "cache",
        "decode",
        "download",
        "fetch",
        "instances",
        "listing",
        "meaning",
        "outline",
        "pairs",
        "pixels",
        "source",
        "unpack",
    },
    "callback": {"tensorboard"},
    "report": {"figure", "grid", "page", "paint", "placement"},
    "comparison": {"counts", "find", "group", "paired", "pictures", "record", "table", "words"},
    "doctor": {"finding", "survey"},
    "evaluation": {
        *("boundary", "calibration", "constants", "inference", "measure", "named"),
        *("protocols", "slices", "tally", "temperature", "walk"),
    },
    "speed": {"measured", "memory", "subject", "timing", "variants", "words", "workers"},
    "exporting": {"program"},
    "prediction": {"background", "drawing", "layers", "picture", "sources", "tiles"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the arrow"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def by_path(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", FILES, ids=by_path)
def test_imports_follow_the_arrow(file: Path) -> None:
    room = room_of(file)
    ours = {name.split(".")[1] for name in imports(file) if re.match(r"segpets\.[a-z]", name)}
    if room in MAY_IMPORT:
        assert ours <= MAY_IMPORT[room] | {room}
    else:  # __init__ and the commands, which stand above the rooms and don't know each other
        commands = {f.stem for f in PACKAGE.glob("*.py")} - set(MAY_IMPORT)
        assert not ours & (commands - {"__init__", file.stem})


@pytest.mark.parametrize("room", sorted(MUST_NOT_IMPORT))
def test_a_room_does_without_what_is_none_of_its_business(room: str) -> None:
    files = [file for file in FILES if room_of(file) == room]
    assert files
    for file in files:
        libraries = {name.split(".")[0] for name in imports(file)}
        assert not libraries & MUST_NOT_IMPORT[room], file


# Where code that trains touches rooms that don't: to be started, and to draw and print.
TOUCHES = {"train": {"cli", "report", "sweeping"}, "callback": {"report"}}


def test_the_code_revision_counts_what_trains_and_nothing_else() -> None:
    """A sweep goes on after a change of other code, so no room may be on the wrong list."""
    rooms = {room_of(file) for file in FILES}
    assert rooms >= DOES_NOT_TRAIN
    uses: dict[str, set[str]] = {room: set() for room in rooms}
    for file in FILES:
        names = (name.split(".") for name in imports(file) if name.startswith("segpets."))
        uses[room_of(file)] |= {name[1] for name in names} & rooms
    configs = "".join(config.read_text() for config in CONF.rglob("*.yaml"))
    named = set(re.findall(r"_target_: *segpets\.(\w+)", configs))
    trains: set[str] = {"__init__"}
    found = {"train"} | named
    while found:
        trains |= found
        used = set().union(*(uses[room] - TOUCHES.get(room, set()) for room in found))
        found = used - trains
    assert not trains & DOES_NOT_TRAIN, "it trains, so the code revision must count it"
    unsaid = rooms - trains - DOES_NOT_TRAIN
    assert not unsaid, "no training uses it: name it in segpets.run.DOES_NOT_TRAIN"


@pytest.mark.parametrize("room", sorted(SHARED))
def test_siblings_share_only_what_is_there_to_be_shared(room: str) -> None:
    siblings = {file.stem for file in (PACKAGE / room).glob("*.py")} - {"__init__"}
    assert SHARED[room] <= siblings
    # The DataModule serves all data sets, so it stands above its siblings; __init__ names them.
    for name in siblings - {"datamodule"}:
        used = {
            module.split(".")[2]
            for module in imports(PACKAGE / room / f"{name}.py")
            if module.startswith(f"segpets.{room}.")
        }
        assert used <= SHARED[room], name


def test_augmentations_open_no_file() -> None:
    for file in (PACKAGE / "augment").glob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        assert not [c for c in calls if isinstance(c, ast.Name) and c.id == "open"], file


def test_the_module_knows_no_net_and_no_loss_by_name() -> None:
    file = PACKAGE / "module.py"
    words = set(re.findall(r"\w+", file.read_text().lower()))
    words -= {name.split(".")[-1] for name in imports(file) if name.startswith("segpets.metric.")}
    for group in ("model", "loss"):
        names = {file.stem for file in (CONF / group).glob("*.yaml")}
        names |= {file.stem for file in (PACKAGE / group).glob("[a-z]*.py")} - SHARED[group]
        assert names
        assert not words & names


@pytest.mark.parametrize(
    "module",
    [
        "segpets.train",
        "segpets.browse",
        "segpets.compare",
        "segpets.evaluate",
        "segpets.predict",
        "segpets.export",
        "segpets.benchmark",
        "segpets.__main__",
    ],
)
def test_a_command_imports_nothing_heavy_before_it_has_a_config(module: str) -> None:
    heavy = (
        "torch numpy lightning albumentations torchvision torchmetrics matplotlib PIL rich scipy"
    )
    code = f"import sys, {module}; print(*(w for w in {heavy.split()} if w in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("group", ["model", "loss"])
def test_config_module_and_test_have_the_same_name(group: str) -> None:
    modules = {file.stem for file in (PACKAGE / group).glob("[a-z]*.py")}
    served = set()
    for config in sorted((CONF / group).glob("*.yaml")):
        target = str(OmegaConf.load(config)["_target_"])
        module = target.split(".")[2]
        assert target.startswith(f"segpets.{group}.{module}."), config
        assert module in modules, config
        # unet_2015 is another choice of unet's
        assert config.stem.startswith(module), f"{config} is served by {module}.py"
        served.add(module)
    assert modules == served | SHARED[group], "a module that no config names"
    tests = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / group).glob("test_*.py")}
    assert modules - {"base"} <= tests


CONFIGS = sorted(CONF.rglob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=by_path)
def test_the_first_line_of_a_config_is_a_command_that_uses_it(config: Path) -> None:
    lines = config.read_text().splitlines()
    if lines[0].startswith("# @package"):  # Hydra wants it on the first line
        del lines[0]
    match = re.fullmatch(r"# python -m segpets\.(\w+)( .*)?", lines[0])
    assert match, lines[0]
    group, option = config.parent.relative_to(CONF).as_posix(), config.stem
    if group == ".":
        assert match[1] == option
    elif (group, option) == ("callback", "standard"):  # in every run, so never chosen
        assert match[2].startswith(" callback.")
    elif option.startswith("_"):  # a part of the group's options
        assert f" {group}=" in match[2]
    elif option != "default":
        assert re.search(rf"\b{group}=(\[\S*\b)?{re.escape(option)}\b", lines[0]), lines[0]
