"""Types and ranges of keys, written beside what uses them and checked by pydantic.

A command's settings are a `Settings`; a component's constructor is decorated with `checked`. Both
turn pydantic's errors into a sentence with the key, its value, and what is allowed.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, validate_call
from pydantic.fields import FieldInfo

from segpets.errors import UserError, did_you_mean

P = ParamSpec("P")
T = TypeVar("T")

Natural = Annotated[int, Field(ge=0)]
"""A whole number of at least 0."""

Positive = Annotated[int, Field(ge=1)]
"""A whole number of at least 1."""

Weights = Annotated[
    Sequence[Annotated[float, Field(gt=0, allow_inf_nan=False)]],
    Field(examples=["decide=[1.3,1,1.6], as segpets.evaluate decide=iou finds them"]),
]
"""Decision weights of the classes."""


class Settings(BaseModel):
    """The keys of a command, each with its type and range; other keys are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """Checks a command's config.

        Raises:
            UserError: A value is of another type, or out of range.
        """
        fields = cls.model_fields.items()  # a config of before has none of the later ones
        plain = {key: _plain(cfg[key]) for key, f in fields if f.is_required() or key in cfg}
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise _in_words(error, get_type_hints(cls, include_extras=True), "") from error


def checked(prefix: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Checks the arguments of a constructor by their annotations.

    Args:
        prefix: The config group, such as `data`, that errors name before a key.
    """

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        config = ConfigDict(strict=True, arbitrary_types_allowed=True)
        validated = validate_call(config=config)(function)

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return validated(*args, **kwargs)
            except ValidationError as error:
                hints = get_type_hints(function, include_extras=True)
                raise _in_words(error, hints, f"{prefix}.") from error

        call.__wrapped__ = function  # type: ignore[attr-defined]  # for inspect.signature
        call.__doc__ = function.__doc__
        return call

    return decorated


def table(node: DictConfig) -> dict[str, Any]:
    """Turns a table of a config into plain data, with its references filled in."""
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _in_words(error: ValidationError, hints: Mapping[str, Any], prefix: str) -> Exception:
    """Makes one sentence of the first of pydantic's errors."""
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in hints or first["type"].startswith(("missing", "unexpected")):
        return TypeError(f"{prefix}{name}: {first['msg'].lower()}")
    place = [part for part in first["loc"][1:] if isinstance(part, str | int)]
    value, hint = first["input"], hints[name]
    if get_origin(hint) is dict:  # of tables of keys, by a name
        name, hint = f"{name}.{place.pop(0)}", get_args(hint)[1]
    if isinstance(hint, type) and issubclass(hint, BaseModel):  # a table of keys
        inner = get_type_hints(hint, include_extras=True)
        name, hint = f"{name}.{place[0]}", inner.get(str(place[0]), hint)
    elif place and isinstance(place[0], int) and first["type"] == "literal_error":
        hint = get_args(_bare(hint))[0]
    elif place and isinstance(place[0], int):
        value = f"[{', '.join(['...'] * place[0] + [str(value)])}]"
    choices = _choices(hint)
    if choices and not (place and isinstance(place[0], str)):
        hint = did_you_mean(str(value), map(str, choices), f"{prefix}{name}=", 0.7)
        listed = " or ".join(filter(None, [", ".join(map(str, choices[:-1])), str(choices[-1])]))
        said = f".{hint} Available: {listed}" if hint else f": choose {listed}"
        return UserError(f"{prefix}{name}={value} is unknown{said}")
    return UserError(f"{prefix}{name}={value} must be {_allowed(hint)}")


def _bare(hint: Any) -> Any:
    """Takes off what annotates a type, and None beside it."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return _bare(parts[0]) if len(parts) == 1 else hint
    return hint


def _choices(hint: Any) -> list[Any]:
    """Lists the words that a key may have, where these are all."""
    bare = _bare(hint)
    return list(get_args(bare)) if get_origin(bare) is Literal else []


def _allowed(hint: Any) -> str:
    """Describes a type with its range: `a whole number of at least 1, or null`."""
    if get_origin(hint) is Annotated:
        base, *notes = get_args(hint)
        field = next((note for note in notes if isinstance(note, FieldInfo)), FieldInfo())
        example = f", such as {field.examples[0]}" if field.examples else ""
        return f"{_allowed(base)}{_range(field)}{example}"
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = ["null" if part is type(None) else _allowed(part) for part in parts]
        if int in parts and float in parts:
            words.remove("a whole number")
        return " or ".join(filter(None, [" or ".join(words[:-2]), ", or ".join(words[-2:])]))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        plain = parts and get_origin(parts[0]) not in (Union, types.UnionType)
        return f"a list of {_plural(_allowed(parts[0]))}" if plain else "a list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(hint, str(getattr(hint, "__name__", hint)))


def _plural(words: str) -> str:
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers")):
        words = words.replace(one, many)
    return words.replace("a text", "texts")


def _range(field: FieldInfo) -> str:
    bounds = {
        name: getattr(note, name)
        for note in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(note, name)
    }
    if "ge" in bounds and "le" in bounds:
        return f" from {bounds['ge']} to {bounds['le']}"
    if "gt" in bounds and "le" in bounds:
        return f" above {bounds['gt']} and at most {bounds['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    return "".join(f" {words[name]} {bound}" for name, bound in bounds.items())
