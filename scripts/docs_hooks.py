"""What MkDocs calls while it builds the site: it adds the pages that are made from the code."""

import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import notebook_page
import reference

ROOT = Path(__file__).parents[1]
NOT_RUN = "Not run yet: make notebooks, then make docs, shows the outputs here."


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the config reference, and the notebooks with their list."""
    made = {"reference.md": reference.as_markdown(), "notebooks.md": listed(), **notebooks()}
    for address, content in made.items():
        if (there := files.get_file_from_path(address)) is not None:
            files.remove(there)
        files.append(File.generated(config, address, content=content))
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Writes the search's index as a script, too: a page from the disk can't fetch JSON."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")


def sources() -> dict[str, nbformat.NotebookNode]:
    """The notebooks by their names, without outputs."""
    files = sorted((ROOT / "notebooks").glob("*.ipynb"))
    read: Callable[..., nbformat.NotebookNode] = nbformat.read
    return {file.stem: read(file, as_version=4) for file in files}


def notebooks() -> dict[str, str]:
    """The pages of the notebooks by their addresses: as `make notebooks` wrote them, if it has."""
    found = sources()
    names = list(found)
    pages = {}
    for number, (name, notebook) in enumerate(found.items()):
        run = ROOT / "docs" / "notebooks" / f"{name}.html"
        page = run.read_text(encoding="utf-8") if run.exists() else notebook_page.page(notebook)
        links = {"segpets": "../index.html", "All notebooks": "../notebooks.html"}
        for word, other in (("Before", number - 1), ("Next", number + 1)):
            if 0 <= other < len(names):
                links[f"{word}: {names[other]}"] = f"{names[other]}.html"
        note = "" if run.exists() else NOT_RUN
        pages[f"notebooks/{name}.html"] = notebook_page.with_links(page, links, note)
    return pages


def listed() -> str:
    """The page that lists them."""
    lines = [
        "# Notebooks",
        "",
        "The whole series on real images, to be read here, or to be run on this machine, on Colab",
        "or on Kaggle. `make notebooks` runs them all; `make docs` then shows what came out.",
        "",
    ]
    for name, notebook in sources().items():
        title = notebook_page.title(notebook)
        lines.append(f"- [{title}](notebooks/{name}.html): `notebooks/{name}.ipynb`")
    return "\n".join(lines) + "\n"
