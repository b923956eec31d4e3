"""The ways of one window as strokes: how their ends stand, and how ends are led to where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

GOES_ON: dict[str, tuple[str, ...]] = {"arterial": ("arterial", "street"), "street": ("arterial", "street")}
"""Kind → the kinds of later strokes that its open ends wait for; its own kind for those that are left out."""

TOUCH_M = 2.0
"""An end lies on another stroke when it is this near to it."""

JOIN_M = 14.0
"""On the way back, an end is moved at most this far onto the stroke that it lies on."""

LOOP_M = 20.0
"""A stroke that comes back onto itself goes at least this far in between."""

SAME_M = 0.01
"""A stroke that is shorter is none."""

LINE = 1
"""Type id of shapely."""

FREE, EDGE, TOUCHES, WAITS = range(4)
"""How an end of a stroke stands: nowhere, at the window's edge, on another stroke, or where a later one will go on."""

LOOSE, AT_EDGE, ON, OPEN = range(4)
STANDS = ("loose", "edge", "on", "open")
"""How an end stands when strokes are read one after another."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Strokes:
    """The ways of one window as lines, in metres from the window's middle: x to the right, y down.

    Attributes
    ----------
    kind
        `(N,)` index into the kinds of the code.
    xy
        `(V, 2)` vertices of all strokes, one stroke after another.
    stroke
        `(V,)` which stroke a vertex is of, in order.
    known
        `(K,)` which kinds are known in this window. A kind that is not known has no strokes, and that means nothing.
    given
        `(N,)` which strokes are given, and not drawn.
    apart
        `(N,)` which strokes cross others without meeting them, see `citygrain.geo.strokes.find_apart`.
    """

    kind: Ints
    xy: Floats
    stroke: Ints
    known: Bools
    given: Bools
    apart: Bools

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def lines(self) -> NDArray[np.object_]:
        """The strokes as LineStrings, `(N,)`."""
        return shapely.linestrings(self.xy, indices=self.stroke) if len(self.kind) else np.empty(0, object)

    @classmethod
    def of_lines(
        cls,
        kind: Ints,
        lines: NDArray[np.object_],
        known: Bools,
        given: Bools | None = None,
        apart: Bools | None = None,
    ) -> Strokes:
        """Make strokes of LineStrings `(N,)`; those that are not said to be given, or apart, are not."""
        xy, stroke = shapely.get_coordinates(lines, return_index=True)
        no = np.zeros(len(kind), bool)
        return cls(kind, xy, stroke, known, no if given is None else given, no if apart is None else apart)


def find_touching(strokes: Strokes, extent_m: float) -> tuple[Ints, Ints]:
    """Find how the ends of strokes stand, `(N, 2)`, and which strokes they touch, `(N, 2, 2)`, see `Written`."""
    count = len(strokes)
    how, partners = np.zeros((count, 2), np.int64), np.full((count, 2, 2), -1)
    if not count:
        return how, partners
    first = np.searchsorted(strokes.stroke, np.arange(count))
    last = np.searchsorted(strokes.stroke, np.arange(count), side="right") - 1
    ends = np.stack([strokes.xy[first], strokes.xy[last]], 1).reshape(-1, 2)  # (2N, 2): first and last in turn
    at_edge = np.abs(ends).max(1) > extent_m / 2 - 0.05
    end, other = shapely.STRtree(strokes.lines).query(shapely.points(ends), predicate="dwithin", distance=TOUCH_M)
    closed = np.hypot(*(strokes.xy[first] - strokes.xy[last]).T) <= TOUCH_M
    length = sum_lengths(strokes.xy, strokes.stroke, count)
    on_own = _find_returning(strokes, first, length) | closed[:, None]
    counts = (other != end // 2) | on_own.ravel()[end]
    end, other = end[counts], other[counts]
    order = np.lexsort((-length[other], strokes.kind[other], ~strokes.given[other], end))
    end, other = end[order], other[order]
    nth = np.arange(len(end)) - np.searchsorted(end, end)
    flat = partners.reshape(-1, 2)
    for i in (0, 1):
        flat[end[nth == i], i] = other[nth == i]
    touches = flat[:, 0] >= 0
    how[:] = np.where(at_edge, EDGE, np.where(touches, TOUCHES, FREE)).reshape(-1, 2)
    flat[at_edge] = -1
    return how, partners


def _find_returning(strokes: Strokes, first: Ints, length: Floats) -> Bools:
    """Return which ends come back onto the line of their own stroke, `(N, 2)`."""
    xy, stroke = strokes.xy, strokes.stroke
    run = np.hypot(*np.diff(xy, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(run)])
    along -= along[first][stroke]
    piece = np.flatnonzero(stroke[1:] == stroke[:-1])
    owner = stroke[piece]
    pieces = shapely.linestrings(np.stack([xy[piece], xy[piece + 1]], 1))
    found = np.zeros((len(strokes), 2), bool)
    for end, far in enumerate((along[piece] >= LOOP_M, along[piece + 1] <= length[owner] - LOOP_M)):
        tips = shapely.get_point(strokes.lines, -end)
        near = shapely.distance(pieces[far], tips[owner[far]]) <= TOUCH_M
        found[owner[far][near], end] = True
    return found


def join_ends(
    strokes: Strokes, stands: Ints, kinds: Sequence[str], extent_m: float, on_own: Bools | None = None
) -> Strokes:
    """Move ends to where they belong: onto an earlier stroke, onto a later one that goes on, or to the edge.

    Given strokes stay where they are. A stroke that lies beyond the edge is left out.

    Parameters
    ----------
    strokes
        The strokes, in the order in which they were written.
    stands
        `(N, 2)` how each end stands, see `STANDS`.
    kinds
        Names of the kinds.
    extent_m
        Edge of the window; strokes are cut there.
    on_own
        `(N, 2)` which of the ends on a stroke are on their own; None for none but rings.
    """
    if not len(strokes):
        return strokes
    xy = strokes.xy.copy()
    every = np.arange(len(strokes))
    first = np.searchsorted(strokes.stroke, every)
    last = np.searchsorted(strokes.stroke, every, side="right") - 1
    at, beside = np.stack([first, last], 1), np.stack([first + 1, last - 1], 1)
    moves = np.where(strokes.given[:, None], LOOSE, stands)
    number, end = np.nonzero(moves == AT_EDGE)
    tips = xy[at[number, end]]
    xy[at[number, end]] = _lead_to_edge(tips, tips - xy[beside[number, end]], extent_m / 2)
    goes_on = np.array([[other in GOES_ON.get(kind, (kind,)) for other in kinds] for kind in kinds])
    for wanted in (ON, OPEN, ON, OPEN):  # twice: what an end was led onto may have moved since
        number, end = np.nonzero(moves == wanted)
        tips = xy[at[number, end]]
        lines = shapely.linestrings(xy, indices=strokes.stroke)
        row, other = shapely.STRtree(lines).query(shapely.points(tips), predicate="dwithin", distance=JOIN_M)
        mine, targets = number[row], lines[other]
        if wanted == ON:
            itself = (other == mine) & (last[mine] - first[mine] > 2)
            loop = itself & _is_loop(tips[row], xy[at[mine, 1 - end[row]]], on_own, mine, end[row])
            for i in np.flatnonzero(loop):  # its own line, without the pieces that lead to the end
                skipped = (0, 2) if end[row[i]] else (2, 0)
                targets[i] = shapely.linestrings(xy[first[mine[i]] + skipped[0] : last[mine[i]] + 1 - skipped[1]])
            ring = itself & ~loop & (end[row] == 1)
            targets[ring] = shapely.points(xy[first[mine[ring]]])  # a ring ends where it began
            allowed = (other < mine) | ring | loop
        else:
            allowed = (other > mine) & goes_on[strokes.kind[mine], strokes.kind[other]]
        row, there = _find_nearest(tips, row[allowed], targets[allowed])
        xy[at[number[row], end[row]]] = there
    short = sum_lengths(xy, strokes.stroke, len(strokes)) < SAME_M  # both ends were led to one point
    xy = np.where(short[strokes.stroke, None], strokes.xy, xy)
    parts = _clip(xy, strokes.stroke, extent_m / 2)
    kept = shapely.length(parts) > 0
    return Strokes.of_lines(strokes.kind[kept], parts[kept], strokes.known, strokes.given[kept], strokes.apart[kept])


def _is_loop(tips: Floats, others: Floats, on_own: Bools | None, number: Ints, end: Ints) -> Bools | bool:
    """Tell which ends are on their own stroke, far from its other end; strokes whose ends are near are rings."""
    if on_own is None:
        return False
    far: Bools = np.hypot(*(tips - others).T) > JOIN_M
    return far & on_own[number, end]


def _find_nearest(points: Floats, row: Ints, targets: NDArray[np.object_]) -> tuple[Ints, Floats]:
    """Return which points have targets, and the nearest point on these; target i is one for point `row[i]`."""
    tips = shapely.points(points)[row]
    order = np.lexsort((shapely.distance(tips, targets), row))
    chosen, nearest = np.unique(row[order], return_index=True)
    nearest = order[nearest]
    way = shapely.shortest_line(targets[nearest], tips[nearest])
    return chosen, shapely.get_coordinates(shapely.get_point(way, 0))


def _lead_to_edge(tips: Floats, ahead: Floats, half: float) -> Floats:
    """Lead ends to the nearest edge of the window: straight on, or at a right angle where they run along it."""
    row, axis = np.arange(len(tips)), np.abs(tips).argmax(1)
    gap = (half - np.abs(tips[row, axis])).clip(0)
    out = np.zeros_like(tips)
    out[row, axis] = np.sign(tips[row, axis])
    rate = (ahead * out).sum(1) / np.maximum(np.hypot(*ahead.T), 1e-9)
    straight = ahead / np.maximum((ahead * out).sum(1), 1e-9)[:, None]
    return tips + gap[:, None] * np.where((rate > 0.5)[:, None], straight, out)


def _clip(xy: Floats, stroke: Ints, half: float) -> NDArray[np.object_]:
    """Cut strokes at the window's edge, one line each.

    Rounding puts strokes along the edge on it or beyond it. They would be lost, or fall into pieces: their vertices
    beyond the edge are moved to it instead.
    """
    cut = shapely.clip_by_rect(shapely.linestrings(xy, indices=stroke), -half, -half, half, half)
    whole = (shapely.get_type_id(cut) == LINE) & (shapely.length(cut) > 0)
    parts: NDArray[np.object_] = np.where(whole, cut, shapely.linestrings(xy.clip(-half, half), indices=stroke))
    return parts


def split_at_site(strokes: Strokes, site: tuple[float, float, float, float], kept: Sequence[int] = ()) -> Strokes:
    """Cut strokes at the edge of a site; what lies outside is given.

    Parameters
    ----------
    strokes
        The strokes of a window.
    site
        `(left, top, right, bottom)` in metres from the window's middle, y down.
    kept
        Kinds that are given on the site, too.
    """
    stays = np.isin(strokes.kind, kept)
    cut = np.flatnonzero(~stays)
    box = shapely.box(*site)
    lines = strokes.lines
    crossing = cut[~shapely.covered_by(lines[cut], box)]
    within = np.setdiff1d(cut, crossing, assume_unique=True)
    inside, of_inside = shapely.get_parts(shapely.clip_by_rect(lines[crossing], *site), return_index=True)
    outside, of_outside = shapely.get_parts(shapely.difference(lines[crossing], box), return_index=True)
    parts = np.concatenate([lines[stays], outside, lines[within], inside])
    owner = np.concatenate([np.flatnonzero(stays), crossing[of_outside], within, crossing[of_inside]])
    given = np.arange(len(parts)) < stays.sum() + len(outside)
    kept_parts = (shapely.get_type_id(parts) == 1) & (shapely.length(parts) > TOUCH_M)
    owner = owner[kept_parts]
    return Strokes.of_lines(
        strokes.kind[owner], parts[kept_parts], strokes.known, given[kept_parts], strokes.apart[owner]
    )


def sum_lengths(xy: Floats | Ints, stroke: Ints, count: int) -> Floats:
    """Return the lengths `(count,)` of strokes with the vertices `xy`, `(V, 2)`; `stroke` says which one each is of."""
    step = np.hypot(*np.diff(xy, axis=0).T) * (stroke[1:] == stroke[:-1])
    lengths: Floats = np.bincount(stroke[1:], step, count).astype(np.float64)
    return lengths
