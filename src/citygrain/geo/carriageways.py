"""Carriageways of divided roads: where a band of ways is too wide for one, the lines of the two it is made of.

Two carriageways that lie nearer than they are wide are one band, whose skeleton is a line between them. Their own lines
lie half a width from its edges. So the band's outline, to a tenth of a cell, is moved inwards by half a width: of one
way nothing is left, and of a divided road the ground between the lines of its carriageways.

Ways that cross a divided road are cut off where they come near it, as thinning bends them there, and led straight on: to
the carriageway, and across to the other one where

- a way of another kind is drawn across both, not only up to the first;
- a way is of the road's own kind, or ends at the road's edge, where nothing tells: most of those cross.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import contourpy
import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray
from scipy import ndimage

TOO_WIDE = 0.6
"""Cells by which a band exceeds half its width, from its edge inwards, before it is taken for two."""

LONG = 2.5
"""Widths of a way that the ground between two carriageways is long at least; crossings of wide ways are shorter."""

ACROSS = 2.0
"""Widths of a way that the ground between two carriageways is wide at most, along a way that crosses it."""

OPPOSITE = 0.6
"""Widths of a way within which two ways that meet a road from either side are one that crosses it."""

SAME = 1e-3
"""Lines nearer than so many cells meet."""

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


def between_carriageways(band: Band, level: float, frame: Frame) -> shapely.Geometry | None:
    """Return the ground between carriageways, in cells of the window; None where there are no divided roads.

    Parameters
    ----------
    band
        Coverage and width in cells of the coverage.
    level
        Coverage from which a cell belongs to the band.
    frame
        Where its cells lie in the window.
    """
    cells, width = band
    solid = without_holes(cells >= level, width**2)
    deep = width / 2 + TOO_WIDE + 0.5  # a band's edge is half a cell before the middle of the next cell that is free
    square = 2 * int(deep / math.sqrt(2)) + 1  # it lies within the disc, and tells most cells apart at once
    core, count = ndimage.label(_all_within(solid, ndimage.minimum_filter(solid, square), deep), AROUND)
    if not count or np.bincount(core.ravel())[1:].max() < width:
        return None
    half, wide = width / 2 / frame.finer, TOO_WIDE / frame.finer
    x, y = ((np.arange(n) + 0.5) / frame.finer + c for n, c in zip(cells.shape[::-1], frame.corner, strict=True))
    contour = contourpy.contour_generator(x, y, cells, fill_type=contourpy.FillType.OuterOffset)
    found: Any = contour.filled(level, np.inf)  # its type depends on the kind of filling
    shapes = []
    for points, offsets in zip(*found, strict=True):
        outer, *holes = (ring for ring in np.split(points, offsets[1:-1]) if len(ring) > 3)
        shapes.append(shapely.Polygon(outer, [h for h in holes if shapely.Polygon(h).area >= (2 * half) ** 2]))
    filled = shapely.make_valid(shapely.simplify(np.array(shapes, object), 0.1))
    between = shapely.get_parts(shapely.buffer(filled, -half - wide, join_style="mitre", mitre_limit=2))
    between = between[shapely.length(between) / 2 >= LONG * 2 * half]
    ground = shapely.union_all(shapely.buffer(between, wide, join_style="mitre", mitre_limit=2))
    return None if ground.is_empty else shapely.simplify(ground, 0.2)


def without_holes(band: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """Fill holes of less than an area in cells."""
    holes, count = ndimage.label(~band)
    if not count:
        return band
    small = np.bincount(holes.ravel()) < area
    small[0] = False
    return band | small[holes]


def _all_within(band: NDArray[np.bool_], where: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Return those of the cells `where` that have nothing but band within a radius; beyond the edge all is band.

    Of few cells that is told sooner than by a distance transform.
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


def divided(
    lines: NDArray[np.object_], ground: Mapping[int, shapely.Geometry], bands: Sequence[Band], level: float
) -> NDArray[np.object_]:
    """Replace what of lines lies between carriageways by the carriageways, and lead the others onto and across them.

    Parameters
    ----------
    lines
        `(M,)` LineStrings within the window, in cells.
    ground
        Kind of way → the ground between carriageways of this kind.
    bands
        Coverage and width of each kind of way, in cells of the window.
    level
        Coverage from which a cell belongs to a band.

    Returns
    -------
    numpy.ndarray
        LineStrings that meet at their ends, to `SAME`.
    """
    height, width = bands[0][0].shape
    everything = shapely.union_all(list(ground.values()))
    zone = shapely.buffer(everything, 1.0)
    touched = shapely.intersects(lines, zone)
    parts = shapely.get_parts(shapely.difference(lines[touched], zone))
    sides = shapely.boundary(list(ground.values()))
    made = _led(parts[shapely.length(parts) > 0], everything, ground, bands, level)
    within = shapely.clip_by_rect([*made, *sides], 0, 0, width, height)
    noded = shapely.get_parts(shapely.union_all(within, grid_size=SAME))
    noded = noded[shapely.length(noded) > 0]
    return np.concatenate([lines[~touched], noded])


@dataclass(frozen=True)
class _Arrival:
    """A way of a `kind` that comes to a divided road: it is kept up to `start`, and goes straight on from there.

    It meets the near carriageway at `near` and the other one at `far`, which is None where that is too far off.
    """

    road: int
    kind: int
    start: NDArray[np.float64]
    ahead: NDArray[np.float64]
    near: NDArray[np.float64]
    far: NDArray[np.float64] | None


def _led(
    parts: NDArray[np.object_],
    everything: shapely.Geometry,
    ground: Mapping[int, shapely.Geometry],
    bands: Sequence[Band],
    level: float,
) -> list[shapely.LineString]:
    """Lead the parts of lines that come near divided roads onto them."""
    made: list[shapely.LineString] = []
    arrivals: list[_Arrival] = []
    for part in parts:
        length, from_to = part.length, [0.0, part.length]
        for end, line in enumerate((part, shapely.reverse(part))):
            tip = shapely.get_point(line, 0)
            if shapely.distance(tip, everything) > 1 + SAME:
                continue
            road = min(ground, key=lambda kind: shapely.distance(tip, ground[kind]))
            found = _arrival(line, road, ground[road], bands, level)
            if found is None:
                made.append(shapely.shortest_line(tip, everything))
            else:
                arrival, at = found
                arrivals.append(arrival)
                from_to[end] = length - at if end else at
        made.append(shapely.ops.substring(part, *from_to))
    return made + _straight_on(arrivals, bands, level)


def _arrival(
    line: shapely.LineString, road: int, ground: shapely.Geometry, bands: Sequence[Band], level: float
) -> tuple[_Arrival, float] | None:
    """Return how a line that starts at a road comes to it, and how far along the line that begins; None if it is short."""
    width = bands[road][1]
    reach = width / 2 + 1
    steps = np.arange(0, min(line.length / 2, 4 * reach), 0.5)
    far_off = shapely.distance(shapely.line_interpolate_point(line, steps), ground) >= reach
    if not far_off.any():
        return None
    at = float(steps[far_off.argmax()])
    start, behind = (shapely.get_coordinates(line.interpolate(s))[0] for s in (at, min(line.length, at + 2 * reach)))
    run = math.dist(start, behind)
    if run < 2:
        return None
    ahead = (start - behind) / run
    ray = shapely.LineString([start, start + ahead * (3 * reach + ACROSS * width)])
    hits = shapely.get_parts(shapely.intersection(ray, ground))
    hits = hits[shapely.length(hits) > 0]
    if not len(hits):
        return None
    along = np.sort((shapely.get_coordinates(hits[shapely.distance(hits, shapely.Point(start)).argmin()]) - start) @ ahead)
    if along[0] > 3 * reach:
        return None
    crossed = along[1] - along[0] <= ACROSS * width and along[1] < ray.length - SAME
    kind = next((i for i in range(len(bands)) if _covered(bands, i, (start + behind) / 2, level)), road)
    return _Arrival(road, kind, start, ahead, start + along[0] * ahead, start + along[1] * ahead if crossed else None), at


def _covered(bands: Sequence[Band], kind: int, point: NDArray[np.float64], level: float) -> bool:
    cells = bands[kind][0]
    x, y = (min(max(int(p), 0), n - 1) for p, n in zip(point.tolist(), cells.shape[::-1], strict=True))
    return bool(cells[y, x] >= level)


def _straight_on(arrivals: Sequence[_Arrival], bands: Sequence[Band], level: float) -> list[shapely.LineString]:
    """Draw ways that come to divided roads on to the first carriageway, or across; opposite ones are one way."""
    made = []
    done: set[int] = set()
    for i, one in enumerate(arrivals):
        if i in done:
            continue
        crosses = one.far is not None and (
            one.kind == one.road
            or not _covered(bands, one.kind, one.near, level)
            or _covered(bands, one.kind, one.far, level)
        )
        end = one.far if crosses else one.near
        if crosses:
            within = OPPOSITE * bands[one.road][1]
            opposite = [
                (math.dist(one.far, other.near), j)
                for j, other in enumerate(arrivals)
                if j > i
                and j not in done
                and other.road == one.road
                and other.far is not None
                and math.dist(one.far, other.near) < within
                and one.ahead @ other.ahead < -0.7
            ]
            if opposite:
                _, j = min(opposite)
                done.add(j)
                end = arrivals[j].start
        made.append(shapely.LineString([one.start, end]))
    return made
