"""Files that appear whole or not at all, plain values for JSON, and fingerprints of files."""

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
def write_atomically(path: Path) -> Iterator[Path]:
    """Write a file so that it appears whole or not at all.

    The block gets a temporary path beside `path` and writes there. At the end, the temporary file replaces `path`. If
    the block fails, the temporary file is removed.

    Raises
    ------
    DataError
        When the file system refuses: the disk is full, or the folder is not writable. The old file is still there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="free some space or choose a writable folder; what was there before is untouched",
        ) from error
    finally:
        with suppress(OSError):  # the file has been moved, or its folder could not be made
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write the plain form of a value (see `to_plain`) as JSON, atomically."""
    write_text(path, json.dumps(to_plain(value), indent=1, ensure_ascii=False) + "\n")


def to_plain(value: Any) -> Any:
    """Turn a value into one that JSON can store: dicts, lists, texts, booleans, numbers and None.

    A dataclass becomes a dict of its fields, a tuple becomes a list, and a number of numpy becomes one of Python. NaN
    and ∞, which JSON does not have, become None. Anything else, such as a path, becomes its text.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def hash_file(path: Path) -> str:
    """Return the SHA-256 fingerprint of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
