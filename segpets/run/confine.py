"""Keeps a run that goes on within its own directory, whoever made it."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.reading import in_one_line

_ACTS: Final = ("callback", "logger", "trainer")
_PATHS: Final = {
    *("folder", "path", "file", "dir", "dirpath", "directory", "output", "save_dir"),
    *("log_dir", "logdir", "root_dir", "default_root_dir", "output_dir", "sub_dir", "_args_"),
}
"""Arguments of callbacks, loggers, trainer and profiler that are parts of paths."""
_METRIC: Final = re.compile(r"(train|val|test)/(?!.*\.\.)[^~\\]+")


def check_paths(config: Mapping[str, Any], run: Path, *, own: Mapping[str, Any]) -> None:
    """Refuses a config whose callbacks, loggers or trainer would write outside of their run.

    Args:
        config: The stored config.
        run: Its run directory.
        own: The config of this command: what it says, too, is the user's.

    Raises:
        UserError: One would; the message names its key.
    """
    mine = set(_texts({part: own.get(part) for part in _ACTS}))
    known = {key for key, _ in mine}
    for key, text in _texts({part: config.get(part) for part in _ACTS}):
        if (key, text) in mine or _is_confined(key, text, run):
            continue
        word = f"{'' if key in known else '++'}{in_one_line(key)[:200]}"
        raise UserError(
            f"{in_one_line(run)}: its config has {in_one_line(key)[:200]}="
            f"{in_one_line(text)[:200]}, outside of the run. If that is yours, say it again: "
            f"resume=... {word}=..."
        )


def _is_confined(key: str, text: str, run: Path) -> bool:
    name = key.rpartition(".")[2].partition("[")[0]
    if name in ("name", "version", "filename"):  # below a folder that is checked by itself
        return not set(text) & set("/\\") and text != ".."
    if name == "monitor" and _METRIC.fullmatch(text):  # a name, not a file's
        return True
    is_path = name in _PATHS or text in (".", "..") or set(text) & set("/\\~")
    return not is_path or _is_within(text, run)


def check_links(run: Path) -> None:
    """Refuses a run with links that lead out of it, or with pipes and the like, to be written.

    Raises:
        UserError: There is one; the message names it.
    """
    own = Path(os.path.realpath(run))
    for folder, folders, files in os.walk(own):
        for name in [*folders, *files]:
            path = Path(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode) and not _is_within(str(path), own):
                raise UserError(
                    f"{in_one_line(path)} is a link that leads out of the run, and a run that goes "
                    "on writes there: put what it leads to in its place, or remove it"
                )
            if not (stat.S_ISLNK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise UserError(f"{in_one_line(path)} is neither file nor folder: remove it")


def _is_within(text: str, run: Path) -> bool:
    real = Path(os.path.realpath(os.path.expanduser(text)))
    return real.is_relative_to(os.path.realpath(run))


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the texts of a config with their keys, but not the names of classes."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name != "_target_":
                yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, f"{key}[{index}]")
    elif isinstance(node, str):
        yield key, node
