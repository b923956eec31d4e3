"""Typed options: a verb parses its composed configuration into a dataclass before it calls the library."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from citygrain.errors import ConfigError

T = TypeVar("T")

KINDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a group of keys",
    tuple: "a list, such as [a,b]",
    Sequence: "a list, such as [a,b]",
    type(None): "null",
}
"""Type → what a configuration gives for it, in words."""


@dataclass(frozen=True)
class Paths:
    """The folders of a configuration."""

    data: Path
    runs: Path | None = None


def parse(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Build a dataclass of options from a plain mapping.

    The type of a field decides: a mapping becomes a dataclass, a list becomes a tuple, and a text becomes a `Path`.
    Where text is expected, a number becomes text. All other values stay as they are. Keys that are not fields are
    ignored.

    Parameters
    ----------
    kind
        The dataclass. `plain` must have every field that has no default.
    plain
        Plain dicts, lists and values, as `citygrain.support.config.load_config` returns them.

    Raises
    ------
    ConfigError
        For a value of another type than its field.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     n: int
    ...     out: Path = Path("out")
    >>> parse(Options, {"n": 4, "out": "mine", "threads": None})
    Options(n=4, out=PosixPath('mine'))
    """
    return _parse(kind, plain, "")


def _parse(kind: type[T], plain: Mapping[str, Any], path: str) -> T:
    hints = typing.get_type_hints(kind)
    given = {
        f.name: _parse_value(hints[f.name], plain[f.name], f"{path}{f.name}")
        for f in fields(kind)  # type: ignore[arg-type]
        if f.name in plain
    }
    return kind(**given)


def _parse_value(hint: Any, value: Any, path: str) -> Any:
    union = typing.get_origin(hint) in {typing.Union, types.UnionType}
    kinds = typing.get_args(hint) if union else (hint,)
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if isinstance(value, Mapping) and is_dataclass(kind) and isinstance(kind, type):
            return _parse(kind, value, f"{path}.")
        if isinstance(value, list | tuple) and origin in {tuple, Sequence}:
            return tuple(map(_read_text, value)) if str in typing.get_args(kind) else tuple(value)
        if isinstance(value, Mapping) and origin in {dict, Mapping}:
            return value
        if (value is None and kind is type(None)) or kind is Any:
            return value
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        if kind in {str, Path} and type(value) in {str, int, float}:
            return kind(str(value))
        if origin is typing.Literal and isinstance(value, str):
            return value  # which texts there are, the library says
    raise ConfigError(
        f"{path} is not of the right kind.", expected=" or ".join(map(_describe_kind, kinds)), got=repr(value)
    )


def _read_text(value: Any) -> Any:
    return str(value) if type(value) in {int, float} else value


def _describe_kind(kind: Any) -> str:
    """Say in words what a configuration may give for a type."""
    origin = typing.get_origin(kind) or kind
    return KINDS.get(origin, KINDS[str] if origin in {Path, typing.Literal} else KINDS[dict])
