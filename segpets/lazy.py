"""Imports that take long, when they are needed."""

import gc
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def imported(name: str) -> ModuleType:
    """Imports a module and what it needs while the garbage collector rests.

    Modules are no garbage: to look through those of torch and Lightning takes half a second.
    """
    if name in sys.modules or not gc.isenabled():
        return import_module(name)
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.enable()
        gc.freeze()  # nor will they be later


def lazily(package: str, module: str, names: Sequence[str]) -> Callable[[str], Any]:
    """Makes a package's `__getattr__`, which takes some names from one of its modules.

    A command's recipe imports torch, which takes seconds; `--help` and typos are answered without.
    """

    def attribute(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute
