"""Coverage of a network's ways to noded centrelines.

A way is drawn as a band of one width, so its centreline is the skeleton of the band: thinned (Lee et al. 1994, by
scikit-image), taken apart at its junctions into chains, and cleared of what thinning a raster leaves behind:

- where coverage pales, a way goes on as long as it hangs together with what does not pale: models draw streets so;
- two carriageways that lie nearer than they are wide are one band that is too wide, and the mouths of a roundabout are
  most of its outer edge: there, the lines are those half a width from the band's edges (`carriageways`). Narrower gaps
  than a band between two ways are closed;
- chains are staircases, and hug one side of the band: their cells are drawn to the centre of what is covered around
  them, smoothed over a few cells and simplified (Douglas & Peucker 1973);
- a crossing comes out as two forks, which become one, as junctions do that are very near;
- ends of bands sprout into their corners: of shoots shorter than the band is wide, unless the window's edge cut them,
  only the one stays in which the way goes on;
- thinning eats up ends, by up to half a width. Those that are no junction are drawn on to half a width from where
  coverage ends, as ways are drawn with round ends.

The coverage is mirrored at the window's edge before it is thinned, and lines are cut at the edge afterwards, so that a
way which leaves the window reaches its edge; what lies along the edge, and shoots to it, are left out.
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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.morphology import skeletonize

from citygrain.geo.carriageways import AROUND, RESOLVED, Frame, divided, enclosed, without_holes

LEVEL = 0.45
"""Coverage from which a cell belongs to a band: a little below a half, for bands hardly wider than a cell, and less in
proportion for those narrower than one."""

PALE = 0.4
"""Share of `LEVEL` down to which a way goes on where it pales: real coverage hardly does, what models make does."""

APART = 2.0
"""Ways nearer than so many cells, or than a band is wide, are one."""

SMOOTHED = 2
"""Neighbours on either side over which the vertices of a chain are averaged."""

EDGE = 0.75
"""Cells from the window's edge within which a line says nothing."""

SAME_JUNCTION = 0.85
"""Widths of a way within which two junctions are one."""

SHOOT = 0.7
"""Widths of a way below which a line that ends nowhere is a shoot of thinning."""

FORKED = 4.0
"""Widths of a way within which two forks may be one crossing at a low angle."""

THROUGH = -0.6
"""Cosine of the angle between two ways from which on they go on in each other where they meet."""

SIMPLIFIED = 0.35
"""Tolerance of the simplification in cells."""


@dataclass(frozen=True)
class Network:
    """Centrelines that meet in nodes, in cells (x to the right, y down, from the window's corner).

    Attributes
    ----------
    nodes
        `(N, 2)` where they lie.
    ends
        `(M, 2)` the nodes at which each line begins and ends.
    lines
        `(M,)` LineStrings.
    band
        `(M,)` which of the bands covers most of each.
    """

    nodes: NDArray[np.float64]
    ends: NDArray[np.int64]
    lines: NDArray[np.object_]
    band: NDArray[np.int64]


def centrelines(bands: Sequence[tuple[NDArray[np.float32], float]]) -> Network:
    """Return the noded centrelines of the ways of a network.

    Parameters
    ----------
    bands
        For each kind of way its coverage, `(H, W)` in [0, 1], and the width it is drawn with, in cells. All kinds are
        one network; the earlier kind is the more important one, where several cover a line.

    References
    ----------
    Lee, T.-C., Kashyap, R. L., & Chu, C.-N. (1994). Building skeleton models via 3-D medial surface/axis thinning
    algorithms. CVGIP: Graphical Models and Image Processing 56(6).
    """
    narrow = min(width for _, width in bands)
    full = min(1.0, narrow)
    level = LEVEL * full
    part = _occupied(np.sum([cells for cells, _ in bands], axis=0) >= PALE * level)
    if part is None:
        return Network(np.empty((0, 2)), np.empty((0, 2), np.int64), np.empty(0, object), np.empty(0, np.int64))
    finer = math.ceil(max(1.0, RESOLVED / narrow))
    margin = math.ceil(max(width for _, width in bands)) + 2
    beyond = tuple(
        slice(cut.start, min(cut.stop, n) + 2 * margin) for cut, n in zip(part, bands[0][0].shape, strict=True)
    )
    layers = [(_finer(np.pad(cells, margin, mode="symmetric")[beyond], finer), width * finer) for cells, width in bands]
    covered = layers[0][0] if len(layers) == 1 else 1 - np.prod([1 - cells for cells, _ in layers], axis=0)
    near = max(narrow, APART)
    band = _band(covered, full, math.ceil(near * finer))
    thin = _thinned(without_holes(band, (near * finer) ** 2))
    xy, sizes = _chains(thin)
    xy = _smoothed(_centred(xy, covered, narrow * finer, finer), sizes)
    corner = np.array([part[1].start, part[0].start]) - margin
    height, width = bands[0][0].shape
    lines = _cut((xy + 0.5) / finer + corner, sizes, width, height)
    frame = Frame((float(corner[0]), float(corner[1])), finer)
    grounds = [
        ground
        for kind, band in enumerate(layers)
        if band[1] > APART * finer
        for ground in enclosed(kind, band, level, (near * finer) ** 2, frame)
    ]
    if grounds:
        lines = divided(lines, grounds, bands, level)
    between = shapely.union_all([ground.shape for ground in grounds if not ground.island])
    edges, where = _cleared(lines, near, (width, height), between, _Bands(bands, level))
    return _network(edges, where, [cells for cells, _ in bands])


def _band(covered: NDArray[np.float32], full: float, reach: int) -> NDArray[np.bool_]:
    """Return the cells of ways whose middle is covered by `full`.

    A way that pales goes on: where nothing within reach is covered fully, the level sinks in proportion, and what is
    covered to there, with what links it to the rest, is kept as far as it hangs together with what is above the usual
    level (hysteresis, Canny 1986). The edges of a way that does not pale are no part of it.
    """
    around = ndimage.maximum_filter(covered, 2 * reach + 1)
    sure = covered >= LEVEL * full
    pale = ~sure & (covered >= LEVEL * np.clip(around, PALE * full, full))
    links = ndimage.maximum_filter(pale, 2 * reach + 1) & (covered >= PALE * LEVEL * full)
    parts, count = ndimage.label(sure | pale | links, AROUND)
    kept = np.zeros(count + 1, bool)
    kept[parts[sure]] = True
    found: NDArray[np.bool_] = kept[parts]
    return found


def _thinned(band: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin a band; Zhang & Suen (1984), scikit-image's usual way, eats up diagonal bands from their ends."""
    thin: NDArray[np.bool_] = skeletonize(band, method="lee") > 0
    return thin


def _occupied(band: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold the band, with a free cell around where the window has one; None for no band."""
    found = []
    for axis in (1, 0):
        lines = np.flatnonzero(band.any(axis))
        if not len(lines):
            return None
        found.append(slice(max(0, lines[0] - 1), lines[-1] + 2))
    return found[0], found[1]


def _finer(cells: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate coverage on so many times finer cells."""
    for axis in (0, 1) if factor > 1 else ():
        n = cells.shape[axis]
        at = (np.arange(n * factor) + 0.5) / factor - 0.5
        low = np.clip(np.floor(at).astype(int), 0, n - 1)
        share = np.clip(at - low, 0, 1).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        cells = cells.take(low, axis) * (1 - share) + cells.take(np.minimum(low + 1, n - 1), axis) * share
    return cells


def _chains(thin: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Take a skeleton apart into chains of cells from one junction or end to the next, both included.

    Cells that touch at a corner are linked unless a third cell links them already. Junction cells that touch are one
    junction, at their mean.

    Returns
    -------
    xy, sizes
        `(N, 2)` columns and rows of the cells, chain after chain, and `(K,)` how many each chain has.
    """
    thin[[0, -1]] = thin[:, [0, -1]] = False  # far outside the window; so that no cell's neighbours are a row further
    rows, columns = np.nonzero(thin)
    across = thin.shape[1]
    flat = rows * across + columns
    n = len(flat)
    starts, ends = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        there = flat + down * across + right
        linked = thin[rows + down, columns + right]
        if down and right:
            linked = linked & ~thin[rows, columns + right] & ~thin[rows + 1, columns]
        starts.append(np.flatnonzero(linked))
        ends.append(np.searchsorted(flat, there[linked]))
    start, end = np.concatenate(starts), np.concatenate(ends)
    links = coo_array((np.ones(2 * len(start), np.int8), (np.r_[start, end], np.r_[end, start])), shape=(n, n)).tocsr()
    degree = np.diff(links.indptr)
    inner = (degree[start] > 2) & (degree[end] > 2)
    among = coo_array((np.ones(inner.sum(), np.int8), (start[inner], end[inner])), shape=(n, n))
    _, junction = connected_components(among, directed=False)
    paths = _paths(links.indptr.tolist(), links.indices.tolist(), degree.tolist(), junction.tolist())
    cells = np.stack([columns, rows], 1).astype(float)
    members = np.bincount(junction)
    centre = np.stack([np.bincount(junction, cells[:, i]) / members for i in (0, 1)], 1)[junction]
    sizes = np.array([len(path) for path in paths], np.int64)
    order = np.array([cell for path in paths for cell in path], np.int64)
    last = np.cumsum(sizes) - 1
    xy = cells[order]
    for tip in (last - sizes + 1, last):
        xy[tip] = centre[order[tip]]
    return xy, sizes


def _paths(first: list[int], neighbours: list[int], degree: list[int], junction: list[int]) -> list[list[int]]:
    """Follow linked cells from junction or end to the next, then around the rings that have none."""
    paths: list[list[int]] = []
    seen = [False] * len(degree)
    done: set[tuple[int, int]] = set()

    def follow(here: int, there: int) -> None:
        path = [here, there]
        while degree[there] == 2 and there != path[0]:
            seen[there] = True
            one, other = neighbours[first[there] : first[there + 1]]
            here, there = there, other if one == here else one
            path.append(there)
        done.add((path[-1], path[-2]))
        paths.append(path)

    for cell, links in enumerate(degree):
        if links != 2:
            for neighbour in neighbours[first[cell] : first[cell + 1]]:
                if junction[cell] != junction[neighbour] and (cell, neighbour) not in done:
                    follow(cell, neighbour)
    for cell, links in enumerate(degree):
        if links == 2 and not seen[cell]:
            seen[cell] = True
            follow(cell, neighbours[first[cell]])
    return paths


def _centred(xy: NDArray[np.float64], covered: NDArray[np.float32], width: float, most: float) -> NDArray[np.float64]:
    """Draw the cells of chains, by at most `most`, to the centre of what is covered around them."""
    reach = math.ceil(width / 2) + 1
    steps = np.arange(-reach, reach + 1)
    column, row = xy.round().astype(int).T
    rows = np.clip(row[:, None] + steps, 0, covered.shape[0] - 1)
    columns = np.clip(column[:, None] + steps, 0, covered.shape[1] - 1)
    around = covered[rows[:, :, None], columns[:, None, :]]
    mass = around.sum((1, 2)) + 1e-6
    shift = np.stack([around.sum(1) @ steps, around.sum(2) @ steps], 1) / mass[:, None]
    return xy + np.clip(shift, -most, most)


def _smoothed(xy: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average the vertices of chains with their neighbours, ends in place."""
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    i = np.arange(len(xy))
    reach = np.minimum(np.minimum(i - first, first + np.repeat(sizes, sizes) - 1 - i), SMOOTHED)
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(xy, axis=0)])
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)[:, None]


def _cut(xy: NDArray[np.float64], sizes: NDArray[np.int64], width: int, height: int) -> NDArray[np.object_]:
    """Simplify chains, and cut them at the window's edge."""
    lines = shapely.linestrings(xy, indices=np.repeat(np.arange(len(sizes)), sizes))
    lines = shapely.simplify(lines, SIMPLIFIED, preserve_topology=False)
    parts = shapely.get_parts(shapely.clip_by_rect(lines, 0, 0, width, height))
    west, south, east, north = shapely.bounds(parts).T
    along = (east < EDGE) | (north < EDGE) | (west > width - EDGE) | (south > height - EDGE)
    return parts[(shapely.get_type_id(parts) == 1) & (shapely.length(parts) > 0) & ~along]


_Point = tuple[float, float]


@dataclass(frozen=True)
class _Bands:
    """Coverage and width of each kind of way, in cells of the window, and the least coverage of a band's cells."""

    bands: Sequence[tuple[NDArray[np.float32], float]]
    level: float

    def width(self, point: _Point) -> float:
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
class _Edge:
    """A line from node `u` to node `v`. What is done to a network is done to few points at a time: plain numbers."""

    u: int
    v: int
    xy: list[_Point]

    def length(self) -> float:
        return sum(map(math.dist, self.xy, self.xy[1:]))

    def turned(self) -> _Edge:
        return _Edge(self.v, self.u, self.xy[::-1])


def _cleared(
    lines: NDArray[np.object_], width: float, window: tuple[int, int], ground: shapely.Geometry, kinds: _Bands
) -> tuple[list[_Edge], list[_Point]]:
    """Merge near junctions, cut shoots and join lines that meet in twos; return the lines and where nodes lie."""
    found: dict[_Point, int] = {}
    edges: list[_Edge] = []
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    points = list(map(tuple, coordinates.tolist()))
    cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(points)]
    for start, stop in pairwise(cuts):
        piece = points[start:stop]
        if piece:
            u, v = (found.setdefault((round(x, 3), round(y, 3)), len(found)) for x, y in (piece[0], piece[-1]))
            edges.append(_Edge(u, v, piece))
    where = list(found)
    rim = _at_rim(edges, where, window)
    edges = _leaving(edges, where, rim, width)
    _lengthen(edges, where, rim, width, kinds)
    edges = _joined(_unshot(edges, rim, width), rim)
    edges = _merged(edges, where, rim, width, ground, kinds)
    edges = _joined(_unshot(edges, rim, width), rim)
    _straighten(edges, where, rim, width, window)
    return [e for e in edges if e.length() > 0], where


def _at_rim(edges: Sequence[_Edge], where: list[_Point], window: tuple[int, int]) -> list[bool]:
    """Tell which nodes lie on the window's edge; ends that all but reach it are moved there."""
    degree = _degrees(edges)
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


def _leaving(edges: list[_Edge], where: Sequence[_Point], rim: Sequence[bool], width: float) -> list[_Edge]:
    """Cut shoots to the window's edge: a way leaves it once, and one along it does not."""
    at: dict[int, list[_Edge]] = defaultdict(list)
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
            (x0, y0), (x1, y1) = where[node], _along(inner[0].xy, 2 * width)

            def bend(way: _Edge, x: float = x0 - x1, y: float = y0 - y1) -> float:
                (ax, ay), (bx, by) = way.xy[0], way.xy[-1]
                return -((bx - ax) * x + (by - ay) * y) / (math.dist(way.xy[0], way.xy[-1]) or 1.0)

            first, *rest = sorted(out, key=bend)
            cut |= {(way.u, way.v) for way in rest if math.dist(where[way.v], where[first.v]) < 1.5 * width}
        elif out and out[0].length() < 0.6 * width:
            cut.add((out[0].u, out[0].v))
    return [e for e in edges if (e.u, e.v) not in cut and (e.v, e.u) not in cut]


def _degrees(edges: Sequence[_Edge]) -> Counter[int]:
    return Counter(node for e in edges for node in (e.u, e.v))


def _lengthen(edges: Sequence[_Edge], where: list[_Point], rim: Sequence[bool], width: float, kinds: _Bands) -> None:
    """Draw ways that end nowhere on to half a width from where their band ends; lines and `where` are changed."""
    degree = _degrees(edges)
    ends = [
        (way, e) for e in edges for way in (e, e.turned()) if degree[way.u] == 1 and not rim[way.u] and way.length() > 0
    ]
    if not ends:
        return
    tips = np.array([where[way.u] for way, _ in ends])
    behind = np.array([_along(way.xy, 1.5 * width) for way, _ in ends])
    ahead = tips - behind
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-6)[:, None]
    half = np.array([kinds.width(where[way.u]) / 2 for way, _ in ends])
    more = kinds.beyond(tips, ahead, 2 * half.max() + 2) - half
    for (way, e), far, tip, (x, y) in zip(ends, more.tolist(), tips.tolist(), ahead.tolist(), strict=True):
        if 0 < far < math.inf:
            where[way.u] = point = tip[0] + far * x, tip[1] + far * y
            e.xy = [point, *e.xy[1:]] if e.u == way.u else [*e.xy[:-1], point]


def _unshot(edges: list[_Edge], rim: Sequence[bool], width: float) -> list[_Edge]:
    """Cut shoots: lines that end nowhere and are shorter than the band is wide. Of those that end a way one stays."""
    degree = _degrees(edges)
    shoots: dict[int, list[_Edge]] = defaultdict(list)
    for e in edges:
        loose = [node for node in (e.u, e.v) if degree[node] == 1]
        if len(loose) == 1 and not rim[loose[0]] and e.length() < SHOOT * width:
            shoots[e.u + e.v - loose[0]].append(e)
    cut: set[int] = set()
    for node, found in shoots.items():
        kept = max(0, 2 - (degree[node] - len(found)))  # the way goes on in the longest
        cut.update(map(id, sorted(found, key=_Edge.length, reverse=True)[kept:]))
    return [e for e in edges if id(e) not in cut]


def _joined(edges: list[_Edge], rim: Sequence[bool]) -> list[_Edge]:
    """Join lines that meet in twos into one."""
    at: dict[int, list[_Edge]] = defaultdict(list)
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


def _merged(
    edges: list[_Edge],
    where: list[_Point],
    rim: Sequence[bool],
    width: float,
    ground: shapely.Geometry,
    kinds: _Bands,
) -> list[_Edge]:
    """Draw junctions together that a line much shorter than the band is wide joins; `where` is changed.

    So are the two forks of ways that cross at a low angle, before all others. Lines from one carriageway to the other,
    across the `ground` between, stay.
    """
    ground = shapely.buffer(ground, -0.3)
    degree = _degrees(edges)
    lead = list(range(len(where)))
    members = [[node] for node in lead]

    def leader(node: int) -> int:
        while lead[node] != node:
            lead[node] = node = lead[lead[node]]
        return node

    def merge(e: _Edge) -> None:
        u, v = leader(e.u), leader(e.v)
        middle = [(p + q) / 2 for p, q in zip(where[e.u], where[e.v], strict=True)]
        if u != v and not ground.contains(shapely.Point(middle)):
            lead[v] = u
            members[u] += members[v]

    def place(node: int) -> _Point:
        x, y = zip(*(where[n] for n in members[leader(node)]), strict=True)
        return sum(x) / len(x), sum(y) / len(y)

    at: dict[int, list[_Edge]] = defaultdict(list)
    for e in edges:
        at[e.u].append(e)
        at[e.v].append(e.turned())
    inner = [e for e in edges if degree[e.u] > 2 and degree[e.v] > 2 and not (rim[e.u] or rim[e.v])]
    for e in inner:
        if degree[e.u] == degree[e.v] == 3:
            wide = max(width, kinds.width(e.xy[len(e.xy) // 2]))
            if e.length() < FORKED * wide and _crossing(e, at, wide):
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
            merged.append(_Edge(u, v, [where[u], *e.xy[1:-1], where[v]]))
    return merged


def _crossing(e: _Edge, at: Mapping[int, Sequence[_Edge]], width: float) -> bool:
    """Tell whether a line between two forks is where two ways cross at a low angle: each goes on beyond the other."""
    u, v = ([w for w in at[node] if w.xy != e.xy and w.xy != e.xy[::-1]] for node in (e.u, e.v))
    if len(u) != 2 or len(v) != 2:
        return False
    return any(all(_in_line(p, q, width) for p, q in zip(u, pair, strict=True)) for pair in (v, v[::-1]))


def _in_line(one: _Edge, other: _Edge, width: float) -> bool:
    """Tell whether two ways lie in a line, beyond where thinning bends them; of short ones not much can be told."""
    lengths = one.length(), other.length()
    ends = []
    for way, length in zip((one, other), lengths, strict=True):
        near = min(width, length / 3)
        ends.append((_along(way.xy, near), _along(way.xy, min(4 * width, length - near))))
    ((ax, ay), (bx, by)), ((cx, cy), (dx, dy)) = ends
    least, most = (0.94, 0.4) if min(lengths) > 2 * width else (0.7, 0.8)
    r, s = (math.dist(*points) or 1.0 for points in ends)
    ux, uy = (ax - bx) / r, (ay - by) / r
    vx, vy = (dx - cx) / s, (dy - cy) / s
    if ux * vx + uy * vy < least:
        return False
    mx, my = (ux + vx) / 2, (uy + vy) / 2
    return abs((cx - ax) * my - (cy - ay) * mx) < max(most * width, 1.0)


def _straighten(
    edges: Sequence[_Edge],
    where: list[_Point],
    rim: Sequence[bool],
    width: float,
    window: tuple[int, int],
) -> None:
    """Move junctions to where the ways that meet there, seen from a distance, cross; lines and `where` are changed.

    Thinning draws a way towards each that joins it. So what lies nearer to a junction than three quarters of a band's
    width is left out, and the point nearest to the lines of the ways beyond that (least squares) takes its place.
    """
    near, far = 0.75 * width, 2.5 * width
    meets: dict[int, list[_Edge]] = defaultdict(list)
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
        for weight, (x0, y0), (x1, y1) in _courses(long, near, far):
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


def _courses(ways: Sequence[_Edge], near: float, far: float) -> list[tuple[float, _Point, _Point]]:
    """Return two points of the course that ways which meet take where they do, and the weight of each course.

    Two ways that go on in each other have one course, which may be a curve: it is that through the points at two
    distances on both. The others go straight on.
    """
    found = []
    at = [(_along(way.xy, near), _along(way.xy, min(2 * near, way.length()))) for way in ways]
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
        (cx, cy), (dx, dy) = (_along(ways[k].xy, outer) for k in (i, j))
        share = near**2 / (outer**2 - near**2)
        mx, my = (ax + bx) / 2, (ay + by) / 2
        mx, my = mx + share * (mx - (cx + dx) / 2), my + share * (my - (cy + dy) / 2)
        found.append((2.0, (mx, my), (mx + bx - ax, my + by - ay)))
    return found + [(1.0, at[i][0], _along(ways[i].xy, min(far, ways[i].length()))) for i in left]


def _along(xy: Sequence[_Point], distance: float) -> _Point:
    """Return the point of a line that is so far from its start."""
    for (x0, y0), (x1, y1) in pairwise(xy):
        step = math.hypot(x1 - x0, y1 - y0)
        if step >= distance:
            share = distance / step
            return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        distance -= step
    return xy[-1]


def _network(edges: Sequence[_Edge], where: Sequence[_Point], bands: Sequence[NDArray[np.float32]]) -> Network:
    """Number the nodes that are left, and tell by which band a line is covered."""
    used, ends = np.unique(np.array([(e.u, e.v) for e in edges], np.int64).reshape(-1, 2), return_inverse=True)
    owner = np.repeat(np.arange(len(edges)), [len(e.xy) for e in edges])
    points = np.array([p for e in edges for p in e.xy]).reshape(-1, 2)
    lines = shapely.simplify(shapely.linestrings(points, indices=owner), SIMPLIFIED, preserve_topology=False)
    xy, owner = shapely.get_coordinates(shapely.segmentize(lines, 1.0), return_index=True)
    column, row = np.clip(xy.astype(int), 0, np.array(bands[0].shape)[::-1] - 1).T
    covered = np.stack([np.bincount(owner, cells[row, column], len(edges)) for cells in bands])
    first = covered >= LEVEL * np.bincount(owner, minlength=len(edges))  # of equals, argmax takes the first
    band = np.where(first.any(0), first.argmax(0), covered.argmax(0))
    return Network(np.array(where).reshape(-1, 2)[used], ends.reshape(-1, 2), lines, band)
