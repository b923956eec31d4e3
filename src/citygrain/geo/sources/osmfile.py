"""Raw OpenStreetMap extracts: `.osm.pbf`, `.osm`, `.osm.gz`, `.osm.bz2`, streamed by osmium.

The file is read once for its relations and once for everything; of each object only what the rules of `layers` draw and
what meets the place's bbox is kept, so memory follows the place and not the extract (but for the table of node
locations: 16 bytes a node, kept on disk for large files).

Extracts are cut somewhere. A line that misses nodes is drawn as far as it goes; an area that misses some cannot be
closed: it is skipped, counted and reported, and so is a broken relation.

References
----------
https://docs.osmcode.org/pyosmium, https://wiki.openstreetmap.org/wiki/Relation:multipolygon
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from citygrain.errors import SourceError
from citygrain.files import sha256
from citygrain.geo.coastline import sea
from citygrain.geo.layers import COASTLINE, OSM_KEYS, OSM_SELECTORS, is_of_interest, layers_from_osm, remainder
from citygrain.geo.place import EDGE_DEG, Place
from citygrain.geo.sources import Features, Progress
from citygrain.geo.sources._files import BBox, existing_file, outside

SUFFIXES = (".osm.pbf", ".pbf", ".osm", ".osm.gz", ".osm.bz2")

LARGE_BYTES = 400_000_000
"""Size of file beyond which the node locations are kept on disk."""

CUT_M = 500.0
"""A coastline that ends this near to the edge of the extract went on beyond it."""

REPORT_EVERY = 20_000
"""Objects between two reports of progress."""

BROKEN_RELATIONS = "broken relations"
CUT_AREAS = "areas cut by the edge of the extract"
LOST_WAYS = "ways without nodes"
OPEN_AREAS = "closed ways that enclose no area"


@dataclass(frozen=True)
class OsmFile:
    """Features of a place from a raw OpenStreetMap extract.

    Parameters
    ----------
    path
        The file.
    """

    path: str | Path

    def extent(self) -> BBox:
        """`(west, south, east, north)` in degrees: what the file's header says, else where 98 % of its nodes are.

        `osmium extract --set-bounds` writes it. Without it the edge is a guess, and what lies beyond counts as no data.

        Raises
        ------
        SourceError
            When the file is missing, damaged, or holds nothing.
        """
        path = existing_file(self.path, SUFFIXES, "an OpenStreetMap extract")
        with _plain_errors(path):
            box = _header(path).box()
            if box.valid():
                return box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat
            nodes: Iterator[Any] = iter(osmium.FileProcessor(path, osmium.osm.NODE))
            numbers = (number for node in nodes if node.location.valid() for number in (node.lon, node.lat))
            lonlat = np.fromiter(numbers, np.float64).reshape(-1, 2)  # 16 bytes a node
        if not len(lonlat):
            raise SourceError(f"{path} holds no nodes.", remedy="download it again")
        # Complete ways and relations reach far beyond the cut: the middle 98 % is what the file covers.
        west, south, east, north = np.percentile(lonlat, [1, 99], axis=0).ravel().tolist()
        return west, south, east, north

    def features(self, place: Place, progress: Progress | None = None) -> Features:
        """Return the features of a place.

        Raises
        ------
        SourceError
            When the file is missing, damaged, of another kind or elsewhere.
        """
        report = progress or (lambda _fraction, _message: None)
        path = existing_file(self.path, SUFFIXES, "an OpenStreetMap extract")
        extent = self.extent()
        covered = shapely.box(*extent)
        if not place.area.intersects(covered):
            raise outside(place, extent, path)
        with _plain_errors(path):
            reader = _Reader(path, place)
            reader.read(report)
            osm_date = _header(path).get("osmosis_replication_timestamp") or reader.newest
        frame = reader.frame()
        frame = frame[frame.intersects(place.utm)]
        layers = layers_from_osm(frame, driving_side=place.driving_side)
        covered_utm = place.project(shapely.segmentize(covered, EDGE_DEG))
        valid = place.utm.intersection(covered_utm)
        layers["water"] = _with_sea(layers["water"], layers.pop(COASTLINE), covered_utm, valid)
        provenance = {
            "kind": "file",
            "file": path.name,
            "sha256": sha256(path),
            "osm_date": osm_date,
            "extent": list(extent),
        }
        return Features(
            layers,
            place=place,
            provenance=provenance,
            valid=valid,
            skipped=reader.skipped,
            remainder=remainder(frame, valid, driving_side=place.driving_side),
        )


class _Reader:
    """One pass over a file that keeps what is drawn within a place."""

    def __init__(self, path: Path, place: Place) -> None:
        self.path = path
        self.place = place
        self.skipped: Counter[str] = Counter()
        self._newest: datetime | None = None
        self._tags: list[dict[str, str]] = []
        self._geometries: list[BaseGeometry] = []
        self._relations: set[int] = set()

    @property
    def newest(self) -> str | None:
        """Time of the last change to any feature, ISO 8601."""
        return self._newest.isoformat() if self._newest else None

    def read(self, report: Progress) -> None:
        """Stream the file: node locations and areas are put together by osmium, outside Python."""
        large = self.path.stat().st_size > LARGE_BYTES
        drawn = osmium.filter.KeyFilter(*OSM_SELECTORS)
        processor = (
            osmium.FileProcessor(self.path)
            .with_locations("sparse_file_array" if large else "flex_mem")
            .with_areas(drawn)
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
            elif thing.tags.get("type") == "multipolygon" and is_of_interest(thing.tags, "area"):
                self._relations.add(thing.id)
        self.skipped[BROKEN_RELATIONS] += len(self._relations)
        report(1.0, f"{len(self._geometries):,} features")

    def frame(self) -> gpd.GeoDataFrame:
        """What was kept, in the place's CRS, one column a tag."""
        tags = pd.DataFrame(self._tags, columns=["element", "osmid", *OSM_KEYS], dtype="object")
        geometry = self.place.project(np.array(self._geometries, dtype=object))
        return gpd.GeoDataFrame(tags, geometry=geometry, crs=self.place.crs)

    def _way(self, way: Any) -> None:
        """Keep the line of a way, in as many pieces as its missing nodes leave."""
        line = is_of_interest(way.tags, "line")
        closed = way.is_closed()
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

    def _area(self, area: Any) -> None:
        """Keep the polygon of a closed way or of a relation."""
        if not is_of_interest(area.tags, "area"):
            return
        try:
            polygon = shapely.from_wkb(_WKB.create_multipolygon(area))
        except RuntimeError:  # an area without rings; a relation of this kind stays among the broken ones
            self.skipped[OPEN_AREAS] += area.from_way()
            return
        if not area.from_way():
            self._relations.discard(area.orig_id())
        self._keep(area, polygon, "way" if area.from_way() else "relation", area.orig_id())

    def _keep(self, thing: Any, geometry: BaseGeometry, element: str, osmid: int) -> None:
        """Keep a feature whose bbox meets the place's."""
        west, south, east, north = geometry.bounds
        left, bottom, right, top = self.place.bbox
        if west > right or east < left or south > top or north < bottom:
            return
        tags = {key: value for key, value in thing.tags if key in _KEYS}
        self._tags.append({"element": element, "osmid": f"{element}/{osmid}", **tags})
        self._geometries.append(geometry)
        if self._newest is None or thing.timestamp > self._newest:
            self._newest = thing.timestamp


_WKB = osmium.geom.WKBFactory()
_KEYS = frozenset(OSM_KEYS)


def _with_sea(
    water: gpd.GeoDataFrame, coast: gpd.GeoDataFrame, covered: BaseGeometry, area: BaseGeometry
) -> gpd.GeoDataFrame:
    """Add to the water the sea that the coastlines of an extract enclose within an area."""
    polygon = sea(_to_the_edge(coast.geometry.to_numpy(), covered), area)
    if polygon.is_empty:
        return water
    found = gpd.GeoDataFrame({"kind": ["sea"], "width_m": [np.nan]}, geometry=[polygon], crs=water.crs)
    return pd.concat([water, found], ignore_index=True) if len(water) else found


def _to_the_edge(lines: NDArray[np.object_], covered: BaseGeometry) -> list[BaseGeometry]:
    """Lengthen coastlines that end just within the edge of the extract: its cut took the next node, not the coast."""
    merged = shapely.line_merge(shapely.union_all(lines), directed=True)
    edge = covered.boundary
    longer: list[BaseGeometry] = []
    for line in shapely.get_parts(merged):
        xy = shapely.get_coordinates(line)
        if not line.is_closed:
            start, end = (_beyond(point, edge, covered) for point in (xy[0], xy[-1]))
            xy = np.concatenate([start, xy, end])
        longer.append(shapely.LineString(xy))
    return longer


def _beyond(point: NDArray[np.float64], edge: BaseGeometry, covered: BaseGeometry) -> NDArray[np.float64]:
    """Point just outside the edge that lies nearest to an end inside it, `(1, 2)`; none `(0, 2)` where that is far."""
    end = shapely.Point(point)
    distance = edge.distance(end)
    if not 0 < distance < CUT_M or not covered.contains(end):
        return np.empty((0, 2))
    nearest = shapely.get_coordinates(edge.interpolate(edge.project(end)))
    return nearest + (nearest - point) / distance


def _header(path: Path) -> Any:
    """Header of a file."""
    return osmium.FileProcessor(path).header


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Turn osmium's errors into ours."""
    try:
        yield
    except (RuntimeError, osmium.InvalidLocationError) as error:
        if "out of order" in str(error):
            raise SourceError(
                f"{path} is not sorted by type and number, so its areas cannot be put together in one pass.",
                got=error,
                remedy=f"osmium sort {path.name} -o sorted.osm.pbf (package osmium-tool)",
            ) from error
        raise SourceError(
            f"{path} is damaged, cut short, or no OpenStreetMap extract.",
            expected=", ".join(SUFFIXES),
            got=error,
            remedy="download it again, and compare its size and hash with what the server says",
        ) from error
