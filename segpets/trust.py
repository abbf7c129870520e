"""What a stored config may make: only what segpets' own configs, or the user, name.

A run directory may come from anyone. Its config says by `_target_` which classes are called with
which arguments, so a hostile one could start programs. Prefixes of packages are no protection:
`torch.utils.collect_env.run` starts a shell.
"""

import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from segpets.errors import FileError, UserError

_MAX_BYTES: Final = 1_000_000
_MAX_NODES: Final = 20_000  # aliases of aliases make a small file endless
_CLASS: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_MOST, _SHOWN = 20, 120  # classes in a message, and letters of each
_PLAIN: Final = (str, int, float, bool, type(None))


def named_targets(folders: Iterable[Path]) -> frozenset[str]:
    """The classes and functions that the YAML files in some folders name by `_target_`.

    Raises:
        UserError: One is no folder.
    """
    found: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder with configs")
        for file in folder.rglob("*.yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            found |= targets_of(content)
    return frozenset(found)


def targets_of(config: Any) -> frozenset[str]:
    """The classes and functions that plain data name by `_target_`."""
    return frozenset(target for _, target in _targets(config) if isinstance(target, str))


def read_config(file: Path, *, allowed: frozenset[str]) -> dict[str, Any]:
    """Reads a run's resolved config as plain data, and refuses what it must not hold.

    Args:
        file: The YAML file.
        allowed: The names that may follow `_target_`.

    Raises:
        FileError: It isn't there, is damaged or too large, holds references, or no table.
        UserError: It names another class or function than those allowed.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
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
    refuse_foreign(config, allowed=allowed, where=str(file))
    return config


def refuse_foreign(config: Any, *, allowed: frozenset[str], where: str) -> None:
    """Refuses plain data that would make anything else than is allowed.

    Raises:
        UserError: It would; the message names all that it would make, and what allows it.
    """
    foreign = {
        key or "it": target
        for key, target in _targets(config)
        if not isinstance(target, str) or target not in allowed
    }
    if foreign:
        # What a file holds may be long, or steer the terminal.
        lines = [f"{repr(k)[1:-1]} would call {repr(t)[:_SHOWN]}" for k, t in foreign.items()]
        more = f" and {len(lines) - _MOST} more" if lines[_MOST:] else ""
        named = ", ".join(lines[:_MOST]) + more
        raise UserError(
            f"{where}: {named}, which is none of the classes that segpets' configs name, so "
            f"nothing of it is used. {_remedy(foreign.values())}"
        )


def _remedy(targets: Iterable[Any]) -> str:
    """How to allow classes of the user's own; a program of Python's own library is none."""
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
    """Where `_target_` stands in plain data, and what it names."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{path}[{index}]")


def _check_plain(config: Any) -> None:
    """Refuses anything but tables, lists, texts and numbers, and what refers to something else."""
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


def listed(allow: Sequence[str] | str | None) -> list[str]:
    """What `allow` names: one class stands for a list of one, and nothing for an empty one."""
    return [allow] if isinstance(allow, str) else list(allow or [])


def allowed_targets(folders: Sequence[Path], allow: Sequence[str] | None) -> frozenset[str]:
    """What a stored config may name: what the YAML files in `folders` do, and what the user adds.

    Raises:
        UserError: `allow` is no list of names.
    """
    words = listed(allow)
    if not all(isinstance(word, str) and word for word in words):
        raise UserError(f"allow={allow} is no list of classes, such as allow=[my_nets.Tiny]")
    return named_targets(folders) | set(words)
