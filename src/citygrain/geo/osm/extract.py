"""A first look over an OpenStreetMap file: its format, what it covers, and whether it is tidy.

osmium puts lines and areas together in one pass, and so needs a tidy file: nodes, then ways, then relations, each kind
by rising number, each object once, nodes with their locations. Extract servers write such files. Others do not:
Overpass writes in the order of the query, and an object twice when two sets hold it. Editors write new objects with
negative numbers and keep what was deleted, marked as such. Some tools put the locations into the ways and drop the
nodes. So each file is looked over once before it is read, and of an untidy file a tidy copy is made.

References
----------
https://wiki.openstreetmap.org/wiki/OSM_XML, https://wiki.openstreetmap.org/wiki/JOSM_file_format,
https://osmcode.org/file-formats-manual
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import osmium
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.errors import SourceError
from citygrain.geo.osm.coverage import find_covered, find_missed
from citygrain.geo.osm.formats import (
    HISTORIES,
    NODES_WAYS_RELATIONS,
    find_kind,
    has_locations,
    translate_errors,
    unpack_streams,
)
from citygrain.geo.osm.markup import Markup
from citygrain.geo.osm.tidy import write_tidy_copy

MAX_UNTIDY = 5_000_000
"""Objects of the largest file of which a tidy copy is made: some 100 bytes of memory and 20 µs each."""

SAMPLE = 1 << 16
"""Where the data lie is told by at least this many of its nodes, evenly spread over the file, or by all of them."""


@dataclass(frozen=True)
class Extract:
    """What a look over an OpenStreetMap file has found.

    Parameters
    ----------
    path
        The file.
    kind
        The format of its content, as osmium calls it.
    covered
        What it covers, in degrees: boxes.
    date
        When the whole of it was true, ISO 8601, where the file says so.
    objects
        Number of nodes, ways and relations.
    tidy
        Whether osmium can read it in one pass.
    deleted
        `n`, `w` or `r` → numbers of the objects that an editor has deleted.
    """

    path: Path
    kind: str
    covered: BaseGeometry
    date: str | None
    objects: int
    tidy: bool
    deleted: dict[str, set[int]]

    @contextlib.contextmanager
    def open_tidy(self) -> Iterator[Path]:
        """Give the path of a tidy file with the same objects: the file itself, or a copy that is removed afterwards.

        Raises
        ------
        SourceError
            When the file is untidy and too large for a copy.
        """
        if self.tidy:
            with translate_errors(self.path), unpack_streams(self.path, self.kind) as (path, _):
                yield path
            return
        if self.objects > MAX_UNTIDY:
            raise SourceError(
                f"{self.path} is not sorted by type and number, or holds objects twice, and is too large to sort here.",
                expected=f"at most {MAX_UNTIDY:,} objects in such a file",
                got=f"{self.objects:,}",
                remedy=f"osmium sort {self.path.name} -o sorted.osm.pbf (package osmium-tool)",
            )
        with tempfile.TemporaryDirectory(prefix="citygrain-") as folder:
            yield write_tidy_copy(self.path, self.kind, self.deleted, Path(folder))


def look_over(path: Path) -> Extract:
    """Look over a file once: its format, what it covers, and whether it is tidy.

    Raises
    ------
    SourceError
        When it is another kind of file, or holds changes, a history or no data.
    """
    stat = path.stat()
    return _look_over(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _look_over(path: Path, _changed_ns: int, _size: int) -> Extract:
    """Look over a file. The result is kept: one command asks for the extent and then for the features."""
    with translate_errors(path):
        kind = find_kind(path)
        markup = Markup.of(path, kind) if kind.startswith("osm") else Markup()
        with unpack_streams(path, kind) as (whole, whole_kind):
            file = osmium.io.File(str(whole), whole_kind)
            header = osmium.FileProcessor(file).header
            if header.has_multiple_object_versions or path.name.lower().endswith(HISTORIES):
                raise SourceError(
                    f"{path} is a history: it holds every version of its objects.",
                    expected="the objects of one day",
                    remedy=f"osmium time-filter {path.name} 2024-01-01T00:00:00Z -o that_day.osm.pbf "
                    "(package osmium-tool)",
                )
            located = markup.located or has_locations(header) or kind.startswith("opl")
            things: Iterator[Any] = iter(osmium.FileProcessor(file, NODES_WAYS_RELATIONS))
            count = _Count.of(things, located)
            box = header.box()
            boxes = markup.boxes
            if not boxes and box.valid():
                boxes = [(box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)]
            lonlat = count.lonlat
            if count.step > 1 and len(boxes) > 1:
                nodes: Iterator[Any] = iter(osmium.FileProcessor(file, osmium.osm.NODE))
                lonlat = np.concatenate([lonlat, find_missed(boxes, lonlat, nodes)])
    if not len(count.lonlat):
        raise SourceError(
            f"{path} holds no nodes{'' if count.objects else ', nor anything else'}: nothing in it has a place.",
            got=f"{count.objects:,} objects",
            remedy="download it again; Overpass adds the nodes of ways with `(._;>;);` before `out`",
        )
    return Extract(
        path=path,
        kind=kind,
        covered=find_covered(boxes, lonlat),
        date=header.get("osmosis_replication_timestamp") or markup.date,
        objects=count.objects,
        # Only .osm.pbf says in its header that all its ways hold their locations; elsewhere some may.
        tidy=count.tidy and not any(markup.deleted.values()) and (not located or kind == "pbf"),
        deleted=markup.deleted,
    )


@dataclass
class _Count:
    """What is counted while a file goes by."""

    objects: int = 0
    tidy: bool = True
    lonlat: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    """Longitudes and latitudes of some of the nodes, `(n, 2)`."""
    step: int = 1
    """One of every `step` nodes is among them."""

    @classmethod
    def of(cls, things: Iterator[Any], located: bool) -> _Count:
        """Count nodes, ways and relations; `located` when ways hold the locations of their nodes."""
        xy: list[tuple[int, int]] = []
        objects, seen, step = 0, 0, 1
        tidy = True
        rank, number = 0, 0
        for thing in things:  # a million a second: nothing in this loop is called that need not be
            objects += 1
            before, rank = rank, 0 if thing.is_node() else 1 if thing.is_way() else 2
            last, number = number if rank == before else 0, thing.id
            if rank < before or number <= last or not thing.visible:
                tidy = False
            if rank == 0:
                seen += 1
                if seen % step == 0:
                    location = thing.location
                    if location.valid():
                        xy.append((location.x, location.y))
            elif located and rank == 1:
                xy += [(node.x, node.y) for node in thing.nodes if node.location.valid()]
            if len(xy) > 2 * SAMPLE:
                del xy[::2]
                step *= 2
        return cls(objects, tidy, np.array(xy, dtype=np.float64).reshape(-1, 2) / 1e7, step)
