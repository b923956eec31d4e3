"""Ground that carriageways enclose: between those of a divided road, and within a roundabout.

Two carriageways that lie nearer to each other than they are wide are one band of coverage, whose skeleton is a line
between them. Their own lines lie half a width within the edges of the band. So the band's outline, to a tenth of a
cell, is moved inwards by half a width: of a single way nothing is left, and of a divided road the ground between the
lines of its carriageways.

Of a roundabout, likewise, the ring is the outline of its island, moved outwards by half a width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import contourpy
import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray
from scipy import ndimage

RESOLVED = 3.0
"""Bands narrower than this many cells cannot be thinned well: they are thinned on finer cells, and are never taken for
two."""

TOO_WIDE = 0.6
"""A band is taken for two where it is deeper, from its edge inwards, than half a width and this many cells."""

LONG = 3.0
"""Widths of a way that the ground between two carriageways is long at least; crossings of wide ways are shorter."""

SLENDER = 0.2
"""Its area at most, as a share of its length squared: the ground between carriageways is no square and no disc."""

NARROW = 0.75
"""A gap between carriageways is at least twice this many cells wide."""

LARGEST = 3.0
"""Widths of a way that the radius of a roundabout's island is at most; thinning finds larger rings well."""

ROUND = 0.88
"""How round an island is at least (4π area / perimeter²; a square's is 0.79)."""

AROUND = np.ones((3, 3), bool)

Band = tuple[NDArray[np.float32], float]
"""Coverage of a kind of way, `(H, W)`, and its width in cells."""


@dataclass(frozen=True)
class Frame:
    """How cells that were continued beyond a window and divided lie in it.

    Attributes
    ----------
    corner
        Column and row of the first cell's corner, in cells of the window.
    finer
        How many cells are one of the window, along an edge.
    """

    corner: tuple[float, float]
    finer: int


@dataclass(frozen=True)
class Ground:
    """Ground that carriageways of a kind enclose: their lines are its outline.

    Attributes
    ----------
    kind
        Which of the bands the carriageways are.
    shape
        A polygon, or several, in cells of the window.
    island
        Whether it is that of a roundabout, which ways meet and do not cross.
    """

    kind: int
    shape: shapely.Geometry
    island: bool


def find_enclosed_ground(kind: int, band: Band, level: float, smallest: float, frame: Frame) -> list[Ground]:
    """Return the ground between the carriageways of divided roads and within roundabouts.

    Parameters
    ----------
    kind
        Which of the bands it is.
    band
        Coverage and width in cells of the coverage.
    level
        Coverage from which a cell belongs to the band.
    smallest
        Area, in cells of the coverage, from which a hole in the band is ground within a roundabout.
    frame
        Where the cells lie in the window.
    """
    cells, width = band
    solid = cells >= level
    if not solid.any():
        return []
    holes, count = ndimage.label(~solid)
    areas = np.bincount(holes.ravel(), minlength=count + 1)
    areas[0] = 0
    half = width / 2 / frame.finer
    found = []
    filled = (areas < width**2) & (areas > 0)
    if width >= RESOLVED * frame.finer and (wide := _find_too_wide(solid | filled[holes], width)):
        between, whole = _find_between(cells, level, frame, wide, half)
        if not whole:  # it goes on where the band is hardly too wide
            between, _ = _find_between(cells, level, frame, (slice(0, None), slice(0, None)), half)
        if not between.is_empty:
            found.append(Ground(kind, between, island=False))
    islands = (areas >= smallest) & (areas <= math.pi * (LARGEST * width) ** 2)
    boxes = ndimage.find_objects(holes) if islands.any() else []
    for i in np.flatnonzero(islands):
        box = boxes[i - 1]
        if not _is_round(holes[box] == i, areas[i]):
            continue
        _, free = _trace_outlines(cells, level, frame, _grow_box(box, 2), math.inf)
        found += [
            Ground(kind, shapely.buffer(hole, half), island=True)
            for hole in free
            if 4 * math.pi * hole.area >= ROUND * hole.length**2 and hole.area >= 0.8 * smallest / frame.finer**2
        ]
    return found


Box = tuple[slice, slice]


def _find_too_wide(solid: NDArray[np.bool_], width: float) -> Box | None:
    """Return a box about where a band is too wide for one way, and not only where two ways cross; None for nowhere."""
    deep = width / 2 + TOO_WIDE + 0.5  # a band's edge is half a cell before the middle of the next cell that is free
    square = 2 * int(deep / math.sqrt(2)) + 1  # it lies within the disc, and tells most cells apart at once
    core, count = ndimage.label(_find_deep(solid, ndimage.minimum_filter(solid, square), deep), AROUND)
    if not count:
        return None
    large = np.bincount(core.ravel()) >= 1.5 * width
    large[0] = False
    if not large.any():
        return None
    rows, columns = (np.flatnonzero(core.any(axis)) for axis in (1, 0))
    return _grow_box((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)), math.ceil(width) + 4)


def _grow_box(box: Box, margin: int) -> Box:
    rows, columns = (slice(max(0, cut.start - margin), cut.stop + margin) for cut in box)
    return rows, columns


def _is_round(hole: NDArray[np.bool_], area: int) -> bool:
    high, wide = hole.shape
    return 0.6 < high / wide < 1.6 and area > 0.6 * high * wide


def _trace_outlines(
    cells: NDArray[np.float32], level: float, frame: Frame, box: Box, smallest: float
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Return a band's polygons in a box without their holes below an area, and all its holes as polygons."""
    y, x = (
        (np.arange(n)[cut] + 0.5) / frame.finer + c
        for n, cut, c in zip(cells.shape, box, frame.corner[::-1], strict=True)
    )
    contour = contourpy.contour_generator(x, y, cells[box], fill_type=contourpy.FillType.OuterOffset)
    found: Any = contour.filled(level, np.inf)  # its type depends on the kind of filling
    solids, free = [], []
    for points, offsets in zip(*found, strict=True):
        outer, *holes = (shapely.Polygon(ring) for ring in np.split(points, offsets[1:-1]) if len(ring) > 3)
        solids.append(shapely.Polygon(outer.exterior, [hole.exterior for hole in holes if hole.area >= smallest]))
        free += holes
    return np.array(solids, object), np.array(free, object)


def _find_between(
    cells: NDArray[np.float32], level: float, frame: Frame, box: Box, half: float
) -> tuple[shapely.Geometry, bool]:
    """Return what of a band is further than half a width from its edges and is a strip; and whether the box holds it.

    The strip may go on beyond the box.
    """
    solids, _ = _trace_outlines(cells, level, frame, box, (2 * half) ** 2)
    solids = shapely.make_valid(shapely.simplify(solids, 0.1, preserve_topology=False))
    wide = TOO_WIDE / frame.finer
    closed = shapely.union_all(shapely.buffer(solids, NARROW, join_style="mitre", mitre_limit=2))
    with np.errstate(divide="ignore", invalid="ignore"):  # GEOS divides by 0 where two edges lie in one line
        parts = shapely.get_parts(shapely.buffer(closed, -half - wide - NARROW, join_style="mitre", mitre_limit=2))
    length = shapely.length(parts) / 2
    parts = parts[(length >= LONG * 2 * half) & (shapely.area(parts) <= SLENDER * length**2)]
    strip = shapely.simplify(shapely.union_all(shapely.buffer(parts, wide, join_style="mitre", mitre_limit=2)), 0.2)
    (top, bottom), (left, right) = (cut.indices(n)[:2] for cut, n in zip(box, cells.shape, strict=True))
    cut_off = half + 1
    edges = np.array([left, top, right, bottom]) / frame.finer + np.array(frame.corner * 2)
    inner = edges + np.array([cut_off, cut_off, -cut_off, -cut_off])
    edge = np.array([left > 0, top > 0, right < cells.shape[1], bottom < cells.shape[0]])
    beyond = (strip.bounds - inner) * [-1, -1, 1, 1] > 0
    return strip, strip.is_empty or not (edge & beyond).any()


def fill_holes(band: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """Fill holes of less than an area in cells."""
    holes, count = ndimage.label(~band)
    if not count:
        return band
    small = np.bincount(holes.ravel()) < area
    small[0] = False
    return band | small[holes]


def _find_deep(band: NDArray[np.bool_], where: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Return those of the cells `where` that have nothing but band within a radius; beyond the edge all is band.

    For few cells this is faster than a distance transform.
    """
    reach = int(radius)
    steps = np.arange(-reach, reach + 1)
    down, right = np.nonzero(np.hypot(steps[:, None], steps) <= radius)
    rows, columns = np.nonzero(where)
    padded = np.pad(band, reach, constant_values=True)
    flat = (rows[:, None] + down) * padded.shape[1] + columns[:, None] + right
    found = np.zeros_like(band)
    found[rows, columns] = padded.ravel()[flat].all(1)
    return found
