"""One pass over a tidy OpenStreetMap file that keeps the features of a place.

The file is read once for its relations and once for everything. Of each object only what the rules draw and what meets
the place's bbox is kept, so memory follows the place and not the file (but for the table of node locations: 16 bytes a
node, kept on disk for large files).

Files are cut somewhere. A line that misses nodes is drawn as far as it goes. An area that misses nodes cannot be
closed: it is skipped, counted and reported, and so is a relation that is broken although the file has all of it.

References
----------
https://docs.osmcode.org/pyosmium, https://wiki.openstreetmap.org/wiki/Relation:multipolygon
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import pandas as pd
import shapely
from shapely.geometry.base import BaseGeometry

from citygrain.geo.osm.formats import has_locations, open_file
from citygrain.geo.osm_rules import ANY, OSM_KEYS, OSM_RULES, OSM_SELECTORS
from citygrain.geo.place import Place
from citygrain.geo.sorting import Tags, is_of_interest, is_ruled
from citygrain.geo.sources import Progress

LARGE_BYTES = 400_000_000
"""Size of file beyond which the node locations are kept on disk."""

REPORT_EVERY = 20_000
"""Objects between two reports of progress."""

NO_TIME = datetime.fromtimestamp(0, UTC)
"""What osmium says of an object without a timestamp."""

AREA_RELATIONS = ("multipolygon", "boundary")
"""Types of relation of which osmium makes areas."""

CLOSED_NODES = 4
"""A triangle's, whose first is its last."""

BROKEN_RELATIONS = "broken relations"
CUT_AREAS = "areas cut by the edge of the extract"
LOST_WAYS = "ways without nodes"
OPEN_AREAS = "closed ways that enclose no area"
OPEN_WAYS = "open ways with the tags of an area"


class FeatureReader:
    """One pass over a tidy file that keeps what is drawn within a place.

    Parameters
    ----------
    path
        A file in which nodes come first and relations last, each kind by rising number and each object once.
    place
        The place.
    """

    def __init__(self, path: Path, place: Place) -> None:
        self.path = path
        self.place = place
        self.skipped: Counter[str] = Counter()
        self._newest: datetime | None = None
        self._tags: list[dict[str, str]] = []
        self._geometries: list[BaseGeometry] = []
        self._asked: dict[int, list[int]] = {}  # relation → its member ways
        self._made: set[int] = set()
        self._open: set[int] = set()

    @property
    def newest(self) -> str | None:
        """Time of the last change to any feature, ISO 8601; None when the file holds no times."""
        return self._newest.isoformat() if self._newest else None

    def read(self, report: Progress) -> None:
        """Stream the file: node locations and areas are put together by osmium, outside Python."""
        large = self.path.stat().st_size > LARGE_BYTES
        drawn = osmium.filter.KeyFilter(*OSM_SELECTORS)
        file = open_file(self.path)
        # Where ways hold the locations themselves, looking them up would overwrite them.
        on_ways = has_locations(osmium.FileProcessor(file).header)
        locations: Any = None if on_ways else osmium.index.create_map("sparse_file_array" if large else "flex_mem")
        processor = (
            osmium.FileProcessor(file)
            .with_areas(drawn)
            .with_locations(locations)
            .with_filter(osmium.filter.EntityFilter(osmium.osm.WAY | osmium.osm.RELATION | osmium.osm.AREA))
            .with_filter(drawn)
        )
        report(0.0, "finding node locations")
        things: Iterator[Any] = iter(processor)
        for i, thing in enumerate(things):
            if i % REPORT_EVERY == 0:
                # Nobody knows how many are to come; the bar closes in on its end without reaching it.
                report(i / (i + 200_000), f"{i:,} objects read, {len(self._geometries):,} kept")
            if thing.is_way():
                self._way(thing)
            elif thing.is_area():
                self._area(thing)
            elif thing.tags.get("type") in AREA_RELATIONS and is_of_interest(thing.tags, "area"):
                self._asked[thing.id] = [member.ref for member in thing.members if member.type == "w"]
        self._count_unmade(file, locations)
        report(1.0, f"{len(self._geometries):,} features")

    def _count_unmade(self, file: osmium.io.File, locations: osmium.index.LocationTable | None) -> None:
        """Count the relations that no area was made of: those that the extract cut, and those that are broken.

        This is done at the end of the file, since areas come in batches, many of them before their relation.
        """
        # A way of a relation's outline often has the tags of the area too: that area is drawn or counted once.
        self.skipped[OPEN_WAYS] += len(self._open.difference(*self._asked.values()))
        unmade = {relation: ways for relation, ways in self._asked.items() if relation not in self._made}
        members = {way for ways in unmade.values() for way in ways}
        whole: set[int] = set()
        if members:
            wanted = osmium.FileProcessor(file, osmium.osm.WAY)
            if min(members) > 0:  # the filter takes no others
                wanted = wanted.with_filter(osmium.filter.IdFilter(members))
            ways: Iterator[Any] = iter(wanted)
            whole = {
                way.id for way in ways if way.id in members and all(_is_there(node, locations) for node in way.nodes)
            }
        broken = sum(whole.issuperset(ways) for ways in unmade.values())
        self.skipped[BROKEN_RELATIONS] += broken
        self.skipped[CUT_AREAS] += len(unmade) - broken

    def frame(self) -> gpd.GeoDataFrame:
        """Return what was kept, in the place's CRS, one column a tag."""
        tags = pd.DataFrame(self._tags, columns=["element", "osmid", *OSM_KEYS], dtype="object")
        geometry = self.place.project(np.array(self._geometries, dtype=object))
        return gpd.GeoDataFrame(tags, geometry=geometry, crs=self.place.crs)

    def _way(self, way: osmium.osm.Way) -> None:
        """Keep the line of a way, in as many pieces as its missing nodes leave."""
        line = is_of_interest(way.tags, "line")
        closed = way.is_closed()
        if not _is_ring(way) and not is_ruled(way.tags, "line") and _makes_area(way.tags):
            self._open.add(way.id)
        if not line and not closed:
            return
        runs: list[list[tuple[float, float]]] = [[]]
        whole = True
        for node in way.nodes:
            if node.location.valid():
                runs[-1].append((node.lon, node.lat))
            else:
                whole = False
                runs.append([])
        if line:
            pieces = [shapely.LineString(run) for run in runs if len(run) > 1]
            if not pieces:
                self.skipped[LOST_WAYS] += 1
            for piece in pieces:
                self._keep(way, piece, "way", way.id)
        if closed and not whole and is_of_interest(way.tags, "area"):
            self.skipped[CUT_AREAS] += 1

    def _area(self, area: osmium.osm.Area) -> None:
        """Keep the polygon of a closed way or of a relation."""
        if not is_of_interest(area.tags, "area"):
            return
        try:
            polygon = shapely.from_wkb(_WKB.create_multipolygon(area))
        except RuntimeError:  # an area without rings; a relation of this kind is counted at the end
            self.skipped[OPEN_AREAS] += area.from_way()
            return
        if not area.from_way():
            self._made.add(area.orig_id())
        self._keep(area, polygon, "way" if area.from_way() else "relation", area.orig_id())

    def _keep(self, thing: osmium.osm.Way | osmium.osm.Area, geometry: BaseGeometry, element: str, osmid: int) -> None:
        """Keep a feature whose bbox meets the place's."""
        west, south, east, north = geometry.bounds
        left, bottom, right, top = self.place.bbox
        if west > right or east < left or south > top or north < bottom:
            return
        tags = {key: value for key, value in thing.tags if key in _KEYS}
        self._tags.append({"element": element, "osmid": f"{element}/{osmid}", **tags})
        self._geometries.append(geometry)
        if thing.timestamp > (self._newest or NO_TIME):
            self._newest = thing.timestamp


def _is_ring(way: osmium.osm.Way) -> bool:
    """Tell whether osmium takes a way for a ring; two nodes in one place close it too."""
    if len(way.nodes) < CLOSED_NODES:
        return False
    first, last = way.nodes[0], way.nodes[-1]
    return bool(first.ref == last.ref or (first.location.valid() and first.location == last.location))


def _makes_area(tags: Tags) -> bool:
    """Tell whether some rule draws an area of these tags."""
    return is_ruled(tags, "area") and any(
        all(_is_one_of(tags.get(key), values) for key, values in rule.when.items())
        and not any(_is_one_of(tags.get(key), values) for key, values in rule.unless.items())
        for rule in OSM_RULES
        if rule.shape == "area"
    )


def _is_one_of(value: str | None, values: tuple[str, ...]) -> bool:
    return value is not None and (value != "no" if values == ANY else value in values)


_WKB = osmium.geom.WKBFactory()
_KEYS = frozenset(OSM_KEYS)


def _is_there(node: osmium.osm.NodeRef, locations: osmium.index.LocationTable | None) -> bool:
    """Tell whether the place of a way's node is known: by the table of locations, or by the way where there is none."""
    if locations is None:
        return bool(node.location.valid())
    try:
        return bool(locations.get(node.ref).valid())
    except (KeyError, TypeError):  # TypeError: a negative number
        return False
