"""Coverage of a network's ways to noded centrelines.

A way is drawn as a band of one width, so its centreline is the skeleton of the band: thinned (Zhang & Suen 1984, by
scikit-image), taken apart at its junctions into chains, and cleared of what thinning a raster leaves behind:

- two carriageways that lie nearer than they are wide are one band that is too wide: where it is, its two centrelines
  are the lines half a width from its edges. Narrower gaps than a band between two ways are closed;
- chains are staircases, and hug one side of the band: their cells are drawn to the centre of what is covered around
  them, smoothed over a few cells and simplified (Douglas & Peucker 1973);
- a crossing comes out as two forks a band's width apart: junctions that near become one;
- ends of bands sprout into their corners: shoots shorter than the band is wide are cut, unless the window's edge cut
  them.

The coverage is continued beyond the window's edge before it is thinned, and lines are cut at the edge afterwards, so
that a way which leaves the window reaches its edge.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.morphology import skeletonize

LEVEL = 0.45
"""Coverage from which a cell belongs to a band: a little below a half, for bands hardly wider than a cell, and less in
proportion for those narrower than one."""

APART = 2.0
"""Ways and junctions nearer than so many cells, or than a band is wide, are one."""

RESOLVED = 3.0
"""Bands narrower than so many cells thin out badly, and are thinned on finer cells; what is wider than they are says
nothing."""

SMOOTHED = 2
"""Neighbours on either side over which the vertices of a chain are averaged."""

SIMPLIFIED = 0.35
"""Tolerance of the simplification in cells."""

TOO_WIDE = 0.6
"""Cells by which a band exceeds half its width, from its edge inwards, before it is taken for two."""

AROUND = np.ones((3, 3), bool)


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
    Zhang, T. Y., & Suen, C. Y. (1984). A fast parallel algorithm for thinning digital patterns. CACM 27(3).
    """
    height, across = bands[0][0].shape
    narrow = min(width for _, width in bands)
    near = max(narrow, APART)
    finer = max(1, math.ceil(RESOLVED / narrow))
    margin = math.ceil(max(width for _, width in bands)) + 2
    layers = [(_finer(np.pad(cells, margin, mode="edge"), finer), width * finer) for cells, width in bands]
    covered = 1 - np.prod([1 - cells for cells, _ in layers], axis=0)
    level = LEVEL * min(1.0, narrow)
    band = covered >= level
    if not band.any():
        return _network([], np.empty((0, 2)), layers, finer, margin)
    thin = skeletonize(_without_holes(band, (near * finer) ** 2))
    inside = np.zeros_like(band)
    for cells, width in layers:
        if width >= RESOLVED * finer:
            inside |= _between_carriageways(cells >= level, width)
    if inside.any():
        thin = skeletonize((thin & ~inside) | (inside & ~ndimage.binary_erosion(inside)))
    shift = _off_centre(covered, narrow * finer, finer) * ~inside[..., None]
    chains = [_smoothed((_centred(path, shift) + 0.5) / finer - margin) for path in _chains(thin)]
    edges, where = _cleared(_cut(chains, across, height), near, (across, height))
    return _network(edges, where, layers, finer, margin)


def _finer(cells: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate coverage on so many times finer cells."""
    if factor == 1:
        return cells
    finer: NDArray[np.float32] = ndimage.zoom(cells, factor, order=1, mode="nearest", grid_mode=True)
    return finer


def _between_carriageways(band: NDArray[np.bool_], width: float) -> NDArray[np.bool_]:
    """Cells further than half a width from the band's edges, where these are too many for one way."""
    depth = ndimage.distance_transform_edt(_without_holes(band, width**2)) - 0.5
    core, count = ndimage.label(depth > width / 2 + TOO_WIDE, AROUND)
    if not count:
        return np.zeros_like(band)
    large = np.bincount(core.ravel()) >= width**2
    large[0] = False
    near: NDArray[np.bool_] = ndimage.binary_dilation(large[core], AROUND, iterations=2) & (depth >= width / 2)
    return near


def _without_holes(band: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    holes, count = ndimage.label(~band)
    if not count:
        return band
    sizes = np.bincount(holes.ravel())
    small = sizes < area
    small[0] = False
    return band | small[holes]


def _off_centre(covered: NDArray[np.float32], width: float, most: float) -> NDArray[np.float64]:
    """How far, `(H, W, 2)` as x, y and at most `most`, a cell lies from the centre of what is covered around it."""
    reach = math.ceil(width / 2) + 1
    steps = np.arange(-reach, reach + 1) / (2 * reach + 1)
    sums = [ndimage.uniform_filter1d(covered, len(steps), axis=axis) for axis in (0, 1)]
    mass = ndimage.uniform_filter1d(sums[0], len(steps), axis=1) + 1e-6
    shift = np.stack([ndimage.correlate1d(sums[0], steps, axis=1), ndimage.correlate1d(sums[1], steps, axis=0)], -1)
    return np.clip(shift / mass[..., None], -most, most)


def _centred(path: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move the cells of a chain, but not its ends, to the centre of the band."""
    column, row = path[1:-1].astype(int).T
    return np.concatenate([path[:1], path[1:-1] + shift[row, column], path[-1:]])


def _chains(thin: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Take a skeleton apart: yields the cells `(K, 2)` as x, y from one junction or end to the next, both included.

    Cells that touch at a corner are linked unless a third cell links them already. Junction cells that touch are one
    junction, at their mean.
    """
    index = np.full(thin.shape, -1, np.int64)
    rows, columns = np.nonzero(thin)
    index[rows, columns] = np.arange(len(rows))
    a, b = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(index, down, right)
        linked = (here >= 0) & (there >= 0)
        if down and right:
            beside, below = _corners(index, down, right)
            linked &= (beside < 0) & (below < 0)
        a.append(here[linked])
        b.append(there[linked])
    start, end = np.concatenate(a), np.concatenate(b)
    n = len(rows)
    links = coo_array((np.ones(2 * len(start), np.int8), (np.r_[start, end], np.r_[end, start])), shape=(n, n)).tocsr()
    degree = np.diff(links.indptr)
    junction = degree > 2
    inner = junction[start] & junction[end]
    among = coo_array((np.ones(inner.sum(), np.int8), (start[inner], end[inner])), shape=(n, n))
    _, cluster = connected_components(among, directed=False)
    xy = np.stack([columns, rows], 1).astype(float)
    members = np.bincount(cluster)
    centre = np.stack([np.bincount(cluster, xy[:, i]) / members for i in (0, 1)], 1)

    first, neighbours = links.indptr.tolist(), links.indices.tolist()
    stop, of = (degree != 2).tolist(), cluster.tolist()
    seen = np.zeros(n, bool)
    done: set[tuple[int, int]] = set()

    def follow(here: int, there: int) -> list[int]:
        path = [here, there]
        while not stop[there] and there != path[0]:
            seen[there] = True
            one, other = neighbours[first[there] : first[there + 1]]
            here, there = there, other if one == here else one
            path.append(there)
        return path

    def placed(path: list[int]) -> NDArray[np.float64]:
        cells = xy[path]
        cells[0], cells[-1] = centre[of[path[0]]], centre[of[path[-1]]]
        return cells

    for cell in np.flatnonzero(degree != 2).tolist():
        for neighbour in neighbours[first[cell] : first[cell + 1]]:
            if of[cell] == of[neighbour] or (cell, neighbour) in done:
                continue
            path = follow(cell, neighbour)
            done.add((path[-1], path[-2]))
            yield placed(path)
    for cell in np.flatnonzero(degree == 2).tolist():  # rings without a junction
        if not seen[cell]:
            seen[cell] = True
            yield placed(follow(cell, neighbours[first[cell]]))


def _shifted(index: NDArray[np.int64], down: int, right: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Views of all cells, and of those so many rows below and columns to the right of them."""
    height, width = index.shape
    here = index[: height - down, max(0, -right) : width - max(0, right)]
    there = index[down:, max(0, right) : width + min(0, right)]
    return here, there


def _corners(index: NDArray[np.int64], down: int, right: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Views of the two cells between corner neighbours: beside the first one, and below it."""
    height, width = index.shape
    beside = index[: height - down, max(0, right) : width + min(0, right)]
    below = index[down:, max(0, -right) : width - max(0, right)]
    return beside, below


def _smoothed(chain: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average vertices with their neighbours, ends in place."""
    n = len(chain)
    if n < 4:
        return chain
    total = np.cumsum(np.concatenate([np.zeros((1, 2)), chain]), axis=0)
    i = np.arange(n)
    reach = np.minimum(np.minimum(i, n - 1 - i), SMOOTHED)
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)[:, None]


def _cut(chains: Sequence[NDArray[np.float64]], width: int, height: int) -> NDArray[np.object_]:
    """Simplify, and cut at the window's edge."""
    if not chains:
        return np.empty(0, object)
    sizes = [len(chain) for chain in chains]
    lines = shapely.linestrings(np.concatenate(chains), indices=np.repeat(np.arange(len(sizes)), sizes))
    lines = shapely.simplify(lines, SIMPLIFIED, preserve_topology=False)
    parts = shapely.get_parts(shapely.clip_by_rect(lines, 0, 0, width, height))
    return parts[(shapely.get_type_id(parts) == 1) & (shapely.length(parts) > 0)]


class _Edge:
    __slots__ = ("u", "v", "xy")

    def __init__(self, u: int, v: int, xy: NDArray[np.float64]) -> None:
        self.u, self.v, self.xy = u, v, xy

    def length(self) -> float:
        return float(np.hypot(*np.diff(self.xy, axis=0).T).sum())


def _cleared(
    lines: NDArray[np.object_], width: float, window: tuple[int, int]
) -> tuple[list[_Edge], NDArray[np.float64]]:
    """Merge near junctions, cut shoots and join lines that meet in twos."""
    xy, owner = shapely.get_coordinates(lines, return_index=True)
    pieces = np.split(xy, np.flatnonzero(np.diff(owner)) + 1) if len(xy) else []
    found: dict[tuple[float, float], int] = {}
    edges: list[_Edge] = []
    for piece in pieces:
        u, v = (found.setdefault((round(p[0], 6), round(p[1], 6)), len(found)) for p in (piece[0], piece[-1]))
        edges.append(_Edge(u, v, piece))
    where = np.array(list(found)).reshape(-1, 2)
    rim = np.any((where <= 1e-6) | (where >= np.array(window) - 1e-6), axis=1)
    edges = _joined(_unshot(edges, rim, width), rim)
    edges, where = _merged(edges, where, rim, width)
    edges = _joined(_unshot(edges, rim, width), rim)
    return edges, _straightened(edges, where, width)


def _straightened(edges: Sequence[_Edge], where: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Move junctions to where the ways that meet there, seen from a distance, cross; return the nodes.

    Thinning draws a way towards each that joins it. So what lies nearer to a junction than three quarters of a band's
    width is left out, and the point nearest to the lines of the ways beyond that (least squares) takes its place.
    """
    near, far = 0.75 * width, 2.5 * width
    meets: dict[int, list[tuple[_Edge, bool]]] = defaultdict(list)
    for e in edges:
        meets[e.u].append((e, False))
        meets[e.v].append((e, True))
    moved = where.copy()
    for node, ways in meets.items():
        if len(ways) < 3:
            continue
        normal, aim = 0.02 * np.eye(2), 0.02 * where[node]  # a weak spring: parallel ways cross nowhere
        for e, backwards in ways:
            xy = e.xy[::-1] if backwards else e.xy
            along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
            if along[-1] < 1.5 * near:
                continue
            steps = np.array([near, min(far, along[-1])])
            (x0, x1), (y0, y1) = np.interp(steps, along, xy[:, 0]), np.interp(steps, along, xy[:, 1])
            across = np.array([y0 - y1, x1 - x0])
            across /= np.hypot(*across) or 1.0
            weight = np.outer(across, across)
            normal, aim = normal + weight, aim + weight @ (x0, y0)
        point = np.linalg.solve(normal, aim)
        if np.hypot(*(point - where[node])) < width:
            moved[node] = point
    for e in edges:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(e.xy, axis=0).T))])
        cut = [min(near, 0.4 * along[-1]) if len(meets[n]) > 2 else 0.0 for n in (e.u, e.v)]
        keep = (along > cut[0]) & (along < along[-1] - cut[1])
        e.xy = np.concatenate([moved[[e.u]], e.xy[keep], moved[[e.v]]])
    return moved


def _unshot(edges: list[_Edge], rim: NDArray[np.bool_], width: float) -> list[_Edge]:
    """Cut shoots: lines that end nowhere and are shorter than the band is wide, unless they are all there is."""
    degree = _degrees(edges, len(rim))
    return [
        e
        for e in edges
        if not (
            (degree[e.u] == 1) != (degree[e.v] == 1)
            and not rim[e.u if degree[e.u] == 1 else e.v]
            and e.length() < width
        )
    ]


def _degrees(edges: Sequence[_Edge], n: int) -> NDArray[np.int64]:
    return np.bincount([i for e in edges for i in (e.u, e.v)], minlength=n)


def _merged(
    edges: list[_Edge], where: NDArray[np.float64], rim: NDArray[np.bool_], width: float
) -> tuple[list[_Edge], NDArray[np.float64]]:
    """Draw junctions together that a line shorter than the band's width joins."""
    degree = _degrees(edges, len(where))
    short = [
        (e.u, e.v)
        for e in edges
        if e.u != e.v and degree[e.u] > 2 and degree[e.v] > 2 and not (rim[e.u] or rim[e.v]) and e.length() < width
    ]
    if not short:
        return edges, where
    n = len(where)
    a, b = np.array(short).T
    _, cluster = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n)), directed=False)
    members = np.bincount(cluster)
    centre = np.stack([np.bincount(cluster, where[:, i]) / members for i in (0, 1)], 1)[cluster]
    lead = np.full(len(members), n)
    np.minimum.at(lead, cluster, np.arange(n))
    alias = lead[cluster]
    merged = []
    for e in edges:
        u, v = int(alias[e.u]), int(alias[e.v])
        if u == v and e.length() < 4 * width:
            continue  # within a junction
        ends = centre[[u, v]]
        merged.append(_Edge(u, v, np.concatenate([ends[:1], e.xy[1:-1], ends[1:]])))
    moved = where.copy()
    moved[alias] = centre
    return merged, moved


def _joined(edges: list[_Edge], rim: NDArray[np.bool_]) -> list[_Edge]:
    """Join lines that meet in twos into one."""
    at: dict[int, list[_Edge]] = defaultdict(list)
    for e in edges:
        at[e.u].append(e)
        at[e.v].append(e)
    result = {id(e): e for e in edges}
    for node, pair in at.items():
        if len(pair) != 2 or pair[0] is pair[1] or rim[node]:
            continue
        one, other = pair
        if one.v != node:
            one.u, one.v, one.xy = one.v, one.u, one.xy[::-1]
        if other.u != node:
            other.u, other.v, other.xy = other.v, other.u, other.xy[::-1]
        one.v, one.xy = other.v, np.concatenate([one.xy, other.xy[1:]])
        at[other.v] = [one if e is other else e for e in at[other.v]]
        del result[id(other)]
        pair.clear()
    return list(result.values())


def _network(
    edges: Sequence[_Edge],
    where: NDArray[np.float64],
    layers: Sequence[tuple[NDArray[np.float32], float]],
    finer: int,
    margin: int,
) -> Network:
    """Number the nodes that are left, and tell by which band a line is covered."""
    if not edges:
        return Network(np.empty((0, 2)), np.empty((0, 2), np.int64), np.empty(0, object), np.empty(0, np.int64))
    used, ends = np.unique([(e.u, e.v) for e in edges], return_inverse=True)
    sizes = np.array([len(e.xy) for e in edges])
    lines = shapely.linestrings(np.concatenate([e.xy for e in edges]), indices=np.repeat(np.arange(len(edges)), sizes))
    lines = shapely.simplify(lines, SIMPLIFIED, preserve_topology=False)
    xy, owner = shapely.get_coordinates(shapely.segmentize(lines, 1.0), return_index=True)
    column, row = np.clip(((xy + margin) * finer).astype(int), 0, np.array(layers[0][0].shape)[::-1] - 1).T
    covered = np.stack([np.bincount(owner, cells[row, column]) for cells, _ in layers]) / np.bincount(owner)
    first = covered >= LEVEL  # argmax takes the first of equals, so the most important band that covers it
    return Network(where[used], ends.reshape(-1, 2), lines, np.where(first.any(0), first.argmax(0), covered.argmax(0)))
