"""Coverage of a channel's areas to polygons.

The outline is where coverage crosses a half, interpolated between the centres of cells (marching squares, by
contourpy): to a tenth of a cell where walls are straight. Outlines of one channel never cross, and stay so when they
are simplified together (Visvalingam & Whyatt 1993, by GEOS, as a coverage: walls that touch stay shared). Corners,
which interpolation rounds off, are restored where a shape is made of right angles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray

LEVEL = 0.5

SIMPLIFIED = 0.6
"""Tolerance of the simplification: the root of the area that a vertex may cost, in cells."""

STRAIGHT = 0.03
"""A vertex that lies within this many cells of the line between its neighbours is left out; half of all vertices do."""

SNAP = math.tan(math.radians(22.5))
"""Slope up to which an edge takes one of a shape's two directions."""

STRAY = 0.6
"""An edge keeps its direction where its ends would move by more than this many cells."""

SHORT = 1.6
"""An edge shorter than this many cells is a rounded corner or a step, and no wall."""

SQUARE = 0.75
"""Share of the outline that must follow the two directions; other shapes are left as they are."""

FAITHFUL = 0.12
"""A shape whose area would change by more than this share keeps its outline."""

DRIFT = 0.11
"""A shape keeps its outline where it would move by more than this many cells on average: between the two outlines of a
shape of right angles lie its rounded corners; between those of an oval, or of a slanted wall and the steps that stand
for it, lies more."""

REACH = 2.0
"""A shape keeps its outline where a corner would lie more than this many cells from where the outline turns."""


def trace_outlines(coverage: NDArray[np.float32], smallest: float) -> NDArray[np.object_]:
    """Return valid polygons, in cells (x to the right, y down), that do not overlap.

    Parameters
    ----------
    coverage
        `(H, W)` in [0, 1].
    smallest
        Polygons and holes of a smaller area, in cells, are left out.
    """
    if not (coverage >= LEVEL).any():
        return np.empty(0, object)
    height, width = coverage.shape
    # Continued beyond the edge, so that what the window cuts ends at its edge.
    x, y = np.arange(-0.5, width + 1), np.arange(-0.5, height + 1)
    contour = contourpy.contour_generator(
        x, y, np.pad(coverage, 1, mode="edge"), fill_type=contourpy.FillType.OuterOffset
    )
    found: Any = contour.filled(LEVEL, np.inf)  # its type depends on the kind of filling
    points, offsets = found
    rings, owners = [], []
    for i, (xy, offset) in enumerate(zip(points, offsets, strict=True)):
        for ring in np.split(xy, offset[1:-1]):
            if len(ring) > 3:
                rings.append(ring)
                owners.append(i)
    if not rings:
        return np.empty(0, object)
    sizes = [len(ring) for ring in rings]
    loops = shapely.linearrings(np.concatenate(rings), indices=np.repeat(np.arange(len(rings)), sizes))
    big = np.abs(_measure_rings(rings)) >= smallest
    _, shape = np.unique(owners, return_inverse=True)
    first = np.r_[True, np.diff(shape) > 0]
    keep = big & big[first][shape]  # no holes without their shape
    if not keep.any():
        return np.empty(0, object)
    _, shape = np.unique(shape[keep], return_inverse=True)
    shapes = shapely.polygons(loops[keep], indices=shape)
    shapes = cut_to_window(shapes, width, height)
    # Douglas & Peucker is faster, but prefers the vertices of rounded corners, so that walls move inwards: here it only
    # takes away vertices in a straight line.
    shapes = keep_valid(shapely.simplify(shapes, STRAIGHT, preserve_topology=False), smallest)
    return keep_valid(shapely.coverage_simplify(shapes, SIMPLIFIED), smallest)


def cut_to_window(shapes: NDArray[np.object_], width: float, height: float) -> NDArray[np.object_]:
    """Cut polygons at the edge of a window."""
    bounds = shapely.bounds(shapes)
    out = (bounds < 0).any(1) | (bounds[:, 2:] > [width, height]).any(1)
    cut = shapes.copy()
    cut[out] = shapely.intersection(shapes[out], shapely.box(0, 0, width, height))
    return cut


def _measure_rings(rings: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Signed areas of rings (the shoelace formula)."""
    xy = np.concatenate(rings)
    start = np.cumsum([0, *(len(r) for r in rings)])
    terms = np.zeros(len(xy))
    terms[:-1] = xy[:-1, 0] * xy[1:, 1] - xy[1:, 0] * xy[:-1, 1]
    terms[start[1:] - 1] = 0  # between one ring and the next
    return np.add.reduceat(terms, start[:-1]) / 2


def keep_valid(shapes: NDArray[np.object_], smallest: float) -> NDArray[np.object_]:
    """Make shapes valid; return the polygons among their parts that are no smaller than an area."""
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    parts = shapely.get_parts(shapes)
    areas = shapely.area(parts)
    return parts[(shapely.get_type_id(parts) == 3) & (areas > 0) & (areas >= smallest)]


def restore_corners(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Restore the right angles of polygons that are made of right angles; all others stay, as those that would overlap.

    A shape's two directions are those that its edges, weighted by their squared lengths, agree on best. Edges near
    them become walls through their middles, rounded corners become the crossing of two walls, and small slanted steps
    become square ones. A shape that would move by more than its rounded corners say is not made of right angles.
    """
    if not len(shapes):
        return shapes
    loops, owner = shapely.get_rings(shapes, return_index=True)
    xy, ring = shapely.get_coordinates(loops, return_index=True)
    theta = _find_directions(xy, ring, owner)
    turn = np.exp(-1j * np.nan_to_num(theta))
    rings = [r[:-1] for r in _group(_rotate(xy, turn[owner[ring]]).tolist(), ring)]  # their walls lie along x and y
    turned = [
        r if lost else _square_ring(r) or r for r, lost in zip(rings, np.isnan(theta)[owner].tolist(), strict=True)
    ]
    of = np.repeat(np.arange(len(turned)), [len(r) for r in turned])
    loops = shapely.linearrings(_rotate(np.array([p for r in turned for p in r]), turn.conj()[owner[of]]), indices=of)
    made = shapely.polygons(loops, indices=owner)
    first = np.flatnonzero(np.r_[True, np.diff(owner) > 0])
    new = np.array([turned[i] is not rings[i] for i in first])
    area = shapely.area(shapes)
    new &= shapely.is_valid(made) & (np.abs(shapely.area(made) - area) <= FAITHFUL * area)
    between = shapely.area(shapely.symmetric_difference(made[new], shapes[new]))
    new[new] = between <= DRIFT * shapely.length(shapes[new])
    made = np.where(new, made, shapes)
    return _resolve_overlaps(made, shapes, new)


def _resolve_overlaps(
    made: NDArray[np.object_], shapes: NDArray[np.object_], new: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """Undo changes of shapes that overlap, until none does: the original `shapes` do not overlap."""
    while True:
        one, other = shapely.STRtree(made).query(made, predicate="intersects")
        pairs = (one < other) & (new[one] | new[other])
        one, other = one[pairs], other[pairs]
        over = shapely.area(shapely.intersection(made[one], made[other])) > 1e-9
        crowd = np.union1d(one[over], other[over])
        if not len(crowd):
            return made
        made[crowd], new[crowd] = shapes[crowd], False


_Ring = list[list[float]]


def _group(items: list[Any], owner: NDArray[np.int64]) -> list[list[Any]]:
    """Group consecutive items of one owner."""
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(items)]
    return [items[a:b] for a, b in pairwise(cuts)]


def _rotate(xy: NDArray[np.float64], turn: NDArray[np.complex128]) -> NDArray[np.float64]:
    z = (xy[:, 0] + 1j * xy[:, 1]) * turn
    return np.stack([z.real, z.imag], 1)


def _find_directions(xy: NDArray[np.float64], ring: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Angles of shapes' walls in radians, NaN where a shape's walls do not agree on one.

    `xy` are the vertices of closed rings, `ring` the ring of each vertex, and `owner` the shape of each ring.
    """
    within_ring = ring[1:] == ring[:-1]
    edge = np.diff(xy[:, 0] + 1j * xy[:, 1])[within_ring]
    shape = owner[ring[1:][within_ring]]
    length = np.abs(edge)

    def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = np.bincount(shape, values, owner[-1] + 1).astype(float, copy=False)
        return total

    # An edge times itself four times has four times its angle: directions at right angles add up.
    votes = edge**4 / np.maximum(length, 1e-12) ** 2
    theta = np.arctan2(summed(votes.imag), summed(votes.real)) / 4
    turned = edge * np.exp(-1j * theta)[shape]
    across, along = np.sort([np.abs(turned.real), np.abs(turned.imag)], 0)
    walls = summed(np.where((length < SHORT) | (across < SNAP * along), length, 0.0))
    return np.where(walls >= SQUARE * summed(length), theta, np.nan)


@dataclass
class _Wall:
    """The line `a·x + b·y = c`, how long a part of the outline it stands for, and where that ends."""

    a: float
    b: float
    c: float
    length: float
    end: list[float]


def _square_ring(xy: _Ring) -> _Ring | None:
    """Return a ring whose edges follow the axes where they nearly do; None where no ring like the old one is left."""
    walls: list[_Wall] = []
    for start, end in zip(xy, xy[1:] + xy[:1], strict=True):
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        across, along = abs(dx), abs(dy)
        upright = across < along
        if not upright:
            across, along = along, across
        if across < SNAP * along and across < 2 * STRAY:
            if upright:
                _add_wall(walls, _Wall(1, 0, start[0] + dx / 2, length, end), start)
            else:
                _add_wall(walls, _Wall(0, 1, start[1] + dy / 2, length, end), start)
        elif length >= SHORT:
            walls.append(_Wall(-dy, dx, dx * start[1] - dy * start[0], length, end))
    if len(walls) > 4 and walls[0].a == walls[-1].a and walls[0].b == walls[-1].b:
        _add_wall(walls, walls.pop(0), xy[0])
    if len(walls) < 4:
        return None
    made = []
    for v, w in zip(walls, walls[1:] + walls[:1], strict=True):
        det = v.a * w.b - w.a * v.b
        if abs(det) < 1e-3:
            return None
        x, y = (v.c * w.b - w.c * v.b) / det, (v.a * w.c - w.a * v.c) / det
        if math.dist((x, y), v.end) > REACH:
            return None
        made.append([x, y])
    return made


def _add_wall(walls: list[_Wall], wall: _Wall, start: list[float]) -> None:
    """Append a wall. After a wall of the same direction it becomes a part of that one, or is joined to it by a step."""
    last = walls[-1] if walls else None
    if last is None or (last.a, last.b) != (wall.a, wall.b):
        walls.append(wall)
    elif abs(last.c - wall.c) < SHORT / 2:
        total = last.length + wall.length
        last.c, last.length, last.end = (last.c * last.length + wall.c * wall.length) / total, total, wall.end
    else:
        walls += [_Wall(wall.b, wall.a, start[0] if wall.b else start[1], 0.0, start), wall]
