"""Elements of Overpass replies become one sorted file, which is read in the same way as any extract.

So rings, areas and broken relations are treated alike, wherever the elements come from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import osmium
import shapely
from osmium.osm.mutable import Node, Relation, Way
from shapely.geometry.base import BaseGeometry

from citygrain.geo.coastline import add_sea
from citygrain.geo.layers import COASTLINE
from citygrain.geo.osm.reader import FeatureReader
from citygrain.geo.place import Place
from citygrain.geo.sorting import Remainder, count_remainder, layers_from_osm
from citygrain.geo.sources import Progress

TAGGED = 1 << 30
"""Added to the version of what has tags; larger than any number of minutes since 1970."""

NOWHERE = (1 << 63) - 1
"""Number of a node that no file holds."""

NEW = 1 << 40
"""Added to what an editor counts down from -1 for its new nodes; larger than OpenStreetMap's numbers."""

KINDS = ("node", "way", "relation")

LONGEST_TAG = 255
"""Characters of a tag's value in OpenStreetMap."""

TOO_MUCH_WORDS = ("timed out", "out of memory")


class BadElementError(Exception):
    """Something among the elements is no element."""


def find_partial_remark(reply: Mapping[str, Any]) -> str | None:
    """Return the remark by which a server says that its reply is not whole; None when it is."""
    remark = str(reply.get("remark", ""))
    return remark if "error" in remark or any(words in remark for words in TOO_MUCH_WORDS) else None


def read_position(point: Mapping[str, Any]) -> tuple[float, float]:
    """`(longitude, latitude)` of a node or of a point of a geometry.

    Raises
    ------
    ValueError
        When it is not on the Earth.
    """
    lon, lat = float(point["lon"]), float(point["lat"])
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ValueError(f"a node at longitude {lon:g}, latitude {lat:g}")
    return lon, lat


class Elements:
    """Elements of any number of replies, gathered into a file.

    An element that comes several times is kept once, from the newest reply. A copy with tags counts before one without:
    a reply repeats the members of relations without their tags.

    Parameters
    ----------
    folder
        A folder for temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self._gathered, self._sorted = folder / "gathered.osm.pbf", folder / "sorted.osm.pbf"
        self._writer = osmium.SimpleWriter(str(self._gathered))

    def add(self, elements: Iterable[Mapping[str, Any]], osm_date: str | None) -> None:
        """Add the elements of a reply, in any order, with node elements or with geometries of their own.

        Counts, areas and derived elements are left out.

        Raises
        ------
        BadElementError
            When one has no number, no position or is no element at all.
        """
        version = _count_minutes(osm_date)
        for element in elements:
            try:
                self._add(element, version)
            except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
                raise BadElementError(f"{str(element)[:80]}: {str(error).partition('(#')[0]}") from error

    def _add(self, element: Mapping[str, Any], version: int) -> None:
        kind = element["type"]
        if kind not in KINDS:
            return
        number = element["id"]
        if not isinstance(number, int) or isinstance(number, bool) or number == 0:
            raise TypeError("its id is no number")
        tags = {}
        if kind != "node":
            tags = {str(k): str(v)[:LONGEST_TAG] for k, v in (element.get("tags") or {}).items() if v is not None}
        if kind == "node" and "lat" in element:
            self._writer.add_node(Node(id=_make_positive(number), version=version, location=read_position(element)))
        elif kind == "way" and ("nodes" in element or "geometry" in element):
            nodes = self._nodes(element.get("nodes"), element.get("geometry"), version)
            self._writer.add_way(Way(id=number, version=version + TAGGED * bool(tags), nodes=nodes, tags=tags))
        elif kind == "relation" and "members" in element:
            members = [self._member(member) for member in element["members"] or ()]
            self._writer.add_relation(
                Relation(id=number, version=version + TAGGED * bool(tags), members=members, tags=tags)
            )

    def _nodes(
        self, numbers: Sequence[int] | None, geometry: Sequence[Mapping[str, Any] | None] | None, version: int
    ) -> Sequence[int]:
        """Numbers of a way's nodes; its geometry, where it has one, places them."""
        if numbers is not None:
            numbers = [_make_positive(number) for number in numbers]
        if geometry is None:
            return numbers or ()
        if numbers is None:
            numbers = [NOWHERE if point is None else _number_position(read_position(point)) for point in geometry]
        for number, point in zip(numbers, geometry, strict=True):
            if point is not None:
                self._writer.add_node(Node(id=number, version=version, location=read_position(point)))
        return numbers

    def _member(self, member: Mapping[str, Any]) -> tuple[str, int, str]:
        """Return a member as osmium takes it; a way that comes with it as a mere geometry gives way to the real one."""
        geometry = member.get("geometry")
        if member["type"] == "way" and geometry is not None:
            complete = 1 + sum(point is not None for point in geometry)
            self._writer.add_way(Way(id=member["ref"], version=complete, nodes=self._nodes(None, geometry, 1)))
        return str(member["type"])[0], member["ref"], str(member.get("role") or "")

    def sorted(self) -> Path:
        """Return the file of all elements, by type and number, each once; nothing can be added any more."""
        self.close()
        merge = osmium.MergeInputReader()
        merge.add_file(str(self._gathered))
        with osmium.SimpleWriter(str(self._sorted)) as writer:
            merge.apply(writer)
        return self._sorted

    def close(self) -> None:
        """Finish what is gathered."""
        self._writer.close()


@contextmanager
def gather_elements() -> Iterator[Elements]:
    """Gather elements in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="citygrain-") as folder:
        elements = Elements(Path(folder))
        try:
            yield elements
        finally:
            elements.close()


@dataclass(frozen=True)
class Found:
    """The features that elements hold of a place."""

    layers: dict[str, gpd.GeoDataFrame]
    """Channel to its features, the sea among them."""
    valid: BaseGeometry
    """The part of the place that the elements cover, in UTM."""
    skipped: Mapping[str, int]
    remainder: Mapping[str, Remainder]


def make_features(elements: Elements, place: Place, covered: BaseGeometry, report: Progress) -> Found:
    """Return the features that elements hold of a place, within the area that they cover (UTM)."""
    reader = FeatureReader(elements.sorted(), place)
    reader.read(report)
    frame = reader.frame()
    valid = place.utm.intersection(covered)
    shapely.prepare(valid)
    frame = frame[shapely.intersects(valid, frame.geometry.to_numpy())]
    layers = layers_from_osm(frame, driving_side=place.driving_side)
    layers["water"] = add_sea(layers["water"], layers.pop(COASTLINE), covered, valid)
    return Found(layers, valid, reader.skipped, count_remainder(frame, valid, driving_side=place.driving_side))


def _count_minutes(osm_date: str | None) -> int:
    """Return the minutes from 1970 to a reply's date, 1 where it has none: the version of its elements."""
    try:
        return max(1, int(datetime.fromisoformat(osm_date or "").timestamp()) // 60)
    except ValueError:
        return 1


def _make_positive(number: int) -> int:
    """Return the number of a node as osmium can look it up."""
    return number if number >= 0 else NEW - number


def _number_position(lonlat: tuple[float, float]) -> int:
    """Return the number of a node that has none: one for each position, far above those of OpenStreetMap."""
    lon, lat = lonlat
    return round((lon + 180) * 1e7) << 31 | round((lat + 90) * 1e7)
