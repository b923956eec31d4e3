"""Formats of OpenStreetMap files, found by content and not by name.

What osmium cannot unpack is unpacked here, and what is no map is refused in plain words.

References
----------
https://wiki.openstreetmap.org/wiki/OSM_file_formats, https://osmcode.org/file-formats-manual
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import mmap
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import osmium

from citygrain.errors import SourceError

SUFFIXES = (
    ".osm.pbf", ".pbf", ".osm", ".osm.gz", ".osm.bz2", ".osm.xml", ".osm.xml.gz", ".osm.xml.bz2", ".o5m", ".opl",
)  # fmt: skip
"""What the name of a file may end in."""

HISTORIES = (".osh", ".osh.pbf", ".osh.gz", ".osh.bz2")
CHANGES = (".osc", ".osc.gz", ".osc.bz2")
"""What the names of histories and of files of changes end in: such files are refused by name."""

NEXT_STREAM = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
"""First bytes of a stream of bzip2: its header, and the start of its first block or, of an empty stream, its end."""

NODES_WAYS_RELATIONS = osmium.osm.NODE | osmium.osm.WAY | osmium.osm.RELATION

PACKED: dict[bytes, str] = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}

STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\xfd7zXZ", "packed by xz", "unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it: unzstd"),
    (b"SQLite format 3", "an sqlite database", "vector tiles (.mbtiles) are read by source=vectortiles"),
)
"""First bytes of files that are something else, what they are, and what to do with them."""


def find_kind(path: Path) -> str:
    """Return the format of a file, by its content, as osmium calls it: `pbf`, `osm`, `osm.gz`, `o5m`, `opl` and so on.

    Raises
    ------
    SourceError
        When it is no OpenStreetMap data.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    packed = next((suffix for magic, suffix in PACKED.items() if head.startswith(magic)), "")
    if packed:
        with open_unpacked(path, packed) as file:
            head = file.read(4096)
    for magic, what, remedy in STRANGERS:
        if head.startswith(magic):
            raise stranger_error(path, what, remedy)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[4:15] == b"\n\x09OSMHeader":
        if packed:
            raise stranger_error(path, f"an .osm.pbf packed once more as {packed}", "unpack it")
        return "pbf"
    if head.startswith(b"\xff\xe0\x04o5m2"):
        return f"o5m{packed}"
    if head.startswith(b"\xff\xe0\x04o5c2"):
        raise changes_error(path)
    if text.startswith(b"<") or head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return f"osm{packed}"
    if text[:1] in (b"{", b"["):
        if b'"osm3s"' in head or b'"elements"' in head:
            raise stranger_error(
                path, "a reply of Overpass in JSON", "source=overpass_json reads such replies, named .json"
            )
        raise stranger_error(path, "JSON", "export the map as .osm or .osm.pbf")
    if re.match(rb"[nwrc]-?\d+[ \n]", text):
        return f"opl{packed}"
    raise damaged_error(path, f"first bytes {head[:12]!r}")


def open_file(path: Path) -> osmium.io.File:
    """Open a file for osmium, by its content and not by its name."""
    return osmium.io.File(str(path), find_kind(path))


def has_locations(header: osmium.io.Header) -> bool:
    """Tell whether the ways of an .osm.pbf hold the locations of their nodes (`osmium add-locations-to-ways`)."""
    features = (header.get(f"pbf_optional_feature_{i}") for i in range(16))
    return "LocationsOnWays" in features


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn the errors of osmium and of the parsers into a `SourceError`."""
    try:
        yield
    # ValueError: a number, time or text that is none. EOFError: packed and cut.
    except (RuntimeError, ValueError, osmium.InvalidLocationError, expat.ExpatError, zlib.error, EOFError) as error:
        if "No space left" in str(error):
            raise no_room_error(path, error) from error
        raise damaged_error(path, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room_error(path, error) from error
        if error.errno is not None:
            raise
        raise damaged_error(path, error) from error  # gzip and bz2 say so of bytes that are none of theirs


def changes_error(path: Path) -> SourceError:
    """Return the error of a file of changes."""
    return stranger_error(
        path,
        "a file of changes (osmChange), not the map that they change",
        f"osmium apply-changes map.osm.pbf {path.name} -o new.osm.pbf (package osmium-tool), and read new.osm.pbf",
    )


def no_room_error(path: Path, error: object) -> SourceError:
    """Return the error of a copy that finds no room on the disk."""
    return SourceError(
        f"There is no room for a sorted or unpacked copy of {path}.",
        got=error,
        remedy="free some space, or name another folder for temporary files: TMPDIR=…",
    )


def stranger_error(path: Path, what: str, remedy: str) -> SourceError:
    """Return the error of a file that is something else: say what, and what to do with it."""
    return SourceError(
        f"{path} is no OpenStreetMap extract, whatever its name says.",
        expected="OpenStreetMap data as .osm.pbf, .osm (packed by gzip or bzip2, or not), .o5m or .opl",
        got=what,
        remedy=remedy,
    )


def damaged_error(path: Path, error: object) -> SourceError:
    """Return the error of a file that cannot be read."""
    return SourceError(
        f"{path} is damaged, cut short, or no OpenStreetMap extract.",
        expected="OpenStreetMap data as .osm.pbf, .osm (packed by gzip or bzip2, or not), .o5m or .opl",
        got=error,
        remedy="download it again, and compare its size and hash with what the server says",
    )


@contextlib.contextmanager
def open_unpacked(path: Path, packed: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked."""
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(packed, open)
    with opener(path, "rb") as file:
        yield file


@contextlib.contextmanager
def unpack_streams(path: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Give the path and format of a file with the same content that osmium reads to its end: the file, or a copy.

    Programs that pack on several cores write one stream after another, and osmium stops at the end of the first.
    """
    if not kind.endswith(".bz2") or not _has_streams(path):
        yield path, kind
        return
    with unpack_copy(path, kind) as plain:
        yield plain


@contextlib.contextmanager
def unpack_copy(path: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Give the path and format of a file with the same content that is not packed: the file itself, or a copy."""
    plain, _, packed = kind.partition(".")
    if not packed:
        yield path, kind
        return
    with tempfile.TemporaryDirectory(prefix="citygrain-") as folder:
        copy = Path(folder) / "unpacked"
        with open_unpacked(path, f".{packed}") as content, copy.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        yield copy, plain


def _has_streams(path: Path) -> bool:
    """Tell whether a file packed by bzip2 holds several streams; each begins at a whole byte."""
    with map_content(path) as content:
        return NEXT_STREAM.search(content, 1) is not None


@contextlib.contextmanager
def map_content(path: Path) -> Iterator[Any]:
    """Give the content of a file; only what is looked at is read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content
