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

from citygrain.errors import ConfigError
from citygrain.geo.window_strokes import (
    AT_EDGE,
    EDGE,
    FREE,
    GOES_ON,
    LOOSE,
    ON,
    OPEN,
    TOUCHES,
    WAITS,
    Bools,
    Floats,
    Ints,
    Strokes,
    find_touching,
    join_ends,
    sum_lengths,
)

KINDS = ("arterial", "street", "service", "rail", "cycle", "walk")
"""Channels that can be written as strokes, in the order in which they are written."""

FRAMED = ("arterial", "street")
"""Kinds whose bearing is the frame of a window; where there are none of these, all kinds are looked at."""

LENGTHS_M = (400.0, 200.0, 100.0)
"""Bounds of the length classes, the longest first."""

BEARINGS = 90
"""Bins of the bearing of a frame, over a quarter of a turn."""

STRENGTHS = 10
"""Bins of the strength of a frame, from 0 to 1."""

COLUMNS = 8
"""Columns of a code, see `StrokeCode`."""

UNUSED, FRAME = -1, -2

Frame = Literal["streets", "none"]


@dataclass(frozen=True, eq=False)
class Written:
    """Strokes as they are written: on a grid, in a frame, in order.

    Attributes
    ----------
    kind
        `(N,)` index into the kinds of the code.
    given
        `(N,)` which strokes are given.
    apart
        `(N,)` which strokes cross others without meeting them.
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
    apart: Bools
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
        bearing = self.bearing
        if symmetry.bit_count() % 2 and bearing:  # a mirrored frame has the bearing −b, written as a quarter turn − b
            bearing = BEARINGS - bearing
            x, y = y, -x
        return replace(self, xy=np.stack([x, y], 1), bearing=bearing).ordered(grid_m)

    def ordered(self, grid_m: float, late: Bools | None = None, chance: Floats | None = None) -> Written:
        """Return the strokes in canonical order, each in its canonical direction.

        Parameters
        ----------
        grid_m
            Distance of positions.
        late
            `(N,)`: strokes that follow the others of their kind, in the same order among themselves.
        chance
            `(N,)`: strokes of one kind and length class stand in the order of these numbers; None orders them by
            direction and place.
        """
        if not len(self):
            return self
        count = len(self)
        head, tail = self.xy[self.first], self.xy[self.last]
        away = tail - head
        length = sum_lengths(self.xy, self.stroke, count) * grid_m
        upright = np.abs(away[:, 1]) > np.abs(away[:, 0])
        size = np.bincount(self.stroke, minlength=count)
        middle = np.stack([np.bincount(self.stroke, self.xy[:, i], count) / size for i in (0, 1)], 1)
        across = np.where(upright, middle[:, 0], middle[:, 1])
        along = np.where(upright, middle[:, 1], middle[:, 0])
        rank = (length[:, None] < np.array(LENGTHS_M)).sum(1)
        after, mixed = np.zeros(count, bool) if late is None else late, np.zeros(count) if chance is None else chance
        order = np.lexsort((along, across, upright, mixed, rank, after, self.kind, ~self.given))
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        partners = np.where(self.partners >= 0, place[self.partners], -1)[order]
        how, kind = self.how[order], self.kind[order]
        earlier = ((partners >= 0) & (partners < np.arange(count)[:, None, None])).any(2)
        own = (partners == np.arange(count)[:, None, None]).any(2)
        # An end on an earlier stroke comes first, then one at the edge, and last one on its own stroke; else the end
        # that lies lower on its axis.
        weight = np.where(earlier, 2, np.where(how == EDGE, 1, -1 * own))
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
            self, kind=kind, given=self.given[order], apart=self.apart[order], xy=xy,
            stroke=np.repeat(np.arange(count), sizes), how=how, partners=partners,
        )  # fmt: skip

    def select(self, kept: Bools) -> Written:
        """Return some of the strokes; ends that touched only others are free."""
        number = np.where(kept, np.cumsum(kept) - 1, -1)
        partners = np.where(self.partners >= 0, number[self.partners], -1)[kept]
        partners = np.where(partners[..., :1] < 0, partners[..., ::-1], partners)
        how = np.where((self.how[kept] == TOUCHES) & (partners < 0).all(2), FREE, self.how[kept])
        of = kept[self.stroke]
        return replace(
            self, kind=self.kind[kept], given=self.given[kept],
            apart=self.apart[kept], xy=self.xy[of], stroke=number[self.stroke[of]],
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
    are `(kind, x, y, role, how, p, q, marks)`, one a vertex: the role is 0 within a stroke, 1 for its first and 2 for
    its last vertex; *how*, *p* and *q* are those of `Written`; the marks are 1 for given plus 2 for apart. Rows that
    are not used have -1 in the first column.
    """

    kinds: tuple[str, ...] = KINDS
    extent_m: float = 512.0
    grid_m: float = 4.0
    tolerance_m: float = 2.5
    frame: Frame = "streets"
    rows: int = 448

    def __post_init__(self) -> None:
        if not (self.grid_m > 0 and self.tolerance_m >= 0 and self.rows > 2):
            raise ConfigError(
                "Strokes cannot be written like this.",
                expected="grid_m > 0, tolerance_m ≥ 0, rows ≥ 3",
                got=f"grid_m={self.grid_m}, tolerance_m={self.tolerance_m}, rows={self.rows}",
            )

    @property
    def reach(self) -> int:
        """Positions from the middle of a window to its farthest corner; there is room for all bearings at least."""
        return max(math.ceil(self.extent_m / math.sqrt(2) / self.grid_m), BEARINGS // 2)

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
        written = Written(
            strokes.kind, strokes.given, strokes.apart, xy, stroke, how, partners, frame, strength, strokes.known
        )
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
            rows[:, 7] = (written.given + 2 * written.apart)[written.stroke]
            for end, at in enumerate((written.first, written.last)):
                rows[at, 3], rows[at, 4], rows[at, 5:7] = end + 1, written.how[:, end], written.partners[:, end]
        return code

    def from_code(self, code: NDArray[np.int16]) -> Written:
        """Return the written strokes of a code `(rows, 8)`."""
        rows = code[1:][code[1:, 0] != UNUSED].astype(np.int64)
        first, last = rows[:, 3] == 1, rows[:, 3] == 2
        known = (int(code[0, 3]) >> np.arange(len(self.kinds))) & 1 > 0
        return Written(
            rows[first, 0], rows[first, 7] & 1 > 0,
            rows[first, 7] & 2 > 0, rows[:, 1:3], np.cumsum(first) - 1,
            np.stack([rows[first, 4], rows[last, 4]], 1), np.stack([rows[first, 5:7], rows[last, 5:7]], 1),
            int(code[0, 1]), int(code[0, 2]), known,
        )  # fmt: skip

    def read(self, written: Written) -> Strokes:
        """Return the strokes, turned back out of the frame, with their ends where they belong."""
        xy = turn_points(written.xy.astype(np.float64) * self.grid_m, to_angle(written.bearing))
        stands = written.find_standing(self.kinds) if len(written) else np.zeros((0, 2), np.int64)
        return join_ends(
            Strokes(written.kind, xy, written.stroke, written.known, written.given, written.apart),
            stands,
            self.kinds,
            self.extent_m,
            (written.partners == np.arange(len(written))[:, None, None]).any(2),
        )


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


def _simplify(strokes: Strokes, tolerance_m: float) -> Strokes:
    if not len(strokes):
        return strokes
    lines = shapely.simplify(strokes.lines, tolerance_m)
    xy, stroke = shapely.get_coordinates(lines, return_index=True)
    return replace(strokes, xy=xy, stroke=stroke)
