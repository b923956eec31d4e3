"""Windows of ways written as strokes on a grid: a code that is computed, not learned.

Strokes stand in a canonical order: by kind of way, by length, by direction, by place. Their vertices are turned into
the frame of the window's streets, so that most streets run along an axis, and rounded to a grid. What rounding would
lose is written beside them: which ends lie on another stroke, and which ends the window's edge has cut off.

On the way back, ends that lie on another stroke are moved onto it, and ends at the edge are led to the edge. Then
`citygrain.geo.rasterize` draws the lines as it drew the training data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

KINDS = ("arterial", "street", "service", "rail", "cycle", "walk")
"""Channels that can be written as strokes, in the order in which they are written."""

FRAMED = ("arterial", "street")
"""Kinds whose bearing is the frame of a window; where there are none of these, all kinds are looked at."""

GOES_ON: dict[str, tuple[str, ...]] = {"arterial": ("arterial", "street"), "street": ("arterial", "street")}
"""Kind → the kinds of later strokes that its open ends wait for; its own kind for those that are left out."""

LENGTHS_M = (400.0, 200.0, 100.0)
"""Bounds of the length classes, the longest first."""

TOUCH_M = 2.0
"""An end lies on another stroke when it is this near to it."""

JOIN_M = 14.0
"""On the way back, an end is moved at most this far onto the stroke that it lies on."""

BEARINGS = 90
"""Bins of the bearing of a frame, over a quarter of a turn."""

STRENGTHS = 10
"""Bins of the strength of a frame, from 0 to 1."""

COLUMNS = 8
"""Columns of a code, see `StrokeCode`."""

UNUSED, FRAME = -1, -2

FREE, EDGE, TOUCHES, WAITS = range(4)
"""How an end of a stroke stands: nowhere, at the window's edge, on another stroke, or where a later one will go on."""

Frame = Literal["streets", "none"]
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
    """

    kind: Ints
    xy: Floats
    stroke: Ints
    known: Bools
    given: Bools

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def lines(self) -> NDArray[np.object_]:
        """The strokes as LineStrings, `(N,)`."""
        return shapely.linestrings(self.xy, indices=self.stroke) if len(self.kind) else np.empty(0, object)

    @classmethod
    def of_lines(cls, kind: Ints, lines: NDArray[np.object_], known: Bools, given: Bools | None = None) -> Strokes:
        """Make strokes of LineStrings `(N,)`."""
        xy, stroke = shapely.get_coordinates(lines, return_index=True)
        return cls(kind, xy, stroke, known, np.zeros(len(kind), bool) if given is None else given)


@dataclass(frozen=True, eq=False)
class Written:
    """Strokes as they are written: on a grid, in a frame, in order.

    Attributes
    ----------
    kind
        `(N,)` index into the kinds of the code.
    given
        `(N,)` which strokes are given.
    xy
        `(V, 2)` positions in the frame, whole numbers; the middle of the window is (0, 0).
    stroke
        `(V,)` which stroke a vertex is of, in order.
    how
        `(N, 2)` how its first and last end stand: `FREE`, `EDGE`, `TOUCHES`, `WAITS`.
    partners
        `(N, 2, 2)` up to two strokes that an end touches, the more important one first; -1 for none.
    bearing, strength
        Bins of the frame.
    known
        `(K,)` which kinds are known.
    """

    kind: Ints
    given: Bools
    xy: Ints
    stroke: Ints
    how: Ints
    partners: Ints
    bearing: int
    strength: int
    known: Bools

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def first(self) -> Ints:
        """The first vertex of each stroke, `(N,)`."""
        return np.searchsorted(self.stroke, np.arange(len(self.kind)))

    @cached_property
    def last(self) -> Ints:
        """The last vertex of each stroke, `(N,)`."""
        return np.searchsorted(self.stroke, np.arange(len(self.kind)), side="right") - 1

    def turned(self, symmetry: int, grid_m: float) -> Written:
        """Return the strokes of the window after one of the 8 symmetries of `citygrain.data.transforms.turn`."""
        x, y = self.xy.T
        if symmetry & 4:
            x, y = y, x
        if symmetry & 2:
            y = -y
        if symmetry & 1:
            x = -x
        mirrored = bool((symmetry & 4 > 0) ^ (symmetry & 2 > 0) ^ (symmetry & 1 > 0))
        bearing = (BEARINGS - self.bearing) % BEARINGS if mirrored else self.bearing
        return replace(self, xy=np.stack([x, y], 1), bearing=bearing).ordered(grid_m)

    def ordered(self, grid_m: float) -> Written:
        """Return the strokes in canonical order, each in its canonical direction."""
        if not len(self):
            return self
        count = len(self)
        head, tail = self.xy[self.first], self.xy[self.last]
        away = tail - head
        length = _sum_lengths(self.xy, self.stroke, count) * grid_m
        upright = np.abs(away[:, 1]) > np.abs(away[:, 0])
        size = np.bincount(self.stroke, minlength=count)
        middle = np.stack([np.bincount(self.stroke, self.xy[:, i], count) / size for i in (0, 1)], 1)
        across = np.where(upright, middle[:, 0], middle[:, 1])
        along = np.where(upright, middle[:, 1], middle[:, 0])
        rank = (length[:, None] < np.array(LENGTHS_M)).sum(1)
        order = np.lexsort((along, across, upright, rank, self.kind, ~self.given))
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        partners = np.where(self.partners >= 0, place[self.partners], -1)[order]
        how, kind = self.how[order], self.kind[order]
        earlier = ((partners >= 0) & (partners < np.arange(count)[:, None, None])).any(2)
        # An end on an earlier stroke comes first; then one at the edge; else the end that lies lower on its axis.
        weight = np.where(earlier, 2, how == EDGE)
        backwards = np.where(upright, away[:, 1], away[:, 0])[order] < 0
        level = away[order] == 0
        backwards |= np.where(upright[order], level[:, 1], level[:, 0]) & (
            np.where(upright, away[:, 0], away[:, 1])[order] < 0
        )
        flip = np.where(weight[:, 0] == weight[:, 1], backwards, weight[:, 1] > weight[:, 0])
        how = np.where(flip[:, None], how[:, ::-1], how)
        partners = np.where(flip[:, None, None], partners[:, ::-1], partners)
        sizes = size[order]
        start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        within = np.arange(len(self.xy)) - np.repeat(start, sizes)
        step = np.where(flip, -1, 1)
        begin = np.where(flip, self.last[order], self.first[order])
        xy = self.xy[np.repeat(begin, sizes) + np.repeat(step, sizes) * within]
        return replace(
            self, kind=kind, given=self.given[order], xy=xy, stroke=np.repeat(np.arange(count), sizes), how=how,
            partners=partners,
        )  # fmt: skip

    def select(self, kept: Bools) -> Written:
        """Return some of the strokes; ends that touched only others are free."""
        number = np.where(kept, np.cumsum(kept) - 1, -1)
        partners = np.where(self.partners >= 0, number[self.partners], -1)[kept]
        partners = np.where(partners[..., :1] < 0, partners[..., ::-1], partners)
        how = np.where((self.how[kept] == TOUCHES) & (partners < 0).all(2), FREE, self.how[kept])
        of = kept[self.stroke]
        return replace(
            self, kind=self.kind[kept], given=self.given[kept], xy=self.xy[of], stroke=number[self.stroke[of]],
            how=how, partners=partners,
        )  # fmt: skip

    def find_standing(self, kinds: Sequence[str]) -> Ints:
        """Tell how each end stands in the order of the strokes, `(N, 2)`: one of `STANDS`.

        An end is *on* a stroke that comes before its own (or on its own), and *open* where a later one that goes on
        from it will meet it.
        """
        number = np.arange(len(self))[:, None, None]
        there = self.partners >= 0
        on = (there & (self.partners <= number)).any(2)
        goes_on = np.array([[other in GOES_ON.get(kind, (kind,)) for other in kinds] for kind in kinds])
        waits = (there & goes_on[self.kind[:, None, None], self.kind[self.partners]]).any(2) | (self.how == WAITS)
        return np.where(self.how == EDGE, AT_EDGE, np.where(on, ON, np.where(waits, OPEN, LOOSE)))


LOOSE, AT_EDGE, ON, OPEN = range(4)
STANDS = ("loose", "edge", "on", "open")
"""How an end stands when strokes are read one after another."""


@dataclass(frozen=True)
class StrokeCode:
    """How windows of ways are written.

    Parameters
    ----------
    kinds
        Channels, in the order in which they are written; some of `KINDS`.
    extent_m
        Edge of a window in metres.
    grid_m
        Distance of the positions that a vertex can have.
    tolerance_m
        How far a stroke may be moved so that it needs fewer vertices.
    frame
        `"streets"` turns coordinates into the frame of the window's streets; `"none"` leaves them.
    rows
        Rows of a code. Strokes that do not fit are left out, from the end.

    Notes
    -----
    A code is `(rows, 8)` int16. Row 0 is `(-2, bearing bin, strength bin, bits of known kinds, 0, 0, 0, 0)`. The others
    are `(kind, x, y, role, how, p, q, given)`, one a vertex: the role is 0 within a stroke, 1 for its first and 2 for
    its last vertex; *how*, *p* and *q* are those of `Written`. Rows that are not used have -1 in the first column.
    """

    kinds: tuple[str, ...] = KINDS
    extent_m: float = 512.0
    grid_m: float = 4.0
    tolerance_m: float = 2.5
    frame: Frame = "streets"
    rows: int = 448

    @property
    def reach(self) -> int:
        """Grid positions from the middle of a window to its farthest corner."""
        return math.ceil(self.extent_m / math.sqrt(2) / self.grid_m)

    def write(self, strokes: Strokes, *, bearing: int | None = None) -> Written:
        """Write strokes on the grid.

        Parameters
        ----------
        strokes
            The strokes of a window.
        bearing
            Bin of the frame. None finds it, in the strokes that are given if there are any.
        """
        found, strength = find_frame(strokes, self.kinds) if self.frame == "streets" else (0, 0)
        frame = found if bearing is None else bearing
        count = len(strokes)
        how, partners = find_touching(strokes, self.extent_m)
        flat = _simplify(strokes, self.tolerance_m)
        xy = np.rint(turn_points(flat.xy, -to_angle(frame)) / self.grid_m).astype(np.int64)
        fresh = np.ones(len(xy), bool)
        fresh[1:] = (xy[1:] != xy[:-1]).any(1) | (flat.stroke[1:] != flat.stroke[:-1])
        xy, stroke = xy[fresh], flat.stroke[fresh]
        written = Written(strokes.kind, strokes.given, xy, stroke, how, partners, frame, strength, strokes.known)
        written = written.select(np.bincount(stroke, minlength=count) > 1).ordered(self.grid_m)
        fits = written.last < self.rows - 1
        return written if fits.all() else written.select(fits)

    def to_code(self, written: Written) -> NDArray[np.int16]:
        """Return the code `(rows, 8)` of written strokes."""
        code = np.zeros((self.rows, COLUMNS), np.int16)
        code[1:, 0] = UNUSED
        bits = int((2 ** np.arange(len(self.kinds)))[written.known].sum())
        code[0, :4] = FRAME, written.bearing, written.strength, bits
        if len(written):
            rows = code[1 : 1 + len(written.xy)]
            rows[:, 0], rows[:, 1:3] = written.kind[written.stroke], written.xy
            rows[:, 7] = written.given[written.stroke]
            for end, at in enumerate((written.first, written.last)):
                rows[at, 3], rows[at, 4], rows[at, 5:7] = end + 1, written.how[:, end], written.partners[:, end]
        return code

    def from_code(self, code: NDArray[np.int16]) -> Written:
        """Return the written strokes of a code `(rows, 8)`."""
        rows = code[1:][code[1:, 0] != UNUSED].astype(np.int64)
        first, last = rows[:, 3] == 1, rows[:, 3] == 2
        known = (int(code[0, 3]) >> np.arange(len(self.kinds))) & 1 > 0
        return Written(
            rows[first, 0], rows[first, 7] > 0, rows[:, 1:3], np.cumsum(first) - 1,
            np.stack([rows[first, 4], rows[last, 4]], 1), np.stack([rows[first, 5:7], rows[last, 5:7]], 1),
            int(code[0, 1]), int(code[0, 2]), known,
        )  # fmt: skip

    def read(self, written: Written) -> Strokes:
        """Return the strokes, turned back out of the frame, with their ends where they belong."""
        xy = turn_points(written.xy * self.grid_m, to_angle(written.bearing))
        stands = written.find_standing(self.kinds) if len(written) else np.zeros((0, 2), np.int64)
        return join_ends(
            Strokes(written.kind, xy, written.stroke, written.known, written.given), stands, self.kinds, self.extent_m
        )


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
    kind = strokes.kind[np.concatenate([np.flatnonzero(stays), crossing[of_outside], within, crossing[of_inside]])]
    given = np.arange(len(parts)) < stays.sum() + len(outside)
    kept_parts = (shapely.get_type_id(parts) == 1) & (shapely.length(parts) > TOUCH_M)
    return Strokes.of_lines(kind[kept_parts], parts[kept_parts], strokes.known, given[kept_parts])


def to_angle(bearing: int) -> float:
    """Return the angle in radians of a bin of the bearing."""
    return bearing * math.pi / 2 / BEARINGS


def turn_points(xy: Floats, angle: float) -> Floats:
    """Turn points `(N, 2)` about the origin by an angle in radians."""
    c, s = math.cos(angle), math.sin(angle)
    turned: Floats = xy @ np.array([[c, s], [-s, c]])
    return turned


def find_frame(strokes: Strokes, kinds: Sequence[str]) -> tuple[int, int]:
    """Find the frame of a window: bins of the bearing that most of its streets follow or cross, and of its strength.

    The bearing is ¼ arg Σ length · e^{4iφ} over all pieces of arterials and streets, the strength its absolute value
    over the total length: 1 where all run in two directions at right angles, 0 where they run in all.
    """
    seen = strokes.given if strokes.given.any() else np.ones(len(strokes), bool)
    framed = seen & np.array([kind in FRAMED for kind in kinds])[strokes.kind]
    chosen = (framed if framed.any() else seen)[strokes.stroke]
    step = np.diff(strokes.xy, axis=0)[(strokes.stroke[1:] == strokes.stroke[:-1]) & chosen[1:]]
    length = np.hypot(*step.T)
    if not length.sum() > 0:
        return 0, 0
    total = (length * np.exp(4j * np.arctan2(step[:, 1], step[:, 0]))).sum() / length.sum()
    number = math.floor(np.angle(total) / 4 / (math.pi / 2 / BEARINGS) + 0.5) % BEARINGS
    return number, min(int(abs(total) * STRENGTHS), STRENGTHS - 1)


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
    counts = (other != end // 2) | closed[end // 2]
    end, other = end[counts], other[counts]
    length = _sum_lengths(strokes.xy, strokes.stroke, count)
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


def join_ends(strokes: Strokes, stands: Ints, kinds: Sequence[str], extent_m: float) -> Strokes:
    """Move ends to where they belong: onto an earlier stroke, onto a later one that goes on, or to the edge.

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
    """
    if not len(strokes):
        return strokes
    count = len(strokes)
    xy = strokes.xy.copy()
    first = np.searchsorted(strokes.stroke, np.arange(count))
    last = np.searchsorted(strokes.stroke, np.arange(count), side="right") - 1
    at, beside = np.stack([first, last], 1), np.stack([first + 1, last - 1], 1)
    goes_on = np.array([[other in GOES_ON.get(kind, (kind,)) for other in kinds] for kind in kinds])
    lines = strokes.lines
    tree = shapely.STRtree(lines)
    moved = np.zeros(count, bool)
    for wanted in (ON, OPEN):
        number, end = np.nonzero((stands == wanted) & ~strokes.given[:, None])
        points = shapely.points(xy[at[number, end]])
        row, other = tree.query(points, predicate="dwithin", distance=JOIN_M)
        mine = number[row]
        if wanted == ON:
            ring = (other == mine) & (last[mine] - first[mine] > 2) & (end[row] == 1)
            allowed = (other < mine) | ring
        else:
            allowed = (other != mine) & goes_on[strokes.kind[mine], strokes.kind[other]]
        row, other = row[allowed], other[allowed]
        targets = lines[other]
        own = other == number[row]
        if own.any():  # a ring ends where it began
            targets = targets.copy()
            targets[own] = shapely.points(xy[first[other[own]]])
        gap = shapely.distance(points[row], targets)
        order = np.lexsort((gap, row))
        row, targets = row[order], targets[order]
        nearest = np.append(True, row[1:] != row[:-1]) if len(row) else np.zeros(0, bool)
        row, targets = row[nearest], targets[nearest]
        there = shapely.get_coordinates(shapely.get_point(shapely.shortest_line(targets, points[row]), 0))
        xy[at[number[row], end[row]]] = there
        moved[number[row]] = True
    number, end = np.nonzero((stands == AT_EDGE) & ~strokes.given[:, None])
    tip, inner = xy[at[number, end]], xy[beside[number, end]]
    ahead = tip - inner
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-9)[:, None]
    gap = (extent_m / 2 - np.abs(tip)).min(1)
    xy[at[number, end]] = tip + ahead * np.where(gap > 0, 2 * gap, 0)[:, None]
    half = extent_m / 2
    cut = shapely.clip_by_rect(shapely.linestrings(xy, indices=strokes.stroke), -half, -half, half, half)
    parts, owner = shapely.get_parts(cut, return_index=True)
    kept = (shapely.get_type_id(parts) == 1) & (shapely.length(parts) > 0)
    owner = owner[kept]
    return Strokes.of_lines(strokes.kind[owner], parts[kept], strokes.known, strokes.given[owner])


def _simplify(strokes: Strokes, tolerance_m: float) -> Strokes:
    if not len(strokes):
        return strokes
    lines = shapely.simplify(strokes.lines, tolerance_m)
    xy, stroke = shapely.get_coordinates(lines, return_index=True)
    return replace(strokes, xy=xy, stroke=stroke)


def _sum_lengths(xy: NDArray[np.generic], stroke: Ints, count: int) -> Floats:
    step = np.hypot(*np.diff(xy, axis=0).T) * (stroke[1:] == stroke[:-1])
    return np.bincount(stroke[1:], step, count)
