"""Typed options: a verb parses its composed configuration into a dataclass before it calls the library."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Paths:
    """The folders of a configuration."""

    data: Path
    runs: Path | None = None


def parse(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Build a dataclass of options from a plain mapping.

    The type of a field decides: a mapping becomes a dataclass, a list becomes a tuple, and a text becomes a `Path`. All
    other values stay as they are. Keys that are not fields are ignored.

    Parameters
    ----------
    kind
        The dataclass. `plain` must have every field that has no default.
    plain
        Plain dicts, lists and values, as `citygrain.support.config.load_config` returns them.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     n: int
    ...     out: Path = Path("out")
    >>> parse(Options, {"n": 4, "out": "mine", "threads": None})
    Options(n=4, out=PosixPath('mine'))
    """
    hints = typing.get_type_hints(kind)
    given = {f.name: _parse_value(hints[f.name], plain[f.name]) for f in fields(kind) if f.name in plain}  # type: ignore[arg-type]
    return kind(**given)


def _parse_value(hint: Any, value: Any) -> Any:
    union = typing.get_origin(hint) in {typing.Union, types.UnionType}
    for kind in typing.get_args(hint) if union else (hint,):
        origin = typing.get_origin(kind) or kind
        if isinstance(value, Mapping) and is_dataclass(kind) and isinstance(kind, type):
            return parse(kind, value)
        if isinstance(value, list) and origin is tuple:
            return tuple(value)
        if isinstance(value, str) and kind is Path:
            return Path(value)
    return value
