"""What area an OpenStreetMap file covers, told by the boxes in its header and by where its nodes lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

FAR_LARGER = 10.0
"""A header's box with this many times the area in which the nodes lie is that of the file it was filtered from."""

FEW_NODES, CITY_DEG = 1000, 1.0
"""So few nodes may well lie in a corner of a true box, if that is no wider than a city."""

CELLS = 32
"""A box wider than a city is cut into so many cells a side, to see whether the data fill it."""

Box = tuple[float, float, float, float]
"""West, south, east, north, in degrees."""


def find_covered(boxes: list[Box], lonlat: NDArray[np.float64]) -> BaseGeometry:
    """What a file covers, in degrees: what its header says, unless its nodes lie elsewhere or in a far smaller area.

    Tools that filter a file leave the header as it was: of a planet, a country. A box smaller than the data is true:
    the extract was cut there, and its ways and relations are complete. Of several boxes each is looked at alone, so
    that what was joined to a true one says nothing.
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
    """Mask of the nodes in a box, `(n,)`."""
    west, south, east, north = box
    lon, lat = lonlat.T
    return (west <= lon) & (lon <= east) & (south <= lat) & (lat <= north)


def _is_filled(box: Box, inside: NDArray[np.float64]) -> bool:
    """Whether one box of several is no larger than what lies in it; data in two cities fill no planet."""
    west, south, east, north = box
    wide = max(east - west, north - south) >= CITY_DEG
    if len(inside) < FEW_NODES and not wide:
        return True
    if (east - west) * (north - south) > FAR_LARGER * _find_box(inside).area:
        return False
    cells = np.floor((inside - (west, south)) / (east - west, north - south) * CELLS)
    return not wide or FAR_LARGER * len(np.unique(cells, axis=0)) >= min(CELLS**2, len(inside))


def find_missed(boxes: list[Box], lonlat: NDArray[np.float64], nodes: Iterator[Any]) -> NDArray[np.float64]:
    """One node of each box that none of a sample lies in, `(n, 2)`: a village among the boxes of a country."""
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
