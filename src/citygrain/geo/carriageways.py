"""Divided roads and roundabouts: lines between two carriageways make way for a line of each.

`citygrain.geo.enclosed_ground` finds the ground that carriageways enclose. Its outline is their lines. What thinning
drew on that ground is cut out, and ways that came to it are led straight on to the first carriageway, since thinning
bends them there. They are led across to the second carriageway where

- a way of another kind is drawn across both carriageways, not only up to the first;
- a way is of the road's own kind, or ends at the road's edge, where nothing tells: most of those cross.

Where two divided roads of one kind cross, the ground has four corners that point inwards, one where each two
carriageways cross.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray

from citygrain.geo.enclosed_ground import Band, Ground

ACROSS = 2.0
"""Widths of a way that the ground between two carriageways is wide at most, along a way that crosses it."""

BULGE = 1.0
"""Widths of a way that the outline bulges into a mouth at most."""

BENT = 0.85
"""Thinning bends a way up to this many of its widths from the edge of a way that it meets at 45°."""

MOUTH = 1.3
"""Widths of a way about the middle of a mouth within which the outline of the ground bulges into it."""

OPPOSITE = 0.6
"""Two ways that meet a road from opposite sides, within this many widths, are one way that crosses it."""

TURNED = 25.0
"""Where two divided roads cross, the outline of the ground turns inwards by at least this many degrees."""

BLUNT = 1.3
"""The sides of such a corner are longer than this many widths of a way; what is shorter is the blunt corner itself."""

SMOOTH = 0.08
"""The outline is simplified to within this many widths of a way before its corners are found."""

ASIDE = 0.9
"""Such a corner may lie this many widths of a way beside the line that goes on from another."""

LEAD = 0.75
"""The ground of a road ends at the ground of another road that is nearer than this many widths of a way."""

SAME = 1e-3
"""Lines nearer than this many cells meet."""


def divide_roads(
    lines: NDArray[np.object_], grounds: Sequence[Ground], bands: Sequence[Band], level: float
) -> NDArray[np.object_]:
    """Replace what of lines lies on enclosed ground by the carriageways, and lead the others onto and across them.

    Parameters
    ----------
    lines
        `(M,)` LineStrings within the window, in cells.
    grounds
        What carriageways enclose.
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
    reach = [bands[g.kind][1] / 2 if g.island else 0.5 for g in grounds]
    zone = shapely.union_all([shapely.buffer(g.shape, r + 0.5) for g, r in zip(grounds, reach, strict=True)])
    touched = shapely.intersects(lines, zone)
    parts = shapely.get_parts(shapely.difference(lines[touched], zone))
    grounds = [g if g.island else _straighten_mouths(g, parts, zone, bands, level) for g in grounds]
    links = []
    for i, g in enumerate(grounds):
        if not g.island:
            grounds[i], found = _lead_across(g, bands[g.kind][1])
            links += found
    islands = shapely.union_all([g.shape for g in grounds if g.island])
    sides = [
        shapely.boundary(g.shape) if g.island else shapely.difference(shapely.boundary(g.shape), islands)
        for g in grounds
    ]
    made = _lead_parts(parts[shapely.length(parts) > 0], zone, grounds, bands, level)
    made += links
    for i, g in enumerate(grounds):
        for h in grounds:
            if h.kind < g.kind and not (g.island or h.island):
                sides[i], led = _lead_onto(sides[i], g, h, LEAD * bands[g.kind][1])
                made += led
    within = shapely.clip_by_rect([*made, *sides], 0, 0, width, height)
    noded = shapely.get_parts(shapely.union_all(within, grid_size=SAME))
    noded = noded[shapely.length(noded) > 0]
    return np.concatenate([lines[~touched], noded])


def _lead_onto(
    sides: shapely.Geometry, ground: Ground, other: Ground, reach: float
) -> tuple[shapely.Geometry, list[shapely.LineString]]:
    """Lead the carriageways of a divided road that ends just before another divided road onto it."""
    if not 0 < shapely.distance(ground.shape, other.shape) < reach:
        return sides, []
    sides = shapely.line_merge(shapely.difference(sides, shapely.buffer(other.shape, reach)))
    kept = shapely.get_parts(sides)
    tips = np.concatenate([shapely.get_point(kept, end) for end in (0, -1)])
    tips = tips[shapely.distance(tips, other.shape) < reach + 0.1]
    return sides, shapely.shortest_line(tips, other.shape).tolist()


def _straighten_mouths(
    ground: Ground, parts: NDArray[np.object_], zone: shapely.Geometry, bands: Sequence[Band], level: float
) -> Ground:
    """Straighten the ground's outline where it bulges into the mouths of ways of the same kind."""
    width = bands[ground.kind][1]
    lines = np.concatenate([parts, shapely.reverse(parts)])
    tips = shapely.get_point(lines, 0)
    near = shapely.dwithin(tips, zone, SAME) & shapely.dwithin(tips, ground.shape, 1 + SAME)
    onward = shapely.get_coordinates(shapely.line_interpolate_point(lines[near], 0.75 * width))
    own = [_kind_at(bands, point, level) == ground.kind for point in onward]
    at = shapely.get_coordinates(tips[near])[own]
    if not len(at):
        return ground

    def straightened(ring: shapely.LinearRing) -> NDArray[np.float64]:
        xy = shapely.get_coordinates(ring)[:-1]
        free = np.flatnonzero((np.hypot(*(xy[:, None] - at).transpose(2, 0, 1)) > MOUTH * width).all(1))
        if len(free) < 3:
            return xy
        kept = []
        for one, other in zip(free, np.roll(free, -1), strict=True):
            kept.append(one)
            between = (one + 1 + np.arange((other - one - 1) % len(xy))) % len(xy)
            chord = shapely.LineString([xy[one], xy[other]])
            bulge = shapely.distance(shapely.points(xy[between]), chord).max(initial=0)
            if chord.length < width or bulge > BULGE * width:  # an end, where the carriageways join or part
                kept += between.tolist()
        return xy[kept]

    shapes = [
        shapely.Polygon(straightened(part.exterior), [straightened(hole) for hole in part.interiors])
        for part in shapely.get_parts(ground.shape)
    ]
    straight = shapely.union_all(shapely.make_valid(shapes))
    return Ground(ground.kind, straight, island=False)


@dataclass(frozen=True)
class _Corner:
    """Where the ground turns inwards: its two sides cross `at` a point, and go on in two directions `ahead`, `(2, 2)`.

    The `tip` is what lies between the outline, which is blunt, and that point.
    """

    at: NDArray[np.float64]
    ahead: NDArray[np.float64]
    tip: shapely.Polygon


def _lead_across(ground: Ground, width: float) -> tuple[Ground, list[shapely.LineString]]:
    """Lead carriageways on across the ground where divided roads of one kind cross, from one inner corner to the next.

    Where one road ends at the other, its carriageways are led across to the far carriageway. The ground that is
    returned has sharp corners there.
    """
    parts = shapely.orient_polygons(shapely.get_parts(shapely.simplify(ground.shape, SMOOTH * width)))
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    corners = [corner for ring in rings for corner in _find_corners(shapely.get_coordinates(ring)[:-1], width)]
    if len(corners) < 2:
        return ground, []
    at = np.array([corner.at for corner in corners]).repeat(2, axis=0)
    ahead = np.concatenate([corner.ahead for corner in corners])
    apart = at - at[:, None]
    along = np.einsum("ijk,ik->ij", apart, ahead)
    aside = np.abs(apart[..., 0] * ahead[:, None, 1] - apart[..., 1] * ahead[:, None, 0])
    meets = (along > 0.25 * width) & (along < 2 * ACROSS * width) & (aside < ASIDE * width)
    meets &= meets.T & (ahead @ ahead.T < -0.7)
    nearest = np.where(meets, along + 3 * aside, np.inf).argmin(1)
    pairs = [(i, int(j)) for i, j in enumerate(nearest) if i < j and meets[i, j] and nearest[j] == i]
    links = [shapely.LineString(at[[i, j]]) for i, j in pairs]
    paired = {i for pair in pairs for i in pair}
    shape = shapely.difference(ground.shape, shapely.union_all([corners[i].tip for i in {i // 2 for i in paired}]))
    for i in {i ^ 1 for i in paired} - paired:
        ray = shapely.LineString([at[i], at[i] + 2 * ACROSS * width * ahead[i]])
        across = shapely.get_parts(shapely.intersection(ray, shape))
        first = across[shapely.distance(across, shapely.Point(at[i])).argmin()] if len(across) else ray
        if first.length < ray.length - SAME:
            links.append(first)
    return Ground(ground.kind, shape, island=False), links


def _find_corners(xy: NDArray[np.float64], width: float) -> list[_Corner]:
    """Return where a ring with the ground to its left, each vertex once, turns inwards between two straight sides."""
    n = len(xy)
    step = np.roll(xy, -1, axis=0) - xy
    run = np.hypot(*step.T)
    out = step / np.maximum(run, SAME)[:, None]
    into = np.roll(out, 1, axis=0)
    turn = np.degrees(np.arctan2(into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0], (into * out).sum(1)))
    long = run > BLUNT * width
    found = []
    for i in np.flatnonzero(np.roll(long, 1) & (turn < 0)).tolist():
        last = i
        while not long[last % n] and turn[(last + 1) % n] < 0 and last < i + n:
            last += 1
        j = last % n
        one, other = into[i], -out[j]
        sine = one[0] * other[1] - one[1] * other[0]
        if not long[j] or turn[np.arange(i, last + 1) % n].sum() > -TURNED or abs(sine) < 0.3:
            continue
        gap = xy[j] - xy[i]
        at = xy[i] + one * (gap[0] * other[1] - gap[1] * other[0]) / sine
        tip = shapely.MultiPoint([*xy[np.arange(i, last + 1) % n], at]).convex_hull
        found.append(_Corner(at, np.array([one, other]), tip))
    return found


@dataclass(frozen=True)
class _Arrival:
    """A way of a `kind` that comes to the road about a ground: kept up to `start`, it goes straight on from there.

    It meets the near carriageway at `near` and the other one at `far`, which is None where that is too far off.
    """

    road: int
    kind: int
    start: NDArray[np.float64]
    ahead: NDArray[np.float64]
    near: NDArray[np.float64]
    far: NDArray[np.float64] | None


def _lead_parts(
    parts: NDArray[np.object_],
    zone: shapely.Geometry,
    grounds: Sequence[Ground],
    bands: Sequence[Band],
    level: float,
) -> list[shapely.LineString]:
    """Lead the parts of lines that were cut off at enclosed ground onto its carriageways."""
    made: list[shapely.LineString] = []
    arrivals: list[_Arrival] = []
    for part in parts:
        length, from_to = part.length, [0.0, part.length]
        for end, line in enumerate((part, shapely.reverse(part))):
            tip = shapely.get_point(line, 0)
            if shapely.distance(tip, zone) > SAME:
                continue
            road = int(np.argmin(shapely.distance(tip, [g.shape for g in grounds])))
            found = _find_arrival(line, road, grounds[road], bands, level)
            if found is None:
                made.append(shapely.shortest_line(tip, grounds[road].shape))
            else:
                arrival, at = found
                arrivals.append(arrival)
                from_to[end] = length - at if end else at
        made.append(shapely.ops.substring(part, *from_to))
    return made + _draw_on(arrivals, grounds, bands, level)


def _find_arrival(
    line: shapely.LineString, road: int, ground: Ground, bands: Sequence[Band], level: float
) -> tuple[_Arrival, float] | None:
    """Return how a line that starts near a road comes to it, and how far along it that begins; None if it is short."""
    width = bands[ground.kind][1]
    steps = np.arange(0, min(line.length / 2, 3 * width), 0.5)
    points = shapely.line_interpolate_point(line, steps)
    apart = shapely.distance(points, ground.shape)
    if not (apart >= width / 2).any():
        return None
    kind = _kind_at(bands, shapely.get_coordinates(points[(apart >= width / 2).argmax()])[0], level)
    kind = ground.kind if kind is None else kind
    reach = width / 2 + BENT * bands[kind][1]  # where it meets the road at a low angle, thinning bends it so far
    at = float(steps[min(len(steps) - 1, int(np.searchsorted(np.maximum.accumulate(apart), reach)))])
    start, behind = (shapely.get_coordinates(line.interpolate(s))[0] for s in (at, min(line.length, at + 2 * reach)))
    run = math.dist(start, behind)
    if run < 2:
        return None
    ahead = (start - behind) / run
    ray = shapely.LineString([start, start + ahead * (3 * reach + ACROSS * width)])
    hits = shapely.get_parts(shapely.intersection(ray, ground.shape))
    hits = hits[shapely.length(hits) > 0]
    if not len(hits):
        return None
    nearest = hits[shapely.distance(hits, shapely.Point(start)).argmin()]
    near, far = np.sort((shapely.get_coordinates(nearest) - start) @ ahead)[[0, -1]]
    if near > 3 * reach:
        return None
    crossed = not ground.island and far - near <= ACROSS * width and far < ray.length - SAME
    return _Arrival(road, kind, start, ahead, start + near * ahead, start + far * ahead if crossed else None), at


def _kind_at(bands: Sequence[Band], point: NDArray[np.float64], level: float) -> int | None:
    return next((i for i in range(len(bands)) if _is_covered(bands, i, point, level)), None)


def _is_covered(bands: Sequence[Band], kind: int, point: NDArray[np.float64], level: float) -> bool:
    cells = bands[kind][0]
    x, y = (min(max(int(p), 0), n - 1) for p, n in zip(point.tolist(), cells.shape[::-1], strict=True))
    return bool(cells[y, x] >= level)


def _draw_on(
    arrivals: Sequence[_Arrival], grounds: Sequence[Ground], bands: Sequence[Band], level: float
) -> list[shapely.LineString]:
    """Draw ways that come to divided roads on to the first carriageway, or across; opposite ones are one way."""
    made: list[shapely.LineString] = []
    done: set[int] = set()
    for i, one in enumerate(arrivals):
        if i in done:
            continue
        end = one.near
        if one.far is not None and (
            one.kind == grounds[one.road].kind
            or not _is_covered(bands, one.kind, one.near, level)
            or _is_covered(bands, one.kind, one.far, level)
        ):
            end = one.far
            within = OPPOSITE * bands[grounds[one.road].kind][1]
            opposite = [
                (gap, j)
                for j, other in enumerate(arrivals)
                if j > i
                and j not in done
                and other.road == one.road
                and other.far is not None
                and (gap := math.dist(end, other.near)) < within
                and one.ahead @ other.ahead < -0.7
            ]
            if opposite:
                _, j = min(opposite)
                done.add(j)
                end = arrivals[j].start
        made.append(shapely.LineString([one.start, end]))
    return made
