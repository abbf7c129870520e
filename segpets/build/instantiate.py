"""Makes an object from its config, with errors in words where that fails."""

import re
from collections.abc import Iterator
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from segpets.errors import UserError


def build(node: Any, key: str, **kwargs: Any) -> Any:
    """Makes the object that a config describes.

    Raises:
        UserError: Its constructor refuses the config.
    """
    try:
        return instantiate(node, _convert_="all", **kwargs)
    except InstantiationException as error:
        cause: BaseException = error
        while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, ImportError):
            told = [str(e) for e in _chain(error)]
            located = [m[1] for t in told if (m := re.search(r"locating target '(.+?)'", t))]
            if located:
                raise UserError(f"{key}: {_not_imported(cause, located[-1])}") from error
        said = str(cause)  # which may name the key itself
        raise UserError(said if said.startswith(f"{key}.") else f"{key}: {said}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception, and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__


def _not_imported(error: ImportError, target: str) -> str:
    """Says why the class of a config can't be imported, and what to do about it."""
    *_, cause = _chain(error)
    missing = getattr(cause, "name", None)
    module = target.partition(".")[0]
    if not isinstance(cause, ModuleNotFoundError) or not missing:
        return f"{target} can't be imported ({cause})"
    if missing == module:
        return (
            f"{target} can't be imported, since Python finds no module {module}. The folder with "
            f"{module}.py must be on PYTHONPATH: PYTHONPATH=FOLDER python -m segpets.train ..."
        )
    if target.startswith(f"{missing}."):
        return f"{target} can't be imported, since there is no module {missing}"
    if missing == target:
        file, _, name = target.rpartition(".")
        return f"{target} can't be imported, since the module {file} has no {name}"
    return f"{target} can't be imported, since it imports {missing}, which isn't installed"
