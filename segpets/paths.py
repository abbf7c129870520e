"""Folders that segpets uses beside those that it is given."""

import os
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """The folder for what can be made anew: `$XDG_CACHE_HOME/segpets`, else `~/.cache/segpets`."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segpets"
    except RuntimeError:  # a container's user without a name, nor HOME
        return Path(tempfile.gettempdir(), f"segpets-{os.getuid()}")


def conf_dir() -> Path:
    """The folder of the configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.absolute()
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
