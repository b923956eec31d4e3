"""Lines that meet in nodes, cleared of what thinning leaves behind.

Shoots are cut, ends are drawn on to where their way ends, near junctions become one, and each junction moves to where
its ways, seen from a distance, cross.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

EDGE = 0.75
"""A line that stays within this many cells of the window's edge is left out."""

SAME_JUNCTION = 0.85
"""Widths of a way within which two junctions are one."""

SHOOT = 0.7
"""Widths of a way below which a line that ends nowhere is a shoot of thinning."""

FORKED = 4.0
"""Widths of a way within which two forks may be one crossing at a low angle."""

THROUGH = -0.6
"""Two ways that meet go on in each other when the cosine of the angle between them is at most this."""


Point = tuple[float, float]


@dataclass(frozen=True)
class Bands:
    """Coverage and width of each kind of way, in cells of the window, and the least coverage of a band's cells."""

    bands: Sequence[tuple[NDArray[np.float32], float]]
    level: float

    def width(self, point: Point) -> float:
        """Return the width of the way at a point: that of the first kind that covers it."""
        for cells, width in self.bands:
            x, y = (min(max(int(p), 0), n - 1) for p, n in zip(point, cells.shape[::-1], strict=True))
            if cells[y, x] >= self.level:
                return width
        return min(width for _, width in self.bands)

    def beyond(self, points: NDArray[np.float64], ahead: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
        """Return how far ahead of points coverage falls to `level`: `(K,)`, infinite for more than `reach` cells."""
        steps = np.arange(0, reach + 0.25, 0.25)
        x, y = (points[:, None] + steps[:, None] * ahead[:, None]).transpose(2, 0, 1) - 0.5
        cells = [ndimage.map_coordinates(band, [y, x], order=1, mode="nearest") for band, _ in self.bands]
        free = np.max(cells, axis=0) < self.level
        return np.where(free.any(1), steps[free.argmax(1)], np.inf)


@dataclass
class Edge:
    """A line from node `u` to node `v`, in plain numbers: a network is changed a few points at a time."""

    u: int
    v: int
    xy: list[Point]

    def length(self) -> float:
        """Return its length in cells."""
        return sum(map(math.dist, self.xy, self.xy[1:]))

    def turned(self) -> Edge:
        """Return the line from its other end."""
        return Edge(self.v, self.u, self.xy[::-1])


def clear_lines(
    lines: NDArray[np.object_], width: float, window: tuple[int, int], ground: shapely.Geometry, kinds: Bands
) -> tuple[list[Edge], list[Point]]:
    """Merge near junctions, cut shoots and join lines that meet in twos; return the lines and where nodes lie."""
    found: dict[Point, int] = {}
    edges: list[Edge] = []
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    points = list(map(tuple, coordinates.tolist()))
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(points)]
    for start, stop in pairwise(cuts):
        piece = points[start:stop]
        if piece:
            u, v = (found.setdefault((round(x, 3), round(y, 3)), len(found)) for x, y in (piece[0], piece[-1]))
            edges.append(Edge(u, v, piece))
    where = list(found)
    rim = _find_rim(edges, where, window)
    edges = _cut_leaving_shoots(edges, where, rim, width)
    _lengthen(edges, where, rim, width, kinds)
    edges = _join_pairs(_cut_shoots(edges, rim, width), rim)
    edges = _merge_junctions(edges, where, rim, width, ground, kinds)
    edges = _join_pairs(_cut_shoots(edges, rim, width), rim)
    _straighten_junctions(edges, where, rim, width, window)
    return [e for e in edges if e.length() > 0], where


def _find_rim(edges: Sequence[Edge], where: list[Point], window: tuple[int, int]) -> list[bool]:
    """Tell which nodes lie on the window's edge; ends that nearly reach it are moved onto it."""
    degree = _count_degrees(edges)
    moved = {}
    for node, (x, y) in enumerate(where):
        gaps = (x, y, window[0] - x, window[1] - y)
        if degree[node] == 1 and 0 < min(gaps) < EDGE:
            side = gaps.index(min(gaps))
            on = (0.0, y), (x, 0.0), (float(window[0]), y), (x, float(window[1]))
            where[node] = moved[node] = on[side]
    for e in edges:
        e.xy = [moved.get(e.u, e.xy[0]), *e.xy[1:-1], moved.get(e.v, e.xy[-1])]
    return [not (1e-6 < x < window[0] - 1e-6 and 1e-6 < y < window[1] - 1e-6) for x, y in where]


def _cut_leaving_shoots(edges: list[Edge], where: Sequence[Point], rim: Sequence[bool], width: float) -> list[Edge]:
    """Cut shoots to the window's edge: a way crosses it once, and a way along it does not cross it."""
    at: dict[int, list[Edge]] = defaultdict(list)
    for e in edges:
        at[e.u].append(e)
        at[e.v].append(e.turned())
    cut: set[tuple[int, int]] = set()
    for node, ways in at.items():
        if len(ways) < 3 or rim[node]:
            continue
        out = [way for way in ways if rim[way.v] and way.length() < 1.5 * width]
        inner = [way for way in ways if way not in out]
        if len(out) > 1 and inner:
            (x0, y0), (x1, y1) = where[node], _point_along(inner[0].xy, 2 * width)

            def bend(way: Edge, x: float = x0 - x1, y: float = y0 - y1) -> float:
                (ax, ay), (bx, by) = way.xy[0], way.xy[-1]
                return -((bx - ax) * x + (by - ay) * y) / (math.dist(way.xy[0], way.xy[-1]) or 1.0)

            first, *rest = sorted(out, key=bend)
            cut |= {(way.u, way.v) for way in rest if math.dist(where[way.v], where[first.v]) < 1.5 * width}
        elif out and out[0].length() < 0.6 * width:
            cut.add((out[0].u, out[0].v))
    return [e for e in edges if (e.u, e.v) not in cut and (e.v, e.u) not in cut]


def _count_degrees(edges: Sequence[Edge]) -> Counter[int]:
    return Counter(node for e in edges for node in (e.u, e.v))


def _lengthen(edges: Sequence[Edge], where: list[Point], rim: Sequence[bool], width: float, kinds: Bands) -> None:
    """Draw ways that end nowhere on to half a width from where their band ends; lines and `where` are changed."""
    degree = _count_degrees(edges)
    ends = [
        (way, e) for e in edges for way in (e, e.turned()) if degree[way.u] == 1 and not rim[way.u] and way.length() > 0
    ]
    if not ends:
        return
    tips = np.array([where[way.u] for way, _ in ends])
    behind = np.array([_point_along(way.xy, 1.5 * width) for way, _ in ends])
    ahead = tips - behind
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-6)[:, None]
    half = np.array([kinds.width(where[way.u]) / 2 for way, _ in ends])
    more = kinds.beyond(tips, ahead, 2 * half.max() + 2) - half
    for (way, e), far, tip, (x, y) in zip(ends, more.tolist(), tips.tolist(), ahead.tolist(), strict=True):
        if 0 < far < math.inf:
            where[way.u] = point = tip[0] + far * x, tip[1] + far * y
            e.xy = [point, *e.xy[1:]] if e.u == way.u else [*e.xy[:-1], point]


def _cut_shoots(edges: list[Edge], rim: Sequence[bool], width: float) -> list[Edge]:
    """Cut shoots: lines with a loose end that are shorter than the band is wide. Where all are shoots, one stays."""
    degree = _count_degrees(edges)
    shoots: dict[int, list[Edge]] = defaultdict(list)
    for e in edges:
        loose = [node for node in (e.u, e.v) if degree[node] == 1]
        if len(loose) == 1 and not rim[loose[0]] and e.length() < SHOOT * width:
            shoots[e.u + e.v - loose[0]].append(e)
    cut: set[int] = set()
    for node, found in shoots.items():
        kept = max(0, 2 - (degree[node] - len(found)))  # the way goes on in the longest
        cut.update(map(id, sorted(found, key=Edge.length, reverse=True)[kept:]))
    return [e for e in edges if id(e) not in cut]


def _join_pairs(edges: list[Edge], rim: Sequence[bool]) -> list[Edge]:
    """Join lines that meet in twos into one."""
    at: dict[int, list[Edge]] = defaultdict(list)
    for e in edges:
        at[e.u].append(e)
        at[e.v].append(e)
    left = {id(e): e for e in edges}
    for node, pair in at.items():
        if len(pair) != 2 or pair[0] is pair[1] or rim[node]:
            continue
        one, other = pair
        if one.v != node:
            one.u, one.v, one.xy = one.v, one.u, one.xy[::-1]
        tail = other if other.u == node else other.turned()
        one.v, one.xy = tail.v, one.xy + tail.xy[1:]
        at[tail.v] = [one if e is other else e for e in at[tail.v]]
        del left[id(other)]
        pair.clear()
    return list(left.values())


def _merge_junctions(
    edges: list[Edge],
    where: list[Point],
    rim: Sequence[bool],
    width: float,
    ground: shapely.Geometry,
    kinds: Bands,
) -> list[Edge]:
    """Merge junctions that a line joins which is much shorter than the band is wide; `where` is changed.

    The two forks of ways that cross at a low angle are merged first. Lines from one carriageway to the other, across
    the `ground` between them, stay.
    """
    ground = shapely.buffer(ground, -0.3)
    degree = _count_degrees(edges)
    lead = list(range(len(where)))
    members = [[node] for node in lead]

    def leader(node: int) -> int:
        while lead[node] != node:
            lead[node] = node = lead[lead[node]]
        return node

    def merge(e: Edge) -> None:
        u, v = leader(e.u), leader(e.v)
        middle = [(p + q) / 2 for p, q in zip(where[e.u], where[e.v], strict=True)]
        if u != v and not ground.contains(shapely.Point(middle)):
            lead[v] = u
            members[u] += members[v]

    def place(node: int) -> Point:
        x, y = zip(*(where[n] for n in members[leader(node)]), strict=True)
        return sum(x) / len(x), sum(y) / len(y)

    at: dict[int, list[Edge]] = defaultdict(list)
    for e in edges:
        at[e.u].append(e)
        at[e.v].append(e.turned())
    inner = [e for e in edges if degree[e.u] > 2 and degree[e.v] > 2 and not (rim[e.u] or rim[e.v])]
    for e in inner:
        if degree[e.u] == degree[e.v] == 3:
            wide = max(width, kinds.width(e.xy[len(e.xy) // 2]))
            if e.length() < FORKED * wide and _is_crossing(e, at, wide):
                merge(e)
    crossings = {node for node in range(len(where)) if len(members[leader(node)]) > 1}
    for e in inner:
        moved = e.u in crossings or e.v in crossings
        if (math.dist(place(e.u), place(e.v)) if moved else e.length()) < SAME_JUNCTION * width:
            merge(e)
    places = {node: place(node) for node in range(len(where)) if len(members[leader(node)]) > 1}
    for node, point in places.items():
        where[node] = point
    merged = []
    for e in edges:
        u, v = leader(e.u), leader(e.v)
        if u != v or e.length() >= 4 * width:  # shorter loops lie within the junction
            merged.append(Edge(u, v, [where[u], *e.xy[1:-1], where[v]]))
    return merged


def _is_crossing(e: Edge, at: Mapping[int, Sequence[Edge]], width: float) -> bool:
    """Tell whether a line between two forks is where two ways cross at a low angle: each goes on beyond the other."""
    u, v = ([w for w in at[node] if w.xy != e.xy and w.xy != e.xy[::-1]] for node in (e.u, e.v))
    if len(u) != 2 or len(v) != 2:
        return False
    return any(all(_lie_in_line(p, q, width) for p, q in zip(u, pair, strict=True)) for pair in (v, v[::-1]))


def _lie_in_line(one: Edge, other: Edge, width: float) -> bool:
    """Tell whether two ways lie in a line, beyond where thinning bends them. Short ways are judged less strictly."""
    lengths = one.length(), other.length()
    ends = []
    for way, length in zip((one, other), lengths, strict=True):
        near = min(width, length / 3)
        ends.append((_point_along(way.xy, near), _point_along(way.xy, min(4 * width, length - near))))
    ((ax, ay), (bx, by)), ((cx, cy), (dx, dy)) = ends
    least, most = (0.94, 0.4) if min(lengths) > 2 * width else (0.7, 0.8)
    r, s = (math.dist(*points) or 1.0 for points in ends)
    ux, uy = (ax - bx) / r, (ay - by) / r
    vx, vy = (dx - cx) / s, (dy - cy) / s
    if ux * vx + uy * vy < least:
        return False
    mx, my = (ux + vx) / 2, (uy + vy) / 2
    return abs((cx - ax) * my - (cy - ay) * mx) < max(most * width, 1.0)


def _straighten_junctions(
    edges: Sequence[Edge],
    where: list[Point],
    rim: Sequence[bool],
    width: float,
    window: tuple[int, int],
) -> None:
    """Move junctions to where the ways that meet there, seen from a distance, cross; lines and `where` are changed.

    Thinning draws a way towards each that joins it. So what lies nearer to a junction than three quarters of a band's
    width is left out, and the point nearest to the lines of the ways beyond that (least squares) takes its place.
    """
    near, far = 0.75 * width, 2.5 * width
    meets: dict[int, list[Edge]] = defaultdict(list)
    for e in edges:
        meets[e.u].append(e)
        meets[e.v].append(e.turned())
    moved = list(where)
    for node, ways in meets.items():
        if len(ways) < 3 or rim[node]:
            continue
        # Normal equations, with a weak spring to where the node is: parallel ways cross nowhere.
        x, y = where[node]
        a, b, c, p, q = 0.02, 0.0, 0.02, 0.02 * x, 0.02 * y
        long = [way for way in ways if way.length() >= 1.5 * near]
        for weight, (x0, y0), (x1, y1) in _find_courses(long, near, far):
            run = math.hypot(x1 - x0, y1 - y0) or 1.0
            nx, ny = (y0 - y1) / run, (x1 - x0) / run
            offset = nx * x0 + ny * y0
            a, b, c = a + weight * nx * nx, b + weight * nx * ny, c + weight * ny * ny
            p, q = p + weight * nx * offset, q + weight * ny * offset
        det = a * c - b * b
        point = (p * c - q * b) / det, (a * q - b * p) / det
        within = 0 < point[0] < window[0] and 0 < point[1] < window[1]
        if within and math.dist(point, where[node]) < width:
            moved[node] = point
    for e in edges:
        if e.u == e.v:  # of a loop little may be left
            e.xy = [moved[e.u], *e.xy[1:-1], moved[e.v]]
            continue
        along = [0.0, *accumulate(map(math.dist, e.xy, e.xy[1:]))]
        head, tail = (min(near, 0.4 * along[-1]) if len(meets[node]) > 2 else 0.0 for node in (e.u, e.v))
        kept = [p for p, d in zip(e.xy, along, strict=True) if head < d < along[-1] - tail]
        e.xy = [moved[e.u], *kept, moved[e.v]]
    where[:] = moved


def _find_courses(ways: Sequence[Edge], near: float, far: float) -> list[tuple[float, Point, Point]]:
    """Return the courses of ways at the junction where they meet: a weight and two points of each.

    Two ways that go on in each other have one course. It may be a curve, through the points at two distances on both
    ways. All other ways have a straight course of their own.
    """
    found = []
    at = [(_point_along(way.xy, near), _point_along(way.xy, min(2 * near, way.length()))) for way in ways]
    left = set(range(len(ways)))
    node = [way.xy[0] for way in ways]

    def opposite(pair: tuple[int, int]) -> float:
        (ax, ay), (bx, by) = ((at[i][0][0] - node[i][0], at[i][0][1] - node[i][1]) for i in pair)
        return (ax * bx + ay * by) / (math.hypot(ax, ay) * math.hypot(bx, by) or 1.0)

    for i, j in sorted(combinations(left, 2), key=opposite):
        if i not in left or j not in left or opposite((i, j)) > THROUGH:
            continue
        left -= {i, j}
        outer = min(2 * near, ways[i].length(), ways[j].length())
        (ax, ay), (bx, by) = at[i][0], at[j][0]
        (cx, cy), (dx, dy) = (_point_along(ways[k].xy, outer) for k in (i, j))
        share = near**2 / (outer**2 - near**2)
        mx, my = (ax + bx) / 2, (ay + by) / 2
        mx, my = mx + share * (mx - (cx + dx) / 2), my + share * (my - (cy + dy) / 2)
        found.append((2.0, (mx, my), (mx + bx - ax, my + by - ay)))
    return found + [(1.0, at[i][0], _point_along(ways[i].xy, min(far, ways[i].length()))) for i in left]


def _point_along(xy: Sequence[Point], distance: float) -> Point:
    """Return the point of a line that is so far from its start."""
    for (x0, y0), (x1, y1) in pairwise(xy):
        step = math.hypot(x1 - x0, y1 - y0)
        if step >= distance:
            share = distance / step
            return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        distance -= step
    return xy[-1]
