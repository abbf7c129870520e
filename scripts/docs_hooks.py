"""What MkDocs calls while it builds the site: it adds the pages that are made from the code."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import reference


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the config reference."""
    files.append(File.generated(config, "reference.md", content=reference.as_markdown()))
    return files
