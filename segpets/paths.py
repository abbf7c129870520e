"""Folders that segpets uses beside those that it is given."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The folder for what can be made anew: `$XDG_CACHE_HOME/segpets`, else `~/.cache/segpets`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segpets"
