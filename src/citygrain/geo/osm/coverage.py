"""What area an OpenStreetMap file covers, told by the boxes in its header and by where its nodes lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

FAR_LARGER = 10.0
"""A box in the header that is this many times larger than the nodes' own box is left over from a larger file."""

FEW_NODES, CITY_DEG = 1000, 1.0
"""So few nodes may well lie in one corner of a true box, if the box is no wider than a city (in degrees)."""

CELLS = 32
"""A box that is wider than a city is cut into this many cells a side, to see whether the data fill it."""

Box = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""


def find_covered(boxes: list[Box], lonlat: NDArray[np.float64]) -> BaseGeometry:
    """Return what a file covers, in degrees: the boxes of its header, unless its nodes lie elsewhere or fill far less.

    Tools that filter a file leave its header as it was: the box of a planet, of a country. A box that is smaller than
    the data is true: the extract was cut there, and its ways and relations reach beyond the cut. Each of several boxes
    is judged alone, so that a true box does not make up for a false one beside it.
    """
    nodes = _find_box(lonlat)
    found = {box: lonlat[_lie_within(box, lonlat)] for box in boxes}
    told = [box for box, inside in found.items() if len(inside)]
    if len(told) > 1:
        told = [box for box in told if _is_filled(box, found[box])] or told
    said = shapely.union_all([shapely.box(*box) for box in told])
    if said.is_empty:
        return nodes
    west, south, east, north = said.bounds
    few = len(lonlat) < FEW_NODES and max(east - west, north - south) < CITY_DEG
    return said if few or said.area <= FAR_LARGER * nodes.area else nodes


def _lie_within(box: Box, lonlat: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return a mask of the nodes in a box, `(n,)`."""
    west, south, east, north = box
    lon, lat = lonlat.T
    return (west <= lon) & (lon <= east) & (south <= lat) & (lat <= north)


def _is_filled(box: Box, inside: NDArray[np.float64]) -> bool:
    """Tell whether the nodes in a box fill it; nodes in two cities do not fill a planet."""
    west, south, east, north = box
    wide = max(east - west, north - south) >= CITY_DEG
    if len(inside) < FEW_NODES and not wide:
        return True
    if (east - west) * (north - south) > FAR_LARGER * _find_box(inside).area:
        return False
    cells = np.floor((inside - (west, south)) / (east - west, north - south) * CELLS)
    return not wide or FAR_LARGER * len(np.unique(cells, axis=0)) >= min(CELLS**2, len(inside))


def find_missed(boxes: list[Box], lonlat: NDArray[np.float64], nodes: Iterator[Any]) -> NDArray[np.float64]:
    """Return one node for each box in which no node of a sample lies, `(n, 2)`: of a village among larger places."""
    empty = [box for box in boxes if not _lie_within(box, lonlat).any()]
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


def _find_box(lonlat: NDArray[np.float64]) -> BaseGeometry:
    """Return a box around nodes; two boxes that meet at the 180th meridian where nodes lie on both sides of it."""
    lon = lonlat[:, 0]
    if (lon > 0).any() and (lon < 0).any() and (np.abs(lon) < 90.0).mean() < 0.01:
        west, south, _, north = find_middle(lonlat[lon > 90.0])
        _, south_too, east, north_too = find_middle(lonlat[lon < -90.0])
        return shapely.union(shapely.box(west, south, 180.0, north), shapely.box(-180.0, south_too, east, north_too))
    return shapely.box(*find_middle(lonlat))


def find_middle(lonlat: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the box of the middle 98 % of nodes, grown on each side by a 98th of its width, up to the last node.

    The outermost nodes do not count, since complete ways and relations reach far beyond the edge of a cut.
    """
    low, high = np.percentile(lonlat, [1, 99], axis=0)
    more = (high - low) / 98.0
    west, south = np.maximum(low - more, lonlat.min(axis=0)).tolist()
    east, north = np.minimum(high + more, lonlat.max(axis=0)).tolist()
    return west, south, east, north
