"""Files that appear whole or not at all, and their fingerprints."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citygrain.errors import DataError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Hand out a temporary path beside `path`; it takes `path`'s place when the block ends well, else it is removed.

    Raises
    ------
    DataError
        When the file system refuses: a full disk, a folder that may not be written. What was at `path` is still there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="free some space or choose a folder that may be written; what was there before is untouched",
        ) from error
    finally:
        with suppress(OSError):  # it is gone, or its folder never was one
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write what `plain` makes of a value as JSON, atomically."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Return a value as JSON gives it back: dicts, lists, texts, booleans, numbers, and None for what is no number.

    A dataclass becomes a dict of its fields, a tuple a list, a number of numpy one of Python, and NaN and ∞, which JSON
    does not know, become None. Anything else becomes its text, such as a path.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def sha256(path: Path) -> str:
    """Fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
