"""What identifies a source, so that the same request is not done twice and a changed one is noticed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from citygrain.geo.sources import Source
from citygrain.geo.sources.files import list_paths
from citygrain.support.files import hash_file


def identify_source(source: Source) -> dict[str, Any]:
    """Return what identifies a source: a server's url, or its files' names and content, wherever they lie.

    A source that can be told to read the same file otherwise has a method `identity`, which returns the rest as plain
    JSON.
    """
    made: dict[str, Any] = {"kind": type(source).__name__}
    if hasattr(source, "url"):
        made["url"] = source.url
    if hasattr(source, "path"):
        paths = list_paths(source.path)
        names, prints = [path.name for path in paths], [fingerprint(path) for path in paths if path.exists()]
        several = len(paths) > 1
        made["path"] = names if several else names[0]
        if prints:
            made["sha256"] = prints if several else prints[0]
    if hasattr(source, "identity"):
        made |= source.identity()
    return made


def fingerprint(path: Path) -> str:
    """Return the hash of a file and of the files that belong to it: all of a folder, the parts of a Shapefile."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.suffix.lower() == ".shp":
        files = sorted(
            file
            for file in path.parent.glob(f"{path.stem}.*")
            if file.suffix.lower() in {".shp", ".dbf", ".prj", ".cpg"}
        )
    else:
        return hash_file(path)
    return hashlib.sha256("".join(f"{file.name} {hash_file(file)}\n" for file in files).encode()).hexdigest()
