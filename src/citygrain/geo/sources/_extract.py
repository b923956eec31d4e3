"""What an OpenStreetMap file is, whatever its name says, what it covers, and a tidy copy where it is untidy.

osmium puts lines and areas together in one pass, and so relies on a tidy file: nodes, then ways, then relations, each
kind by rising number, each object once, nodes with their locations. Extract servers write such files. Overpass writes
in the order of the query, and an object twice when two sets hold it; editors write new objects with negative numbers
and keep what was deleted, marked as such; some tools put the locations into the ways and drop the nodes. So each file
is looked over once before it is read, and of an untidy one a tidy copy is made.

References
----------
https://wiki.openstreetmap.org/wiki/OSM_XML, https://wiki.openstreetmap.org/wiki/JOSM_file_format,
https://osmcode.org/file-formats-manual
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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import numpy as np
import osmium
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.errors import SourceError

SUFFIXES = (
    ".osm.pbf", ".pbf", ".osm", ".osm.gz", ".osm.bz2", ".osm.xml", ".osm.xml.gz", ".osm.xml.bz2", ".o5m", ".opl",
)  # fmt: skip
"""What the name of a file may end in."""

HISTORIES = (".osh", ".osh.pbf", ".osh.gz", ".osh.bz2")
CHANGES = (".osc", ".osc.gz", ".osc.bz2")
"""Names of files that are told what they are."""

MAX_UNTIDY = 5_000_000
"""Objects of the largest file of which a tidy copy is made: some 100 bytes of memory and 20 µs each."""

FAR_LARGER = 10.0
"""A header's box with this many times the area in which the nodes lie is that of the file it was filtered from."""

FEW_NODES, CITY_DEG = 1000, 1.0
"""So few nodes may well lie in a corner of a true box, if that is no wider than a city."""

CELLS = 32
"""A box wider than a city is cut into so many cells a side, to see whether the data fill it."""

SAMPLE = 1 << 16
"""Nodes, at least, that tell where a file's data lie; half as many again at most twice as sparsely."""

NEXT_STREAM = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
"""First bytes of a stream of bzip2 and of its first block, or of the end of one that is empty."""

PACKED: dict[bytes, str] = {b"\x1f\x8b": ".gz", b"BZh": ".bz2"}

STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\xfd7zXZ", "packed by xz", "unpack it: unxz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it: unzstd"),
    (b"SQLite format 3", "an sqlite database", "vector tiles (.mbtiles) are read by source=vectortiles"),
)
"""First bytes → what it is, and what to do."""

Box = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""

GEOMETRY_REMEDY = "end the query with `out body; >; out skel qt;`, without geom and center, and save its reply"


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
    def tidied(self) -> Iterator[Path]:
        """Path of a tidy file with the same objects: the file itself, or a copy that is there as long as the context.

        Raises
        ------
        SourceError
            When the file is untidy and too large for a copy.
        """
        if self.tidy:
            with plain_errors(self.path), _in_one_stream(self.path, self.kind) as (path, _):
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
            yield _tidy_copy(self, Path(folder))


def look_over(path: Path) -> Extract:
    """Look over a file once: its kind, what it covers, and whether it is tidy.

    Raises
    ------
    SourceError
        When it is another kind of file, or holds changes, a history or no data.
    """
    stat = path.stat()
    return _look_over(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _look_over(path: Path, _changed_ns: int, _size: int) -> Extract:
    """Look over a file; kept, as one command asks for the extent and then for the features."""
    with plain_errors(path):
        kind = kind_of(path)
        markup = _Markup.of(path, kind) if kind.startswith("osm") else _Markup()
        with _in_one_stream(path, kind) as (whole, whole_kind):
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
            things: Iterator[Any] = iter(osmium.FileProcessor(file, _NODES_WAYS_RELATIONS))
            count = _Count.of(things, located)
            box = header.box()
            boxes = markup.boxes
            if not boxes and box.valid():
                boxes = [(box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)]
            lonlat = count.lonlat
            if count.step > 1 and len(boxes) > 1:
                nodes: Iterator[Any] = iter(osmium.FileProcessor(file, osmium.osm.NODE))
                lonlat = np.concatenate([lonlat, _missed(boxes, lonlat, nodes)])
    if not len(count.lonlat):
        raise SourceError(
            f"{path} holds no nodes{'' if count.objects else ', nor anything else'}, so nothing of it has a place.",
            got=f"{count.objects:,} objects",
            remedy="download it again; Overpass adds the nodes of ways with `(._;>;);` before `out`",
        )
    return Extract(
        path=path,
        kind=kind,
        covered=_covered(boxes, lonlat),
        date=header.get("osmosis_replication_timestamp") or markup.date,
        objects=count.objects,
        # Only .osm.pbf says in its header that all its ways hold their locations; elsewhere some may.
        tidy=count.tidy and not any(markup.deleted.values()) and (not located or kind == "pbf"),
        deleted=markup.deleted,
    )


def kind_of(path: Path) -> str:
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
        with _unpacked(path, packed) as file:
            head = file.read(4096)
    for magic, what, remedy in STRANGERS:
        if head.startswith(magic):
            raise _stranger(path, what, remedy)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[4:15] == b"\n\x09OSMHeader":
        if packed:
            raise _stranger(path, f"an .osm.pbf packed once more as {packed}", "unpack it")
        return "pbf"
    if head.startswith(b"\xff\xe0\x04o5m2"):
        return f"o5m{packed}"
    if head.startswith(b"\xff\xe0\x04o5c2"):
        raise _changes(path)
    if text.startswith(b"<") or head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return f"osm{packed}"
    if text[:1] in (b"{", b"["):
        if b'"osm3s"' in head or b'"elements"' in head:
            raise _stranger(path, "a reply of Overpass in JSON", "source=overpass_json reads such replies, named .json")
        raise _stranger(path, "JSON", "export the map as .osm or .osm.pbf")
    if re.match(rb"[nwrc]-?\d+[ \n]", text):
        return f"opl{packed}"
    raise _damaged(path, f"first bytes {head[:12]!r}")


def open_file(path: Path) -> Any:
    """Open a file for osmium, by its content and not by its name."""
    return osmium.io.File(str(path), kind_of(path))


def has_locations(header: Any) -> bool:
    """Whether an .osm.pbf says that its ways hold the locations of their nodes (`osmium add-locations-to-ways`)."""
    features = (header.get(f"pbf_optional_feature_{i}") for i in range(16))
    return "LocationsOnWays" in features


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn what osmium and the parsers complain of into a `SourceError`."""
    try:
        yield
    # ValueError: a number, time or text that is none. EOFError: packed and cut.
    except (RuntimeError, ValueError, osmium.InvalidLocationError, expat.ExpatError, zlib.error, EOFError) as error:
        if "No space left" in str(error):
            raise _no_room(path, error) from error
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_room(path, error) from error
        if error.errno is not None:
            raise
        raise _damaged(path, error) from error  # gzip and bz2 say so of bytes that are none of theirs


@dataclass
class _Markup:
    """What only the text of an XML file tells: osmium keeps one of its `<bounds>` and no editor's marks."""

    boxes: list[Box] = field(default_factory=list)
    date: str | None = None
    deleted: dict[str, set[int]] = field(default_factory=lambda: {"n": set(), "w": set(), "r": set()})
    located: bool = False
    """Whether ways hold the locations of their nodes."""

    @classmethod
    def of(cls, path: Path, kind: str) -> _Markup:
        """Read through a file of XML."""
        markup = cls()
        parser = expat.ParserCreate()
        parents: list[str] = []
        remark: list[str] = []

        def start(name: str, attributes: dict[str, str]) -> None:
            depth = len(parents)
            parents.append(name)
            if depth == 0:
                _check_root(path, name)
            elif depth == 1:
                markup._element(name, attributes)
                if name == "remark":
                    parser.CharacterDataHandler = remark.append
            elif name == "nd" and depth == 2:
                if "lat" in attributes:
                    markup.located = True
            elif name == "center" or (depth == 3 and parents[-2] == "member"):
                raise SourceError(
                    f"{path} holds the geometry of its relations, or their centres, in place of their ways and nodes.",
                    got=f"<{name}> in a <{parents[-2]}>, as Overpass writes it for `out geom` and `out center`",
                    remedy=GEOMETRY_REMEDY,
                )

        def end(_name: str) -> None:
            parents.pop()
            parser.CharacterDataHandler = None

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        with _unpacked(path, kind.removeprefix("osm")) as file:
            parser.ParseFile(file)
        if "error" in "".join(remark):
            raise SourceError(
                f"{path} is a reply that Overpass could not finish: the rest of the data is missing.",
                got="".join(remark).strip(),
                remedy="ask for a smaller area, or with a longer [timeout:…], and save the reply again",
            )
        return markup

    def _element(self, name: str, attributes: dict[str, str]) -> None:
        """Take down what a top-level element says."""
        if name in ("node", "way", "relation"):
            if attributes.get("action") == "delete":
                self.deleted[name[0]].add(int(attributes.get("id", 0)))
        elif name == "meta":
            self.date = attributes.get("osm_base")
        elif name == "bounds":
            self._box([attributes.get(key, "") for key in ("minlon", "minlat", "maxlon", "maxlat")])
        elif name == "bound":  # as osmosis wrote it
            south, west, north, east, *_ = [*attributes.get("box", "").split(","), "", "", "", ""]
            self._box([west, south, east, north])

    def _box(self, numbers: list[str]) -> None:
        """Take down a box, or two for one across the 180th meridian; what is no box says nothing."""
        try:
            west, south, east, north = map(float, numbers)
        except ValueError:
            return
        if not (-90 <= south < north <= 90 and -180 <= west <= 180 and -180 <= east <= 180 and west != east):
            return
        self.boxes += (
            [(west, south, east, north)] if west < east else [(west, south, 180.0, north), (-180.0, south, east, north)]
        )


@dataclass
class _Count:
    """What is counted while a file goes by."""

    objects: int = 0
    tidy: bool = True
    lonlat: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    """Longitudes and latitudes of some of the nodes, `(n, 2)`."""
    step: int = 1
    """One node in so many is among them."""

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


def _covered(boxes: list[Box], lonlat: NDArray[np.float64]) -> BaseGeometry:
    """What a file covers, in degrees: what its header says, unless its nodes lie elsewhere or in a far smaller area.

    Tools that filter a file leave the header as it was: of a planet, a country. A box smaller than the data is true:
    the extract was cut there, and its ways and relations are complete. Of several boxes each is looked at alone, so
    that what was joined to a true one says nothing.
    """
    nodes = _around(lonlat)
    found = {box: lonlat[_within(box, lonlat)] for box in boxes}
    told = [box for box, inside in found.items() if len(inside)]
    if len(told) > 1:
        told = [box for box in told if _tells(box, found[box])] or told
    said = shapely.union_all([shapely.box(*box) for box in told])
    if said.is_empty:
        return nodes
    west, south, east, north = said.bounds
    few = len(lonlat) < FEW_NODES and max(east - west, north - south) < CITY_DEG
    return said if few or said.area <= FAR_LARGER * nodes.area else nodes


def _within(box: Box, lonlat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Mask of the nodes in a box, `(n,)`."""
    west, south, east, north = box
    lon, lat = lonlat.T
    return (west <= lon) & (lon <= east) & (south <= lat) & (lat <= north)


def _tells(box: Box, inside: NDArray[np.float64]) -> bool:
    """Whether one box of several is no larger than what lies in it; data in two cities fill no planet."""
    west, south, east, north = box
    wide = max(east - west, north - south) >= CITY_DEG
    if len(inside) < FEW_NODES and not wide:
        return True
    if (east - west) * (north - south) > FAR_LARGER * _around(inside).area:
        return False
    cells = np.floor((inside - (west, south)) / (east - west, north - south) * CELLS)
    return not wide or FAR_LARGER * len(np.unique(cells, axis=0)) >= min(CELLS**2, len(inside))


def _missed(boxes: list[Box], lonlat: NDArray[np.float64], nodes: Iterator[Any]) -> NDArray[np.float64]:
    """One node of each box that none of a sample lies in, `(n, 2)`: a village among the boxes of a country."""
    empty = [box for box in boxes if not _within(box, lonlat).any()]
    found: list[tuple[float, float]] = []
    for node in nodes if empty else ():
        location = node.location
        if location.valid():
            hit = [box for box in empty if box[0] <= location.lon <= box[2] and box[1] <= location.lat <= box[3]]
            if hit:
                found.append((location.lon, location.lat))
                empty = [box for box in empty if box not in hit]
        if not empty:
            break
    return np.array(found, np.float64).reshape(-1, 2)


def _around(lonlat: NDArray[np.float64]) -> BaseGeometry:
    """Box around the nodes of a file; two that meet at the 180th meridian if they lie on both sides of it."""
    lon = lonlat[:, 0]
    if (lon > 0).any() and (lon < 0).any() and (np.abs(lon) < 90.0).mean() < 0.01:
        west, south, _, north = find_middle(lonlat[lon > 90.0])
        _, south_too, east, north_too = find_middle(lonlat[lon < -90.0])
        return shapely.union(shapely.box(west, south, 180.0, north), shapely.box(-180.0, south_too, east, north_too))
    return shapely.box(*find_middle(lonlat))


def find_middle(lonlat: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Box of the middle 98 % of nodes, and on each side as much again as 1 % takes inside, up to the last node.

    Complete ways and relations reach far beyond a cut.
    """
    low, high = np.percentile(lonlat, [1, 99], axis=0)
    more = (high - low) / 98.0
    west, south = np.maximum(low - more, lonlat.min(axis=0)).tolist()
    east, north = np.minimum(high + more, lonlat.max(axis=0)).tolist()
    return west, south, east, north


# A tidy copy


@dataclass
class _Record:
    """One version of an object."""

    rank: int
    number: int
    version: int
    visible: bool
    timestamp: Any
    tags: dict[str, str]
    parts: Any
    """Location of a node, numbers of a way's nodes, members of a relation."""

    @classmethod
    def of(cls, thing: Any) -> _Record:
        parts: Any
        if thing.is_node():
            rank, parts = 0, (thing.lon, thing.lat) if thing.location.valid() else ()
        elif thing.is_way():
            rank, parts = 1, [node.ref for node in thing.nodes]
        else:
            rank, parts = 2, [(member.type, member.ref, member.role) for member in thing.members]
        tags = {tag.k: tag.v for tag in thing.tags}
        return cls(rank, thing.id, thing.version, thing.visible, thing.timestamp, tags, parts)


def _newest(versions: Iterable[_Record]) -> _Record:
    """Return the newest version of an object, put together from those of one age.

    Overpass writes an object once with its tags and once without, and may leave out a way's nodes.
    """
    known = list(versions)
    last = max(record.version for record in known)
    known = [record for record in known if record.version == last]
    newest = known[-1]
    newest.visible = all(record.visible for record in known)
    newest.tags = max((record.tags for record in known), key=len)
    newest.parts = max((record.parts for record in known), key=len)
    newest.timestamp = max(record.timestamp for record in known)
    return newest


def _tidy_copy(extract: Extract, folder: Path) -> Path:
    """Write a tidy copy of a file into a folder: sorted, each object once, none that was deleted, no negative nodes."""
    with plain_errors(extract.path):
        ordered, tidy = folder / "sorted.osm.pbf", folder / "tidy.osm.pbf"
        reader = osmium.MergeInputReader()
        # Of packed bytes in memory osmium reads the first stream alone.
        with _plain_copy(extract.path, extract.kind) as (path, kind), _mapped(path) as content:
            reader.add_buffer(content, kind)
        # Only the form of a history has room for the mark of what is deleted.
        with osmium.SimpleWriter(osmium.io.File(str(ordered), "pbf,locations_on_ways=true,history=true")) as writer:
            reader.apply(writer, simplify=False)
        del reader
        on_ways = _locations_on_ways(ordered)
        things = osmium.FileProcessor(ordered, _NODES_WAYS_RELATIONS)
        each = groupby(map(_Record.of, things), key=lambda record: (record.rank, record.number))
        newest = (_newest(versions) for _, versions in each)
        with osmium.SimpleWriter(str(tidy)) as writer:
            _Copier(writer, extract.deleted, on_ways).copy(newest)
    return tidy


def _locations_on_ways(path: Path) -> dict[int, tuple[float, float]]:
    """Locations of nodes that ways hold."""
    ways: Iterator[Any] = iter(osmium.FileProcessor(path, osmium.osm.WAY))
    return {n.ref: (n.location.lon, n.location.lat) for way in ways for n in way.nodes if n.location.valid()}


class _Copier:
    """Writes the newest versions of sorted objects, without those that were deleted and the mention of them."""

    def __init__(self, writer: Any, deleted: dict[str, set[int]], on_ways: dict[int, tuple[float, float]]) -> None:
        self._writer = writer
        self._deleted = {kind: set(numbers) for kind, numbers in deleted.items()}
        self._on_ways = on_ways
        # osmium looks up no node with a negative number; they get those beyond the largest.
        self._new: list[_Record] = []
        self._largest = max(on_ways, default=0)
        self._wrote_nodes = False

    def copy(self, records: Iterable[_Record]) -> None:
        """Write records that come as nodes, ways and relations."""
        for record in records:
            kind = "nwr"[record.rank]
            if not record.visible:
                self._deleted[kind].add(record.number)
            if record.number in self._deleted[kind]:
                continue
            if record.rank == 0:
                self._node(record)
            else:
                self._finish_nodes()
                (self._way if record.rank == 1 else self._relation)(record)
        self._finish_nodes()

    def _node(self, record: _Record) -> None:
        self._on_ways.pop(record.number, None)
        if record.number < 0:
            self._new.append(record)
            return
        self._largest = max(self._largest, record.number)
        self._write(self._writer.add_node, osmium.osm.mutable.Node, record, location=record.parts or None)

    def _finish_nodes(self) -> None:
        """Write the nodes that editors made, and those that only ways know."""
        if self._wrote_nodes:
            return
        self._wrote_nodes = True
        for record in self._new:
            record.number = self._numbered(record.number)
            self._write(self._writer.add_node, osmium.osm.mutable.Node, record, location=record.parts or None)
        for number, location in self._on_ways.items():
            if number not in self._deleted["n"]:
                self._writer.add_node(osmium.osm.mutable.Node(id=self._numbered(number), location=location))

    def _way(self, record: _Record) -> None:
        nodes = [number for number in record.parts if number not in self._deleted["n"]]
        if nodes and record.parts[0] == record.parts[-1] != nodes[0]:
            nodes.append(nodes[0])  # it was closed where a node is gone, and stays so
        nodes = [self._numbered(number) for number in nodes]
        self._write(self._writer.add_way, osmium.osm.mutable.Way, record, nodes=nodes)

    def _relation(self, record: _Record) -> None:
        # Without a part of its outline an area stays open; a hole that is gone is none.
        members = [
            member
            for member in record.parts
            if member[1] not in self._deleted[member[0]] or (member[0] == "w" and member[2] != "inner")
        ]
        self._write(self._writer.add_relation, osmium.osm.mutable.Relation, record, members=members)

    def _numbered(self, node: int) -> int:
        return node if node >= 0 else self._largest - node

    @staticmethod
    def _write(add: Callable[[Any], None], make: Any, record: _Record, **parts: Any) -> None:
        add(make(id=record.number, version=record.version, timestamp=record.timestamp, tags=record.tags, **parts))


# Files that are none


def _check_root(path: Path, name: str) -> None:
    """Refuse XML that holds something else."""
    if name == "osm":
        return
    if name == "osmChange":
        raise _changes(path)
    if name.lower() in ("html", "head", "body"):
        raise _stranger(
            path,
            "a web page: what a server says in place of the data",
            "open it in a browser to see what it says, and download it again",
        )
    remedy = "export it as .osm, or take an extract: https://download.geofabrik.de"
    raise _stranger(path, f"XML of another kind (<{name}>)", remedy)


def _changes(path: Path) -> SourceError:
    return _stranger(
        path,
        "a file of changes (osmChange), not the map that they change",
        f"osmium apply-changes map.osm.pbf {path.name} -o new.osm.pbf (package osmium-tool), and read new.osm.pbf",
    )


def _no_room(path: Path, error: object) -> SourceError:
    return SourceError(
        f"There is no room for a sorted or unpacked copy of {path}.",
        got=error,
        remedy="free some space, or name another folder for temporary files: TMPDIR=…",
    )


def _stranger(path: Path, what: str, remedy: str) -> SourceError:
    return SourceError(
        f"{path} is no OpenStreetMap extract, whatever its name says.",
        expected="OpenStreetMap data as .osm.pbf, .osm (packed by gzip or bzip2, or not), .o5m or .opl",
        got=what,
        remedy=remedy,
    )


def _damaged(path: Path, error: object) -> SourceError:
    return SourceError(
        f"{path} is damaged, cut short, or no OpenStreetMap extract.",
        expected="OpenStreetMap data as .osm.pbf, .osm (packed by gzip or bzip2, or not), .o5m or .opl",
        got=error,
        remedy="download it again, and compare its size and hash with what the server says",
    )


@contextlib.contextmanager
def _unpacked(path: Path, packed: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked."""
    opener: Any = {".gz": gzip.open, ".bz2": bz2.open}.get(packed, open)
    with opener(path, "rb") as file:
        yield file


@contextlib.contextmanager
def _in_one_stream(path: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Path and format of a file with the same content, of which osmium reads all: the file itself, or a copy.

    Programs that pack on several cores write a stream after the other; osmium stops at the end of the first.
    """
    if not kind.endswith(".bz2") or not _has_streams(path):
        yield path, kind
        return
    with _plain_copy(path, kind) as plain:
        yield plain


@contextlib.contextmanager
def _plain_copy(path: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Path and format of a file with the same content that is not packed: the file itself, or a copy."""
    plain, _, packed = kind.partition(".")
    if not packed:
        yield path, kind
        return
    with tempfile.TemporaryDirectory(prefix="citygrain-") as folder:
        copy = Path(folder) / "unpacked"
        with _unpacked(path, f".{packed}") as content, copy.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        yield copy, plain


def _has_streams(path: Path) -> bool:
    """Whether a file packed by bzip2 holds several streams; each begins at a whole byte."""
    with _mapped(path) as content:
        return NEXT_STREAM.search(content, 1) is not None


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[Any]:
    """Content of a file, as far as it is looked at."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


_NODES_WAYS_RELATIONS = osmium.osm.NODE | osmium.osm.WAY | osmium.osm.RELATION
