"""The classes that a stored config may name: those of segpets' own configs, and the user's.

A run directory may come from anyone. Its config says by `_target_` which classes are called with
which arguments, so a hostile one could start programs. Prefixes of packages are no protection:
`torch.utils.collect_env.run` starts a shell.
"""

import functools
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from segpets.errors import FileError, UserError
from segpets.paths import conf_dir
from segpets.run.files import regular

_MAX_BYTES: Final = 1_000_000
_MAX_NODES: Final = 20_000  # nested aliases make a small file endless
_CLASS: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_MOST, _LONGEST = 20, 120  # classes in a message, and letters of each
_PLAIN: Final = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Trust:
    """Whom the user trusts, beside segpets' own configs.

    Attributes:
        folders: Folders with configs of the user's own; what they name is allowed.
        allow: Classes of the user's own.
    """

    folders: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()

    @staticmethod
    def of(allow: Sequence[str] | str | None, folders: Iterable[str | Path] = ()) -> "Trust":
        """Makes one from what the command line or a caller says.

        Raises:
            UserError: `allow` isn't a list of names.
        """
        words = [allow] if isinstance(allow, str) else list(allow or [])
        if not all(isinstance(word, str) and word for word in words):
            raise UserError(f"allow={allow} is no list of classes, such as allow=[my_nets.Tiny]")
        return Trust(tuple(Path(folder) for folder in folders), tuple(words))

    def allowing(self, config: Any) -> "Trust":
        """Trusts what a config names, too."""
        return replace(self, allow=(*self.allow, *sorted(targets_of(config))))

    def targets(self) -> frozenset[str]:
        """Lists the names that may follow `_target_`.

        Raises:
            UserError: One of `folders` isn't a folder.
        """
        return frozenset(self.allow).union(*map(_named, (conf_dir(), *self.folders)))

    def check(self, config: Any, *, where: str) -> None:
        """Refuses plain data that would make anything that isn't allowed.

        Raises:
            UserError: It would; the message names all that it would make, and what allows it.
        """
        allowed = self.targets()
        foreign = {
            key or "it": target
            for key, target in _targets(config)
            if not isinstance(target, str) or target not in allowed
        }
        if not foreign:
            return
        # A file's content may be long, or control the terminal.
        lines = [f"{repr(k)[1:-1]} would call {repr(t)[:_LONGEST]}" for k, t in foreign.items()]
        more = f" and {len(lines) - _MOST} more" if lines[_MOST:] else ""
        raise UserError(
            f"{where}: {', '.join(lines[:_MOST])}{more}, which is none of the classes that "
            f"segpets' configs name, so nothing of it is used. {_remedy(foreign.values())}"
        )


@functools.cache
def _named(folder: Path) -> frozenset[str]:
    """Collects the targets that the YAML files in a folder name by `_target_`."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder with configs")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    contents = (
        yaml.load(file.read_text(encoding="utf-8"), Loader=loader)
        for file in folder.rglob("*.yaml")
    )
    return frozenset().union(*map(targets_of, contents))


def targets_of(config: Any) -> frozenset[str]:
    """Collects the classes and functions that plain data name by `_target_`."""
    return frozenset(target for _, target in _targets(config) if isinstance(target, str))


def read_yaml(file: Path) -> dict[str, Any]:
    """Reads plain data of a bounded size.

    Raises:
        FileError: It is missing, damaged or too large, holds references, or isn't a table.
    """
    try:
        with regular(file).open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        config = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(config, dict):
            raise ValueError("it holds no table of names and values")
        _check_plain(config)
    except FileNotFoundError as error:
        raise FileError(file, "is missing", "without it nothing is known of the run") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FileError(
            file, f"can't be read ({reason})", "restore it, or train the model anew"
        ) from error
    return config


def _remedy(targets: Iterable[Any]) -> str:
    """Says how to allow the user's own classes, which programs of Python's own library are not."""
    own = [
        target
        for target in dict.fromkeys(t for t in targets if isinstance(t, str))
        if _CLASS.fullmatch(target) and target.split(".")[0] not in sys.stdlib_module_names
    ][:_MOST]
    if not own:
        return "No training writes that: don't use this run"
    words = (
        f"If you trust the run and they are yours, add --config-dir FOLDER, with the folder of "
        f"configs that it was trained with, or allow=[{','.join(own)}]; from Python "
        f"folders=['FOLDER'] or allow={own}"
    )
    modules = dict.fromkeys(target.split(".")[0] for target in own)
    missing = [
        f"{module}.py"
        for module in modules
        if module not in sys.modules and importlib.util.find_spec(module) is None
    ]
    if missing:
        words += f". The folder with {', '.join(missing)} must be on PYTHONPATH, too"
    return words


def _targets(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the places of `_target_` in plain data, and what it names there."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{path}[{index}]")


def _check_plain(config: Any) -> None:
    """Refuses references, and anything but tables, lists, texts and numbers."""
    pending: list[Any] = [config]
    for _ in range(_MAX_NODES):
        if not pending:
            return
        node = pending.pop()
        if isinstance(node, dict):
            pending += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            pending += node
        elif not isinstance(node, _PLAIN):
            raise ValueError(f"it holds a {type(node).__name__}")
        elif isinstance(node, str) and "${" in node:
            raise ValueError(f"it holds the reference {node[:60]}, but all should be filled in")
    raise ValueError(f"it holds more than {_MAX_NODES:,} values")
