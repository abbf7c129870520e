"""The classes that a stored config may name, and where: those of segpets' configs, and the user's.

A run directory may come from anyone. Its config says by `_target_` which classes are called with
which arguments, so a hostile one could start programs. Prefixes of packages are no protection:
`torch.utils.collect_env.run` starts a shell. Nor is one list of names: a logger in the place of the
model would open what its arguments name. So each place has a list of its own.
"""

import functools
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from segpets.errors import UserError
from segpets.paths import conf_dir
from segpets.reading import read_yaml

PLACES: Final = (
    *("data", "augment", "model", "loss", "optimizer", "scheduler"),
    *("trainer", "callback", "logger"),
)
"""The keys of a config below which classes may be named."""

_CLASS: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_MOST, _LONGEST = 20, 120  # classes in a message, and letters of each
_LARGEST_CONFIG: Final = 1_000_000

Named = Mapping[str, frozenset[str]]
"""Classes by place."""


@dataclass(frozen=True)
class Trust:
    """Whom the user trusts, beside segpets' own configs.

    Attributes:
        folders: Folders with configs of the user's own; what they name is allowed where they name
            it.
        allow: Classes of the user's own, allowed wherever a class may be named.
        own: Classes by place that the command itself names.
    """

    folders: tuple[Path, ...] = ()
    allow: tuple[str, ...] = ()
    own: tuple[tuple[str, str], ...] = ()

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
        """Trusts what a config names, too, where it names it."""
        pairs = {(_place(key), t) for key, t in _targets(config) if isinstance(t, str)}
        return replace(self, own=(*self.own, *sorted(pairs)))

    def allows(self, place: str, target: str) -> bool:
        """Tells whether a class may be named below a key of `PLACES`.

        Raises:
            UserError: One of `folders` isn't a folder.
        """
        if place not in PLACES:
            return False
        if target in self.allow or (place, target) in self.own:
            return True
        folders = (conf_dir(), *self.folders)
        return any(target in _named(folder).get(place, ()) for folder in folders)

    def check(self, config: Any, *, where: str) -> None:
        """Refuses plain data that would make anything that isn't allowed.

        Raises:
            UserError: It would; the message names all that it would make, and what allows it.
        """
        foreign = {
            key or "it": target
            for key, target in _targets(config)
            if not isinstance(target, str) or not self.allows(_place(key), target)
        }
        if not foreign:
            return
        # A file's content may be long, or control the terminal.
        lines = [f"{repr(k)[1:-1]} would call {repr(t)[:_LONGEST]}" for k, t in foreign.items()]
        more = f" and {len(lines) - _MOST} more" if lines[_MOST:] else ""
        raise UserError(
            f"{where}: {', '.join(lines[:_MOST])}{more}, which is none of the classes that "
            f"segpets' configs name there, so nothing of it is used. {_remedy(foreign)}"
        )


def _place(key: str) -> str:
    """The first part of a key such as `callback.ema` or `data[0].x`."""
    return re.split(r"[.\[]", key, maxsplit=1)[0]


@functools.cache
def _named(folder: Path) -> Named:
    """Collects the classes that the YAML files in a folder name, by the place where they do."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder with configs")
    places: dict[str, set[str]] = {place: set() for place in PLACES}
    for file in folder.rglob("*.yaml"):
        try:
            content = read_yaml(file, _LARGEST_CONFIG)
        except (OSError, ValueError):
            continue  # Hydra says what is wrong with it, if it is used
        group = file.relative_to(folder).parts[0]
        for key, target in _targets(content):
            # A file of a group stands below it; an experiment says where by its keys.
            place = group if group in places else _place(key)
            if place in places and isinstance(target, str):
                places[place].add(target)
    return {place: frozenset(names) for place, names in places.items()}


def _remedy(foreign: Mapping[str, Any]) -> str:
    """Says how to allow the user's own classes, which programs of Python's own library are not."""
    named = [t for key, t in foreign.items() if isinstance(t, str) and _place(key) in PLACES]
    own = [
        target
        for target in dict.fromkeys(named)
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
