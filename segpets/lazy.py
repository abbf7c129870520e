"""Names of a package that are imported when they are asked for."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def lazily(package: str, module: str, names: Sequence[str]) -> Callable[[str], Any]:
    """Makes a package's `__getattr__`, which takes some names from one of its modules.

    A command's recipe imports torch, which takes seconds; `--help` and typos are answered without.
    """

    def attribute(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute
