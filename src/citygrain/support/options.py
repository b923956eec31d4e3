"""From a composed configuration to typed options: the one step that a verb takes before it calls the library."""

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
    """Folders that every verb may have."""

    data: Path
    runs: Path | None = None


def parse(kind: type[T], plain: Mapping[str, Any]) -> T:
    """Build a dataclass of options from a plain mapping.

    A mapping becomes the dataclass that its field asks for, a list a tuple, a text a `Path` where the field is one.
    Values that a field describes in no such way stay as they are. Keys that no field has are somebody else's.

    Parameters
    ----------
    kind
        A dataclass. A field without a default is taken from `plain`, where it must be.
    plain
        Plain dicts, lists and values, as `citygrain.support.config.load_config` returns.

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
    given = {f.name: _parsed(hints[f.name], plain[f.name]) for f in fields(kind) if f.name in plain}  # type: ignore[arg-type]
    return kind(**given)


def _parsed(hint: Any, value: Any) -> Any:
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
