"""What MkDocs calls while it builds the site: it adds the pages that are made from the code."""

import json
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import reference

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the config reference, and the list of the notebooks."""
    files.append(File.generated(config, "reference.md", content=reference.as_markdown()))
    files.append(File.generated(config, "notebooks.md", content=notebooks()))
    return files


def notebooks() -> str:
    """The page of the notebooks: links to those that `make notebooks` has run."""
    lines = [
        "# Notebooks",
        "",
        "The whole series on real images, to be run here, on Colab or on Kaggle. `make notebooks`",
        "runs all of them and writes each with its outputs as a page; `make docs` then links them.",
        "",
    ]
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        text = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "markdown"))
        title = text.lstrip("# ").splitlines()[0]
        page = f"notebooks/{file.stem}.html"
        shown = f"[{title}]({page})" if (ROOT / "docs" / page).exists() else title
        lines.append(f"- {shown}: `notebooks/{file.name}`")
    return "\n".join(lines) + "\n"
