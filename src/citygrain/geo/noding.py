"""Networks of lines that meet in nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.geo.rasterize import Grid

SAME_M = 1e-3
"""What is nearer to each other than this lies at the same place."""


@dataclass(frozen=True)
class Ways:
    """A network: lines that meet in nodes, in metres in a CRS.

    Attributes
    ----------
    lines
        `(M,)` LineStrings.
    kind
        `(M,)` the channel of each.
    ends
        `(M, 2)` the nodes at which each begins and ends.
    nodes
        `(N, 2)` where they lie.
    at_edge
        `(N,)` whether the layout's edge cut a way off there.
    apart
        `(M,)` which lines cross others without meeting them, on a bridge or in a cutting; None for none.
    """

    lines: NDArray[np.object_]
    kind: NDArray[np.str_]
    ends: NDArray[np.int64]
    nodes: NDArray[np.float64]
    at_edge: NDArray[np.bool_]
    apart: NDArray[np.bool_] | None = None

    @property
    def street_count(self) -> NDArray[np.int64]:
        """How many ways meet at each node, `(N,)`; a ring meets itself."""
        return np.bincount(self.ends.ravel(), minlength=len(self.nodes))


def node_lines(
    lines: NDArray[np.object_], kinds: NDArray[np.str_], grid: Grid, apart: NDArray[np.bool_] | None = None
) -> Ways:
    """Make a network of lines that meet wherever they cross, unless one of the two is apart.

    Parameters
    ----------
    lines, kinds
        `(N,)` LineStrings in the CRS of the grid, and the channel of each.
    grid
        Where the layout lies.
    apart
        `(N,)` which lines cross others without meeting them, on a bridge or in a cutting. They meet others at ends.
    """
    level = np.ones(len(lines), bool) if apart is None else ~apart
    pieces = shapely.get_parts(shapely.line_merge(shapely.union_all(lines[level], grid_size=SAME_M)))
    bridge = np.zeros(len(pieces), bool)
    if not level.all():
        bridges = shapely.set_precision(lines[~level], SAME_M, mode="pointwise")
        tips = [shapely.get_point(bridges, i) for i in (0, -1)]
        others = [shapely.get_point(part, i) for part in (pieces, lines[~level]) for i in (0, -1)]
        parts = _cut_at(pieces, np.concatenate(tips)), _cut_at(bridges, np.concatenate(others))
        pieces, bridge = np.concatenate(parts), np.repeat([False, True], [len(part) for part in parts])
    some = shapely.length(pieces) > 0
    pieces, bridge = pieces[some], bridge[some]
    kind = np.empty(0, kinds.dtype)
    if len(pieces):  # a way that changes its kind between two nodes takes that of its middle
        middle = shapely.line_interpolate_point(pieces, 0.5, normalized=True)
        kind = kinds[shapely.STRtree(lines).query_nearest(middle, all_matches=False)[1]]
    ends, nodes = _find_ends(pieces)
    upright = grid.upright.to_metres(grid.to_cells(nodes)) if grid.angle else nodes
    at_edge = np.any(np.abs(upright[:, [0, 1, 0, 1]] - np.array(grid.upright.bounds)) < SAME_M, axis=1)
    return Ways(pieces, kind, ends, nodes, at_edge, None if level.all() else bridge)


def _cut_at(lines: NDArray[np.object_], points: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cut lines at the points that lie on them."""
    point, line = shapely.STRtree(lines).query(points, predicate="dwithin", distance=2 * SAME_M)
    parts: list[shapely.LineString] = list(np.delete(lines, line))
    for number in np.unique(line):
        xy, there = shapely.get_coordinates(lines[number]), points[point[line == number]]
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
        at = shapely.line_locate_point(lines[number], there)
        order = np.argsort(at)
        start, first = 0.0, xy[0]
        for stop, last in zip([*at[order], along[-1]], [*shapely.get_coordinates(there[order]), xy[-1]], strict=True):
            if stop > start + 2 * SAME_M and (stop == along[-1] or stop < along[-1] - 2 * SAME_M):
                within = xy[(along > start + SAME_M) & (along < stop - SAME_M)]
                parts.append(shapely.LineString([first, *within, last]))
                start, first = stop, last
    return np.array(parts, object)


def _find_ends(lines: NDArray[np.object_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nodes at which lines begin and end, `(M, 2)`, and where the nodes lie, `(N, 2)`.

    Ends within a millimetre of each other are one node.
    """
    ends = np.concatenate([shapely.get_coordinates(shapely.get_point(lines, i)) for i in (0, -1)])
    nodes, index = np.unique(ends.round(3), axis=0, return_inverse=True)
    return index.reshape(2, -1).T, nodes
