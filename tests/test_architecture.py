"""The arrow of imports, and one name for one thing."""

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segpets.run.versions import DOES_NOT_TRAIN

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "segpets"
CONF = ROOT / "conf"

COMMANDS = {"train", "sweep", "evaluate", "predict", "export", "benchmark", "compare", "browse"}

# A room is a folder of segpets, or a file beside them. It imports from layers below its own, and
# rooms of one layer don't know each other.
LAYERS = [
    {"lazy", "reading"},
    {"errors"},
    {"labels", "paths"},
    {"hardware", "settings", "stats"},
    {"significance"},
    {"run"},
    {
        "augment",
        "compiled",
        "data",
        "loss",
        "metric",
        "model",
        "muon",
        "optimizer",
        "report",
        "scheduler",
    },
    {"distillation"},
    {"module"},
    {"callback", "config"},
    {"build"},
    {"inference", "records"},
    COMMANDS,
    {"cli"},
    {"__init__", "__main__"},
]
# Libraries that a room does without.
MUST_NOT_IMPORT = {
    "labels": {"lightning", "hydra", "omegaconf", "matplotlib"},
    "model": {"lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "loss": {"lightning", "hydra", "omegaconf", "torchmetrics", "matplotlib"},
    "augment": {"lightning", "hydra", "omegaconf", "pathlib", "io", "PIL"},
    "data": {"hydra", "torchmetrics", "matplotlib"},
    "metric": {"lightning", "hydra", "omegaconf", "matplotlib"},
    "module": {"hydra", "omegaconf", "matplotlib", "PIL", "rich"},
    "callback": {"hydra", "omegaconf"},
    "report": {"lightning", "hydra", "omegaconf"},
    "run": {"lightning", "matplotlib"},
    "records": {"lightning", "hydra", "matplotlib", "torch"},
    "significance": {"lightning", "hydra", "omegaconf", "matplotlib", "torch"},
    "stats": {"lightning", "hydra", "omegaconf", "matplotlib", "torch"},
    "inference": {"lightning", "hydra", "torchmetrics", "matplotlib"},
}
# What files of a folder that is one paper, equation or look a file share.
SHARED = {
    "model": {"first_layer", "narrow", "pad", "separable", "windows"},
    "loss": {"base"},
    "augment": {"pair", "scale_crop", "work"},
    "callback": {"rows", "signals", "tensorboard"},
}
FILES = sorted(PACKAGE.rglob("*.py"))
OF_A_RUN = {
    *("best.ckpt", "last.ckpt", "summary.json", "config.yaml", "trial.json", "benchmark.json"),
    *("metrics.csv", "counts.csv", "model.txt"),
}


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


def own_imports(file: Path) -> set[str]:
    """The modules of segpets that a file imports."""
    return {name for name in imports(file) if re.match(r"segpets\.[a-z]", name)}


@pytest.mark.parametrize("file", FILES, ids=by_path)
def test_imports_follow_the_arrow(file: Path) -> None:
    room = room_of(file)
    (level,) = (index for index, layer in enumerate(LAYERS) if room in layer)
    below = set().union(*LAYERS[:level])
    entry = file.name == "__main__.py" and room in COMMANDS  # it hands the command to the cli
    allowed = below | {room} | ({"cli"} if entry else set())
    assert {name.split(".")[1] for name in own_imports(file)} <= allowed


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {".".join(f.relative_to(ROOT).with_suffix("").parts): f for f in FILES}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    graph = {
        name: {m for n in own_imports(file) if (m := _module(n, modules)) != name}
        for name, file in modules.items()
    }
    TopologicalSorter(graph).prepare()  # raises a CycleError


def _module(name: str, modules: Mapping[str, Path]) -> str:
    """The module that a dotted name lies in."""
    return name if name in modules else name.rpartition(".")[0]


def test_files_and_functions_can_be_taken_in_at_one_sitting() -> None:
    lines = {str(f.relative_to(PACKAGE)): len(f.read_text().splitlines()) for f in FILES}
    assert {name: count for name, count in lines.items() if count > 350} == {}
    assert lines["train/recipe.py"] <= 100
    long = [
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_docstrings_say_what_is_done_or_what_a_thing_is() -> None:
    """ "Reads a run's summary", or "Settings of an evaluation"; not "What was found"."""
    wrong = [
        f"{file.relative_to(PACKAGE)}: {text.splitlines()[0]}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        if (text := ast.get_docstring(node) or "")
        if text.split()[0] in ("What", "How", "Whether", "Where", "Why", "When")
    ]
    assert wrong == []


def test_few_imports_hide_in_functions() -> None:
    hidden = [
        f"{file.name}:{node.lineno}"
        for file in FILES
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert len(hidden) <= 40, hidden


def test_only_the_run_room_spells_out_the_files_of_a_run() -> None:
    for file in FILES:
        if room_of(file) != "run":
            text = file.read_text()
            names = re.findall(r"(?:best|last)\.ckpt|summary\.json|config\.yaml", text)
            names += re.findall(r'"(?:trial\.json|benchmark\.json|\w+\.csv|model\.txt)"', text)
            names = [name for name in names if name.strip('"') in OF_A_RUN]
            assert not names, f"{by_path(file)} says {names}: take it from segpets.run.files"


@pytest.mark.parametrize("room", sorted(MUST_NOT_IMPORT))
def test_a_room_does_without_what_is_none_of_its_business(room: str) -> None:
    files = [file for file in FILES if room_of(file) == room]
    assert files
    for file in files:
        libraries = {name.split(".")[0] for name in imports(file)}
        assert not libraries & MUST_NOT_IMPORT[room], file


# Where code that trains touches rooms that don't: to draw and print.
TOUCHES = {"train": {"report"}, "callback": {"report"}}


def test_the_code_revision_counts_what_trains_and_nothing_else() -> None:
    """A sweep goes on after a change of other code, so no room may be on the wrong list."""
    rooms = {room_of(file) for file in FILES}
    assert rooms >= DOES_NOT_TRAIN
    uses: dict[str, set[str]] = {room: set() for room in rooms}
    for file in FILES:
        if file.name == "__main__.py":  # hands the command to the cli
            continue
        names = (name.split(".") for name in imports(file) if name.startswith("segpets."))
        uses[room_of(file)] |= {name[1] for name in names} & rooms
    configs = "".join(config.read_text() for config in CONF.rglob("*.yaml"))
    named = set(re.findall(r"_target_: *segpets\.(\w+)", configs))
    trains: set[str] = {"__init__", "config"}  # which composes what is trained
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
    for name in siblings:
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
        "segpets.sweep",
        "segpets.__main__",
    ],
)
def test_a_command_imports_nothing_heavy_before_it_has_a_config(module: str) -> None:
    heavy = (
        "torch numpy lightning albumentations torchvision torchmetrics matplotlib PIL rich scipy"
    )
    code = f"import sys, {module}, segpets.cli.command\n"
    code += f"print(*(w for w in {heavy.split()} if w in sys.modules))"
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
