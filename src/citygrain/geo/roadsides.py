"""Lines beside a road: cycle tracks and sidewalks that are tagged on the road itself.

A tag becomes a line beside the carriageway, where a track that is mapped on its own would be. What is tagged and mapped
too is drawn once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.geo.osm_rules import (
    Side,
)


def move_beside(lines: NDArray[np.object_], offset_m: NDArray[np.float64], side: Side) -> NDArray[np.object_]:
    """Move lines from the middle of their road to the side.

    A line that is too crooked to be moved stays. A ring that has no room for a line within it gives None.
    """
    moved = shapely.offset_curve(lines, offset_m if side == "left" else -offset_m, **_MITRED)
    rings = np.flatnonzero(shapely.is_ring(lines))  # which it would leave open
    xy, ring = shapely.get_coordinates(lines[rings], return_index=True)
    loops = shapely.linearrings(xy, indices=ring)
    outwards = shapely.is_ccw(loops) == (side == "right")
    grown = shapely.buffer(shapely.polygons(loops), np.where(outwards, 1, -1) * offset_m[rings], **_MITRED)
    empty = shapely.is_empty(moved)
    moved[empty] = lines[empty]
    moved[rings] = [
        shapely.LineString(g.exterior.coords) if g.area > 0 and g.geom_type == "Polygon" else None for g in grown
    ]
    return moved


_MITRED: dict[str, Any] = {"join_style": "mitre", "mitre_limit": 2}

ALONG_DEG = 20.0
"""Two lines run along each other when the angle between them is at most this."""

TWIN_M = 8.0
"""A mapped line and a tagged one are the same when they run along each other on one side of the road, this near."""

PIECE_M = 10.0
"""Tagged lines are compared with mapped ones piece by piece, of at most this length."""


def remove_mapped(tagged: gpd.GeoDataFrame, mapped: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """Cut out of lines that stand for a tag what is mapped too: near, along, and on the same side of the road."""
    offset_m, roads = tagged["offset_m"].to_numpy(float), tagged["road"].to_numpy(object)
    tagged = tagged.drop(columns=["offset_m", "road"])
    lines = [g for layer in mapped for g in layer.geometry.to_numpy()[shapely.get_dimensions(layer.geometry) == 1]]
    if not lines:
        return tagged
    ways, _ = _take_apart(np.array(lines, object))
    pieces, owner = _take_apart(shapely.segmentize(tagged.geometry.to_numpy(), PIECE_M))
    middle = shapely.line_interpolate_point(pieces, 0.5, normalized=True)
    piece, way = shapely.STRtree(ways).query(middle, predicate="dwithin", distance=TWIN_M)
    turned = np.abs(_find_bearings(pieces)[piece] - _find_bearings(ways)[way]) % np.pi
    along = np.minimum(turned, np.pi - turned) <= np.radians(ALONG_DEG)
    piece, way = piece[along], way[along]
    there = shapely.get_point(shapely.shortest_line(ways[way], middle[piece]), 0)
    # A mapped line across the road is as far away as the offset plus its own distance from the road.
    near_side = (
        shapely.distance(there, middle[piece])
        < offset_m[owner[piece]] + shapely.distance(there, roads[owner[piece]]) / 2
    )
    mapped_too = np.zeros(len(pieces), bool)
    mapped_too[piece[near_side]] = True
    touched = np.unique(owner[mapped_too])
    geometry = tagged.geometry.to_numpy(copy=True)
    for line in touched:
        left = pieces[(owner == line) & ~mapped_too]
        geometry[line] = shapely.line_merge(shapely.multilinestrings(left)) if len(left) else None
    tagged = tagged.set_geometry(gpd.GeoSeries(geometry, index=tagged.index, crs=tagged.crs))
    return tagged[tagged.geometry.notna()]


def _take_apart(lines: NDArray[np.object_]) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Take lines apart into straight pieces from vertex to vertex; return them, and which line each is of."""
    parts, line = shapely.get_parts(lines, return_index=True)
    xy, part = shapely.get_coordinates(parts, return_index=True)
    same = (part[1:] == part[:-1]) & (xy[1:] != xy[:-1]).any(1)
    return shapely.linestrings(np.stack([xy[:-1][same], xy[1:][same]], 1)), line[part[1:][same]]


def _find_bearings(pieces: NDArray[np.object_]) -> NDArray[np.float64]:
    """Angles of straight pieces in radians."""
    dx, dy = np.diff(shapely.get_coordinates(pieces).reshape(-1, 2, 2), axis=1)[:, 0].T
    return np.arctan2(dy, dx)
