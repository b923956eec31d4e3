"""Natural streets ("strokes"): ways merged by good continuation where they meet.

A street is mapped in pieces, from one junction to the next. People see it as one line that goes on through junctions as
long as it hardly bends (Thomson & Richardson 1999). So a grid of 10 × 10 streets is 20 strokes, and not 220 edges, and
that a street is straight is a property of one stroke. Where only two pieces meet there is no junction: they are one
stroke, whatever their angle.

References
----------
Thomson, R. C. & Richardson, D. E. (1999). The "good continuation" principle of perceptual organization applied to the
generalization of road networks. *Proceedings of the 19th International Cartographic Conference*.

Tripathy, P., Rao, P., Balakrishnan, K. & Malladi, T. (2021). An open-source tool to extract natural continuity and
hierarchy of urban street networks. *Environment and Planning B* 48(8).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

DEFLECTION_DEG = 45.0
"""A street goes on at a junction in the piece that bends least, if it bends by less than this."""

AHEAD_M = 15.0
"""The bearing of a piece at its end is that of the chord to the point this far along it."""

SAME_M = 0.01
"""Vertices that are nearer to each other than this are one."""

SHARED_M = 0.75
"""Two vertices are shared when they are this near to each other: vector tiles round to 0.6 m."""

Lines = NDArray[np.object_]
"""`(N,)` shapely LineStrings, in metres."""


def merge_strokes(ways: Mapping[str, ArrayLike]) -> dict[str, Lines]:
    """Merge the ways of each channel into strokes.

    Parameters
    ----------
    ways
        Channel → `(N,)` LineStrings or MultiLineStrings in a CRS in metres. Ways of one channel meet wherever they
        touch or cross; what is mapped twice counts once.

    Returns
    -------
    dict
        Channel → its strokes. No stroke goes on in another channel.

    Examples
    --------
    >>> cross = shapely.linestrings([[[0, 0], [50, 0]], [[50, 0], [99, 5]], [[50, 60], [50, 0]]])
    >>> [len(line.coords) for line in merge_strokes({"street": cross})["street"]]
    [3, 2]
    """
    return {channel: _merge_lines(np.asarray(lines, object)) for channel, lines in ways.items()}


def find_apart(strokes: Lines, ways: Lines) -> NDArray[np.bool_]:
    """Tell which strokes cross most others without meeting them, on a bridge or in a cutting, `(N,)`.

    Two ways that meet share a vertex where they cross; a bridge and the way below it do not.

    Parameters
    ----------
    strokes
        The strokes of one network.
    ways
        The ways that they were merged of, with all their vertices.
    """
    if not len(strokes):
        return np.zeros(0, bool)
    xy, owner = shapely.get_coordinates(strokes, return_index=True)
    same = owner[1:] == owner[:-1]
    inner = np.append(False, same) & np.append(same, False)
    # Strokes of one channel have a vertex wherever they cross.
    _, place, count = np.unique(xy[inner].round(2), axis=0, return_inverse=True, return_counts=True)
    shared = count[place] > 1
    # Those of two channels may cross between vertices.
    segments = shapely.linestrings(np.stack([xy[:-1][same], xy[1:][same]], 1))
    one, other = shapely.STRtree(segments).query(segments, predicate="crosses")
    crossing = shapely.get_coordinates(shapely.intersection(segments[one], segments[other]))
    points = np.concatenate([xy[inner][shared], crossing])
    of = np.concatenate([owner[inner][shared], owner[:-1][same][one]])
    if not len(points):
        return np.zeros(len(strokes), bool)
    near = cKDTree(shapely.get_coordinates(ways)).query_ball_point(points, SHARED_M, return_length=True)
    crossings = np.bincount(of, minlength=len(strokes))
    meetings = np.bincount(of, np.asarray(near) > 1, len(strokes))
    apart: NDArray[np.bool_] = 2 * meetings < crossings
    return apart


def _merge_lines(lines: Lines) -> Lines:
    noded = shapely.line_merge(shapely.union_all(lines, grid_size=SAME_M)) if len(lines) else shapely.MultiLineString()
    pieces = shapely.get_parts(noded)
    pieces = pieces[shapely.length(pieces) > 0]
    if not len(pieces):
        return pieces
    return _join_chains(pieces, _pair_ends(pieces))


def _pair_ends(pieces: Lines) -> dict[tuple[int, int], tuple[int, int]]:
    """Pair the ends of pieces in which a stroke goes on: (piece, 0 for its start or 1 for its end) → the same."""
    at = np.concatenate([shapely.get_coordinates(shapely.get_point(pieces, i)) for i in (0, -1)])
    reach = np.minimum(AHEAD_M, shapely.length(pieces))
    ahead = np.concatenate(
        [shapely.get_coordinates(shapely.line_interpolate_point(pieces, d)) for d in (reach, -reach)]
    )
    out = ahead - at
    out /= np.maximum(np.hypot(*out.T), 1e-9)[:, None]
    _, node, count = np.unique(at.round(2), axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(node, kind="stable")
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    paired: dict[tuple[int, int], tuple[int, int]] = {}
    straight = -np.cos(np.radians(DEFLECTION_DEG))
    for degree in np.unique(count):
        if degree < 2:
            continue
        ends = order[first[count == degree][:, None] + np.arange(degree)]  # (nodes, degree): numbers of ends
        pairs = np.array(list(combinations(range(degree), 2)))
        one, other = ends[:, pairs[:, 0]], ends[:, pairs[:, 1]]
        bend = (out[one] * out[other]).sum(-1)  # -1: straight on
        bend[one % len(pieces) == other % len(pieces)] = np.inf
        for _ in range(degree // 2):
            best = bend.argmin(1)
            rows = np.flatnonzero(bend[np.arange(len(bend)), best] < straight)
            if not len(rows):
                break
            for row in rows.tolist():
                a, b = (divmod(int(e[row, best[row]]), len(pieces))[::-1] for e in (one, other))
                paired[a], paired[b] = b, a
            used = pairs[best]
            taken = (pairs[None, :, :, None] == used[:, None, None, :]).any((2, 3))
            bend[taken] = np.inf
    return paired


def _join_chains(pieces: Lines, paired: Mapping[tuple[int, int], tuple[int, int]]) -> Lines:
    """Join pieces along their paired ends."""
    xy, owner = shapely.get_coordinates(pieces, return_index=True)
    parts = np.split(xy, np.flatnonzero(np.diff(owner)) + 1)
    seen = np.zeros(len(pieces), bool)
    joined = []

    def follow(piece: int, end: int) -> list[NDArray[np.float64]]:
        """Return the pieces beyond an end, in order, each from its near end on."""
        beyond = []
        while (found := paired.get((piece, end))) is not None and not seen[found[0]]:
            piece, near = found
            seen[piece] = True
            beyond.append(parts[piece] if near == 0 else parts[piece][::-1])
            end = 1 - near
        return beyond

    for start in range(len(pieces)):
        if seen[start]:
            continue
        seen[start] = True
        forwards = follow(start, 1)
        backwards = follow(start, 0)
        run = [part[::-1] for part in reversed(backwards)] + [parts[start], *forwards]
        joined.append(np.concatenate([run[0], *(part[1:] for part in run[1:])]))
    sizes = np.array([len(line) for line in joined])
    lines: Lines = shapely.linestrings(np.concatenate(joined), indices=np.repeat(np.arange(len(joined)), sizes))
    return lines
