"""The sea, out of coastlines.

OpenStreetMap draws no polygon for the sea: it is what lies to the right of the ways tagged ``natural=coastline``, whose
land lies to the left. Within a place the coastlines and the place's own edge enclose faces, and each face is land or
sea by the side on which it has its coastlines. Coastlines that end just within the edge of an extract are drawn on to
it first.

References
----------
https://wiki.openstreetmap.org/wiki/Tag:natural%3Dcoastline
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

CUT_M = 500.0
"""A coastline that ends this near to the edge of the extract was cut there."""

_TOUCH_M = 1e-3
"""A point this near a line lies on it: far above the rounding of UTM coordinates, far below a mapper's precision."""

_MAJORITY = 0.9
"""Share of a face's coastline that must agree: one islet drawn the wrong way round must not dry up a whole sound."""


class CoastlineWarning(UserWarning):
    """A coastline has a gap or contradicts its neighbours; the land beside it is not flooded."""


def build_sea(lines: Iterable[BaseGeometry], area: Polygon | MultiPolygon) -> Polygon | MultiPolygon:
    """Return the sea within an area, from the coastlines that cross it or lie in it.

    Parameters
    ----------
    lines
        Coastlines as directed lines, land on their left. They may overhang the area: whole ways are better than clipped
        ones.
    area
        The place, in the lines' CRS (metres).

    Returns
    -------
    Polygon or MultiPolygon
        The sea, in the lines' CRS; empty where no coastline says that there is any. A place that is wholly at sea has
        no coastline either, so it is taken for land.

    Warns
    -----
    CoastlineWarning
        A coastline ends inside the area, or a face has coastlines of both senses. Where fewer than nine in ten metres
        of its coastline say sea, such a face stays land: a missing piece of coastline must not flood a city.
    """
    segments, _ = _cut_segments(shapely.get_parts([line for line in lines if line.intersects(area)]))
    if not len(segments):
        return MultiPolygon()
    coast = shapely.STRtree(shapely.linestrings(segments))

    # One noding of the whole lines with the area's edge: clipping them first would leave ends that miss the edge by a
    # rounding error, and faces that do not close.
    noded = shapely.union_all([area.boundary, *coast.geometries])
    faces, cuts, dangles, _ = shapely.polygonize_full([noded])
    faces = shapely.get_parts(faces)
    # Lines that overhang may enclose something outside, too.
    shapely.prepare(area)
    faces = faces[shapely.contains_properly(area, shapely.point_on_surface(faces))]

    on_land, on_sea = _measure_shores(faces, segments, coast)
    contradictory = int(((on_land > _TOUCH_M) & (on_sea > _TOUCH_M)).sum())
    open_m = shapely.union_all([cuts, dangles]).intersection(area).length
    if open_m > _TOUCH_M or contradictory:
        warnings.warn(
            f"coastline: {open_m:,.0f} m end inside the place; {contradictory} of its faces are land by one coastline, "
            "sea by another. In doubt it stays land. Either the extract cuts the coastline or OpenStreetMap has a gap",
            CoastlineWarning,
            stacklevel=2,
        )
    flooded = shapely.union_all(faces[on_sea > np.maximum(_MAJORITY * (on_land + on_sea), _TOUCH_M)])
    return flooded if isinstance(flooded, Polygon | MultiPolygon) else MultiPolygon()


def _cut_segments(lines: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Straight pieces of lines, in their direction: ends (n, 2 ends, 2 coordinates) and the line of each (n,)."""
    coordinates, line = shapely.get_coordinates(lines, return_index=True)
    pairs = np.stack([coordinates[:-1], coordinates[1:]], axis=1)
    kept = (line[:-1] == line[1:]) & (pairs[:, 0] != pairs[:, 1]).any(axis=1)
    return pairs[kept], line[:-1][kept]


def _measure_shores(
    faces: NDArray[np.object_], segments: NDArray[np.float64], coast: shapely.STRtree
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres of coastline that have each face on their land side, and on their sea side: two arrays (faces,)."""
    # Counter-clockwise shells and clockwise holes have the face on their left, as coastlines have the land.
    rings, face_of_ring = shapely.get_rings(shapely.orient_polygons(faces), return_index=True)
    edges, ring = _cut_segments(rings)
    edge, piece = coast.query_nearest(shapely.points(edges.mean(axis=1)), max_distance=_TOUCH_M)
    edge_m, cosine = _measure_edges(edges[edge], segments[piece])
    # An edge of the area whose middle touches a coastline, but which lies across it, does not count.
    face = face_of_ring[ring[edge]]
    on_land, on_sea = (
        np.bincount(face[side], weights=edge_m[side], minlength=len(faces)).astype(np.float64)
        for side in (cosine > 0.5, cosine < -0.5)
    )
    return on_land, on_sea


def _measure_edges(
    edges: NDArray[np.float64], segments: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Length of each edge, and cosine of its angle with the segment beside it: two arrays (n,)."""
    along, coastwise = edges[:, 1] - edges[:, 0], segments[:, 1] - segments[:, 0]
    edge_m, segment_m = np.linalg.norm(along, axis=1), np.linalg.norm(coastwise, axis=1)
    return edge_m, (along * coastwise).sum(axis=1) / (edge_m * segment_m)


def add_sea(
    water: gpd.GeoDataFrame, coast: gpd.GeoDataFrame, covered: BaseGeometry, area: BaseGeometry
) -> gpd.GeoDataFrame:
    """Add to the water the sea that the coastlines of an extract enclose within an area."""
    polygon = build_sea(_extend_to_edge(coast.geometry.to_numpy(), covered), area)
    if polygon.is_empty:
        return water
    found = gpd.GeoDataFrame({"kind": ["sea"], "width_m": [np.nan]}, geometry=[polygon], crs=water.crs)
    return pd.concat([water, found], ignore_index=True) if len(water) else found


def _extend_to_edge(lines: NDArray[np.object_], covered: BaseGeometry) -> list[BaseGeometry]:
    """Lengthen coastlines that end just within the edge of the extract: the cut left out their next node."""
    merged = shapely.line_merge(shapely.union_all(lines), directed=True)
    edge = covered.boundary
    longer: list[BaseGeometry] = []
    for line in shapely.get_parts(merged):
        xy = shapely.get_coordinates(line)
        if not line.is_closed:
            start, end = (_find_beyond(point, edge, covered) for point in (xy[0], xy[-1]))
            xy = np.concatenate([start, xy, end])
        longer.append(shapely.LineString(xy))
    return longer


def _find_beyond(point: NDArray[np.float64], edge: BaseGeometry, covered: BaseGeometry) -> NDArray[np.float64]:
    """Point just outside the edge that lies nearest to an end inside it, `(1, 2)`; none `(0, 2)` where that is far."""
    end = shapely.Point(point)
    distance = edge.distance(end)
    if not 0 < distance < CUT_M or not covered.contains(end):
        return np.empty((0, 2))
    nearest = shapely.get_coordinates(edge.interpolate(edge.project(end)))
    return nearest + (nearest - point) / distance
