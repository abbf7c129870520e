"""The notebooks: clean in git, their words right, and every cell runs."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from omegaconf import OmegaConf

from segpets.cli.command import groups
from segpets.config import compose, conf_dir

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OVERRIDE = re.compile(r"[a-z_@/]+(\.[A-Za-z0-9_]+)*=\S+")

each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def cells(file: Path, kind: str) -> list[str]:
    notebook = nbformat.read(file, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def code(file: Path) -> ast.Module:
    """All code cells as one module, without what only IPython understands."""
    text = "\n".join(cells(file, "code"))
    return ast.parse(re.sub(r"^( *)%.*$", r"\1pass", text, flags=re.MULTILINE))


def strings(file: Path) -> Iterator[str]:
    """All texts in the code; names that stand for texts are filled into f-strings."""
    tree = code(file)
    known: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            (name,) = node.targets
            if isinstance(name, ast.Name) and isinstance(node.value.value, str):
                known[name.id] = node.value.value
    filled = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in filled for part in ast.walk(node)}
    for node in filled:
        yield "".join(_filled(part, known) for part in node.values)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def _filled(part: ast.expr, known: dict[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return known.get(part.value.id, "?") if isinstance(part.value, ast.Name) else "?"


def commands(file: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that the notebook shows or runs: name and words."""
    for text in strings(file):
        if text.startswith("python -m segpets.") and "?" not in text:
            name, *words = shlex.split(text.removeprefix("python -m segpets."))
            yield name, words
    for text in cells(file, "markdown"):
        shown = re.findall(r"`python -m segpets\.([^`]+)`", text)
        shown += re.findall(r"^    python -m segpets\.(.+)$", text, re.MULTILINE)
        for line in shown:
            name, *words = shlex.split(line)
            yield name, words


def own_configs(file: Path, folder: Path) -> list[str]:
    """Writes the files that the notebook writes; gives the override by which Hydra finds them."""
    for node in ast.walk(code(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "write" and isinstance(node.args[0], ast.Constant):
                name, text = (ast.literal_eval(argument) for argument in node.args)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text.lstrip("\n"))
    found = {path for path in folder.rglob("conf")}
    return [f"hydra.searchpath=[{','.join(f'file://{path}' for path in found)}]"]


def first_of_each(words: list[str]) -> list[str]:
    """Of a sweep the words of its first job."""
    words = [re.sub(r"^([a-z._]+)=([^\[,({' ]+),.*", r"\1=\2", word) for word in words]
    return [re.sub(r"=range\((\d+),.*\)$", r"=\1", word) for word in words]


@each
def test_outputs_are_stripped(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each
def test_the_first_cell_is_the_one_that_installs(file: Path) -> None:
    first, shared = (cells(f, "code")[0].splitlines() for f in (file, NOTEBOOKS[-1]))
    assert [line for line in first if "trains nothing" not in line] == shared


@pytest.mark.slow
@pytest.mark.parametrize("clone", ["..", "segpets"])
def test_the_first_cell_installs_a_clone_where_segpets_is_not(clone: str, tmp_path: Path) -> None:
    """Libraries come from this environment, but segpets itself isn't in the new one."""
    here = tmp_path / "my notebooks"
    here.mkdir()
    for part in ("segpets", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / part, here / clone / part, ignore=shutil.ignore_patterns("*.pyc"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, here / clone / part)
    venv.create(tmp_path / "new", with_pip=True)
    python = tmp_path / "new" / "bin" / "python"
    purelib = sysconfig.get_path("purelib")
    found = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(found.strip(), "libraries.pth").write_text(f"{purelib}\n")
    cell = (
        cells(NOTEBOOKS[-1], "code")[0] + "\nimport segpets.build\nprint(segpets.build.__file__)\n"
    )
    (here / "first.ipy").write_text(cell)
    done = subprocess.run(
        [python, "-m", "IPython", "--no-banner", "first.ipy"],
        cwd=here,
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        | {"IPYTHONDIR": str(tmp_path / "ipython")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert str(tmp_path / "new") in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.slow
@each
def test_its_commands_compose(file: Path, tmp_path: Path) -> None:
    search = own_configs(file, tmp_path)
    found = list(commands(file))
    assert found
    for name, words in found:
        overrides = [w for w in first_of_each(words) if OVERRIDE.match(w)]
        overrides = [w for w in overrides if not w.startswith(("hydra/launcher", "hydra.launcher"))]
        own = search if "--config-dir" in words else []
        assert compose([*overrides, *own], task=name).task_name == name, words


@each
def test_its_overrides_name_what_exists(file: Path, tmp_path: Path) -> None:
    own_configs(file, tmp_path)
    options = groups([conf_dir(), tmp_path / "mine" / "conf"])
    keys: dict[str, set[str]] = {}
    for folder in (conf_dir(), tmp_path / "mine" / "conf"):
        for path in folder.rglob("*.yaml"):
            group = "/".join(path.parent.relative_to(folder).parts[:1])
            if "@package _global_" in path.read_text():
                group = ""
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            keys.setdefault(group, set()).update(_keys(content))
    spans = [s for text in cells(file, "markdown") for s in re.findall(r"`([^`\n]+)`", text)]
    words = [w for span in (*spans, *strings(file)) if "==" not in span for w in _words(span)]
    for word in words:
        key, _, value = word.partition("=")
        if key in options:
            for option in re.split(r"[\[\],]+", value.strip("[]")):
                assert option in options[key] or option == "?", word
        elif not key.startswith(("hydra", "_")):
            group, _, rest = key.partition(".")
            assert key in keys[""] or rest in keys.get(group, ()), word


def _words(span: str) -> list[str]:
    """The overrides of a text that holds nothing else."""
    try:
        words = shlex.split(span)
    except ValueError:
        return []
    words = [w for w in words if w not in ("-m", "python") and not w.startswith("segpets.")]
    return words if words and all(OVERRIDE.fullmatch(word) for word in words) else []


def _keys(node: object, path: str = "") -> Iterator[str]:
    """All keys of plain data, those of inner tables and lists with dots."""
    pairs = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node if isinstance(node, list) else [])
    )
    for key, value in pairs:
        yield f"{path}{key}"
        yield from _keys(value, f"{path}{key}.")


@each
def test_its_links_lead_to_notebooks(file: Path) -> None:
    for text in cells(file, "markdown"):
        for target in re.findall(r"\]\((\w+\.ipynb)\)", text):
            assert (file.parent / target).is_file(), target


@each
def test_the_readme_of_the_folder_lists_it(file: Path) -> None:
    assert f"[{file.stem}]({file.name})" in (file.parent / "README.md").read_text()


@each
@pytest.mark.slow
def test_every_cell_runs(file: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "scripts/notebooks.py", file.stem),
            *("--to", str(tmp_path / "pages"), "--work", str(tmp_path / "work")),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout
    page = (tmp_path / "pages" / f"{file.stem}.html").read_text()
    assert "data:image/png;base64," in page
    assert 'data-mime-type="application/vnd.jupyter.stderr"' not in page, "a library warns"
    assert not re.search(r'<(script|link)[^>]+(src|href)="https?:', page), "it needs a network"
