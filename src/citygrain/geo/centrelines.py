"""Coverage of a network's ways to noded centrelines.

A way is drawn as a band of one width, so its centreline is the skeleton of the band: thinned (Lee et al. 1994, by
scikit-image), taken apart at its junctions into chains, and cleared of what thinning a raster leaves behind:

- where coverage gets low (pale), a way goes on as long as it is connected to what is not: models draw such streets;
- two carriageways that lie nearer to each other than they are wide are one band that is too wide, and most of the outer
  edge of a roundabout is mouths of ways: there, the lines are those half a width within the band's edges
  (`carriageways`). Gaps between two ways that are narrower than a way are closed;
- chains are staircases, and hug one side of the band: their cells are drawn to the centre of what is covered around
  them, smoothed over a few cells and simplified (Douglas & Peucker 1973);
- a crossing comes out as two forks, which become one, as junctions do that are very near;
- at the end of a band, thinning makes shoots into its corners. Of shoots that are shorter than the band is wide only
  one stays, in which the way goes on; shoots that the window's edge cut stay too;
- thinning eats up ends, by up to half a width. Those that are no junction are drawn on to half a width from where
  coverage ends, as ways are drawn with round ends.

The coverage is mirrored at the window's edge before it is thinned, and lines are cut at the edge afterwards, so that a
way which leaves the window reaches its edge; what lies along the edge, and shoots to it, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from citygrain.geo.carriageways import divide_roads
from citygrain.geo.enclosed_ground import AROUND, RESOLVED, Frame, fill_holes, find_enclosed_ground
from citygrain.geo.junctions import EDGE, Bands, Edge, Point, clear_lines
from citygrain.geo.skeleton import centre_chains, smooth_chains, thin_band, trace_chains

LEVEL = 0.45
"""Coverage from which a cell belongs to a band: a little below a half, for bands that are hardly wider than a cell. For
bands narrower than a cell it is less, in proportion."""

PALE = 0.4
"""Share of `LEVEL` down to which a way goes on where it pales. Real coverage hardly pales, that of models does."""

APART = 2.0
"""Ways nearer than this many cells, or than a band is wide, are one."""

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


def trace_centrelines(bands: Sequence[tuple[NDArray[np.float32], float]]) -> Network:
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
    part = _find_occupied(np.sum([cells for cells, _ in bands], axis=0) >= PALE * level)
    if part is None:
        return Network(np.empty((0, 2)), np.empty((0, 2), np.int64), np.empty(0, object), np.empty(0, np.int64))
    finer = math.ceil(max(1.0, RESOLVED / narrow))
    margin = math.ceil(max(width for _, width in bands)) + 2
    beyond = tuple(
        slice(cut.start, min(cut.stop, n) + 2 * margin) for cut, n in zip(part, bands[0][0].shape, strict=True)
    )
    layers = [
        (_refine(np.pad(cells, margin, mode="symmetric")[beyond], finer), width * finer) for cells, width in bands
    ]
    covered = layers[0][0] if len(layers) == 1 else 1 - np.prod([1 - cells for cells, _ in layers], axis=0)
    near = max(narrow, APART)
    band = _find_band(covered, full, math.ceil(near * finer))
    thin = thin_band(fill_holes(band, (near * finer) ** 2))
    xy, sizes = trace_chains(thin)
    xy = smooth_chains(centre_chains(xy, covered, narrow * finer, finer), sizes)
    corner = np.array([part[1].start, part[0].start]) - margin
    height, width = bands[0][0].shape
    lines = _cut_lines((xy + 0.5) / finer + corner, sizes, width, height)
    frame = Frame((float(corner[0]), float(corner[1])), finer)
    grounds = [
        ground
        for kind, band in enumerate(layers)
        if band[1] > APART * finer
        for ground in find_enclosed_ground(kind, band, level, (near * finer) ** 2, frame)
    ]
    if grounds:
        lines = divide_roads(lines, grounds, bands, level)
    between = shapely.union_all([ground.shape for ground in grounds if not ground.island])
    edges, where = clear_lines(lines, near, (width, height), between, Bands(bands, level))
    return _build_network(edges, where, [cells for cells, _ in bands])


def _find_band(covered: NDArray[np.float32], full: float, reach: int) -> NDArray[np.bool_]:
    """Return the cells of ways whose middle is covered by `full`.

    A way that pales goes on: where nothing within reach is covered fully, the level is lower in proportion. Pale cells,
    with the cells that link them to the rest, are kept as far as they are connected to cells above the usual level
    (hysteresis, Canny 1986). The pale edges of a way that is fully covered do not count.
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


def _find_occupied(band: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """Rows and columns that hold the band, with a free cell around where the window has one; None for no band."""
    found = []
    for axis in (1, 0):
        lines = np.flatnonzero(band.any(axis))
        if not len(lines):
            return None
        found.append(slice(max(0, lines[0] - 1), lines[-1] + 2))
    return found[0], found[1]


def _refine(cells: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Interpolate coverage on this many times finer cells."""
    for axis in (0, 1) if factor > 1 else ():
        n = cells.shape[axis]
        at = (np.arange(n * factor) + 0.5) / factor - 0.5
        low = np.clip(np.floor(at).astype(int), 0, n - 1)
        share = np.clip(at - low, 0, 1).astype(np.float32)
        share = share[:, None] if axis == 0 else share
        cells = cells.take(low, axis) * (1 - share) + cells.take(np.minimum(low + 1, n - 1), axis) * share
    return cells


def _cut_lines(xy: NDArray[np.float64], sizes: NDArray[np.int64], width: int, height: int) -> NDArray[np.object_]:
    """Simplify chains, and cut them at the window's edge."""
    lines = shapely.linestrings(xy, indices=np.repeat(np.arange(len(sizes)), sizes))
    lines = shapely.simplify(lines, SIMPLIFIED, preserve_topology=False)
    parts = shapely.get_parts(shapely.clip_by_rect(lines, 0, 0, width, height))
    west, south, east, north = shapely.bounds(parts).T
    along = (east < EDGE) | (north < EDGE) | (west > width - EDGE) | (south > height - EDGE)
    return parts[(shapely.get_type_id(parts) == 1) & (shapely.length(parts) > 0) & ~along]


def _build_network(edges: Sequence[Edge], where: Sequence[Point], bands: Sequence[NDArray[np.float32]]) -> Network:
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
