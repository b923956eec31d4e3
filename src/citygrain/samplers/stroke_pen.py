"""The pen of strokes: what is given of a window, where the pen is in it, and what it may do next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from citygrain.geo.stroke_code import BEARINGS, STRENGTHS, StrokeCode, Written
from citygrain.geo.window_strokes import AT_EDGE, EDGE, FREE, GOES_ON, JOIN_M, ON, OPEN, TOUCHES, WAITS
from citygrain.networks.stroke_rays import MARGIN, RAYS, cast_rays, lay_ground, lay_window, leave_traces
from citygrain.networks.stroke_spread import CELLS, SPREAD, add_up_lengths, describe_spread
from citygrain.networks.stroke_steps import (
    APART,
    BEGIN,
    FIRST,
    FRAME,
    INNER,
    LAST,
    MOVES,
    NEXT,
    OPS,
    Text,
    describe_frame,
    describe_moves,
)
from citygrain.samplers.stroke_plan import Plan

SNAP = 2
"""An end that is at most this many positions away from an entry is at the entry."""

INTO = 3
"""A line that begins or ends beside the site is on the site this many positions from there."""

MOST_VERTICES = 40
"""A stroke ends with this vertex at the latest."""

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Stroke:
    """A stroke that is being drawn, or has been."""

    def __init__(self, kind: int, how: int, partner: int, *, apart: bool) -> None:
        self.kind, self.apart = kind, apart
        self.xy: list[tuple[int, int]] = []
        self.how, self.partners = [how, FREE], [partner, -1]


class Pen:
    """Draws one window: knows where it is, what it may do, and what it has drawn."""

    def __init__(self, code: StrokeCode, plan: Plan) -> None:
        self.code, self.plan = code, plan
        kinds = len(code.kinds)
        self.sections = [k for k in range(kinds) if plan.known[k]]
        self.size = 2 * code.reach + 1
        self.ground = lay_ground(code, 0)
        self.rays, self.spread = np.zeros(RAYS, np.float32), np.zeros(SPREAD, np.float32)
        self.lengths = np.zeros((1, 2 * CELLS**2), np.float32)  # on coarse cells
        self.strokes: list[Stroke] = []
        self.current: Stroke | None = None
        self.bearing = self.strength = 0
        self.op, self.x, self.y, self.placed = BEGIN, code.reach, code.reach, False
        self.section, self.vertex, self.number = 2 * kinds + 1, int(plan.shuffled), 0
        self.moves, self.drawn = np.zeros(MOVES, np.float32), np.zeros(kinds, np.float32)
        self.along, self.vertices, self.done, self.enters = 0.0, 0, False, False
        self.canvas: Bools = np.zeros((self.size, self.size), bool)  # where the next operation may be done
        self.read, self.prefix = 0, 0  # steps of the given text
        if plan.text is not None:
            own = (plan.text.section < kinds) | (plan.text.section == 2 * kinds)
            self.prefix = int(own.argmax())
        self.waiting = {kind: [tuple(p) for p in points.tolist()] for kind, points in plan.entries.items()}
        if plan.given is not None:
            self._take_over(plan.given)

    def _take_over(self, given: Written) -> None:
        """Begin with strokes that are given."""
        self._set_frame(given.bearing, given.strength)
        self.moves[:] = 0  # the given text tells it in its first step
        for i in range(len(given)):
            points = given.xy[given.first[i] : given.last[i] + 1] + self.code.reach
            self.strokes.append(Stroke(int(given.kind[i]), FREE, -1, apart=bool(given.apart[i])))
            self.strokes[-1].xy = [tuple(p) for p in points.tolist()]
            self._mark_near(self.strokes[-1].xy, len(self.strokes))
        self.lengths = add_up_lengths(self.code, given.xy + self.code.reach, given.stroke, given.kind[given.stroke])[
            -1:
        ]
        self.vertices = len(given.xy)

    def _set_frame(self, bearing: int, strength: int) -> None:
        self.bearing, self.strength = bearing, strength
        self.inside, self.edge = lay_window(self.code, bearing)
        self.beside = self.inside  # where an end may lie on a given stroke
        self.ground = lay_ground(self.code, bearing)
        if self.plan.find_free is not None:
            free, beside = self.plan.find_free(bearing)
            free = free if (self.inside & free).any() else beside  # a site may lie between the positions
            self.inside, self.edge, self.beside = self.inside & free, self.edge & free, self.inside & beside

    @property
    def near(self) -> NDArray[np.int16]:
        """1 + the first stroke that is near a position, by x and y `(P, P)`; 0 or less where none is."""
        return self.ground[MARGIN:-MARGIN, MARGIN:-MARGIN]

    # What may be done -------------------------------------------------------------------------------------------

    def list_ops(self) -> Bools:
        """Return which operations are possible next, `(ops,)`."""
        allowed = np.zeros(OPS, bool)
        if self._is_forced():
            allowed[0] = True
        elif self.section == 2 * len(self.code.kinds) + 1:
            allowed[FRAME] = True
        elif self.current is None:
            owes, met = self._compare_lengths()
            allowed[FIRST:INNER] = self._has_room(4) and not met
            for first in (FIRST, APART):
                allowed[first + AT_EDGE] &= self.edge.any()
                allowed[first + ON] &= self._meets()
            allowed[NEXT] = not (owes and self._has_room(4))
        else:
            count = len(self.current.xy)
            allowed[INNER] = count + 1 < MOST_VERTICES and self._has_room(3)
            allowed[LAST : LAST + 4] = True
            allowed[LAST + AT_EDGE] &= self.edge.any()
            allowed[LAST + ON] &= self._meets()
        return allowed

    def _meets(self) -> bool:
        """Tell whether there is a stroke that another one can end on."""
        return bool((self.beside & (self.near > 0)).any())

    def _compare_lengths(self) -> tuple[bool, bool]:
        """Tell whether too little has been drawn of a length that is asked for, and whether nothing is missing.

        Less than the mean stroke of this kind is not too little: what remains would be a stub of a main road.
        """
        if self.plan.account is None:
            return False, False
        missing = self.plan.account.find_missing(self.sections, self.section, self.drawn)
        usual = self.drawn[self.section] / self.number if self.number else np.inf
        short = max(self.plan.account.shortfall, usual)
        return bool((missing > short).any()), len(missing) > 0 and bool((missing <= 0).all())

    def _has_room(self, vertices: int) -> bool:
        """Tell whether a code has room for some vertices, and for a stroke at each entry that waits."""
        waiting = sum(len(points) for points in self.waiting.values())
        return self.vertices + vertices + 2 * waiting < self.code.rows

    def settle_op(self, op: int) -> int:
        """Return what is done instead of an operation: as long as given strokes wait, no section ends."""
        waits = op == NEXT and not self._is_forced() and bool(self.waiting.get(self.section))
        self.enters = waits and self.vertices + 2 < self.code.rows
        return FIRST + ON if self.enters else op

    def list_x(self, op: int) -> Bools:
        """Return which x are possible, `(P,)`."""
        self.canvas = self._canvas(op)
        columns: Bools = np.logical_or.reduce(self.canvas, 1)
        return columns

    def list_y(self, x: int) -> Bools:
        """Return which y are possible at x, `(P,)`, for the operation that `list_x` was asked for."""
        return self.canvas[x]

    def _canvas(self, op: int) -> Bools:
        """Return where an operation may be done, by x and y `(P, P)`."""
        possible = self._find_possible(op)
        if self.current is None or self._is_forced():
            return possible
        into = possible & self._find_ways_through(op)
        possible = into if into.any() else possible
        if not possible[self.x, self.y]:
            return possible
        elsewhere = possible.copy()
        elsewhere[self.x, self.y] = False  # a stroke moves on
        return elsewhere if elsewhere.any() else possible

    def _find_ways_through(self, op: int) -> Bools | bool:
        """Return to which positions, `(P, P)`, a straight line leads from the pen through the site, not beside it.

        A line that begins beside the site is on it soon, and one that ends beside the site was on it until shortly
        before.
        """
        begins = not (self.inside | self.edge)[self.x, self.y]
        ends = op == LAST + ON and self.beside is not self.inside
        if not (begins or ends):
            return True
        at = np.indices(self.near.shape)
        ahead = at - np.array([self.x, self.y])[:, None, None]
        share = np.minimum(1, INTO / np.maximum(np.hypot(*ahead), 1))
        through = np.ones_like(self.inside)
        if begins:
            x, y = np.rint(np.array([self.x, self.y])[:, None, None] + share * ahead).astype(np.int64)
            through &= self.inside[x, y]
        if ends:
            x, y = np.rint(at - share * ahead).astype(np.int64)
            through &= self.inside | self.inside[x, y]
        return through

    def _find_possible(self, op: int) -> Bools:
        if self._is_forced() or op in {NEXT, FRAME}:
            possible = np.zeros((self.size, self.size), bool)
            if op == FRAME and not self._is_forced() and self.code.frame == "streets":
                asked = self.plan.bearing
                possible[slice(BEARINGS) if asked is None else asked, :STRENGTHS] = True
            else:
                possible[0, 0] = True
            return possible
        if op in {FIRST + AT_EDGE, APART + AT_EDGE, LAST + AT_EDGE}:
            return self.edge
        if self.enters:
            entries = np.zeros((self.size, self.size), bool)
            entries[tuple(np.transpose(self.waiting[self.section]))] = True
            return entries
        if op in {FIRST + ON, APART + ON, LAST + ON}:
            return self.beside & (self.near > 0)
        return self.inside

    def _is_forced(self) -> bool:
        return self.done or self.read < self.prefix

    # What is done -----------------------------------------------------------------------------------------------

    def make(self, op: int, x: int, y: int) -> None:
        """Make a step."""
        if self.done:
            return
        if self.read < self.prefix and self.plan.text is not None:
            self._read_given(self.plan.text)
            return
        self.op, self.placed = op, False
        self.rays = np.zeros(RAYS, np.float32)
        if op < INNER or op >= LAST:
            x, y = self._snap(op, x, y)
        if op == FRAME:
            self.vertex = 0
            self._set_frame(x, y)
            self.moves[6:] = describe_frame(x, y)
            self.spread = describe_spread(self.code, x, self.lengths)[0]
            self.x, self.y = x, y
            self._enter(0)
        elif op == NEXT:
            self._enter(self.sections.index(self.section) + 1)
            self.moves[:6] = 0
            if not self.strokes:
                self.x = self.y = self.code.reach
        elif op < INNER:
            self.number += 1
            how, partner = self._stand((op - FIRST) % APART, x, y)
            if op in {FIRST + ON, APART + ON} and partner < 0:
                self.op = op - ON  # at an entry of a piece that is too short to be traced
            self.current = Stroke(self.section, how, partner, apart=op >= APART)
            self.along = 0.0
            self._put(x, y, begins=True)
        else:
            self._put(x, y, begins=False)
            if op >= LAST:
                self._end_stroke(op - LAST, x, y)

    def _enter(self, index: int) -> None:
        """Enter the section of the next kind, or come to the end."""
        self.done = index == len(self.sections)
        self.section = 2 * len(self.code.kinds) if self.done else self.sections[index]
        self.vertex = self.number = 0

    def _put(self, x: int, y: int, *, begins: bool) -> None:
        """Put a vertex of the current stroke."""
        assert self.current is not None
        step = np.zeros((1, 2)) if begins else np.array([[x - self.x, y - self.y]], float)
        run = float(np.hypot(*step[0]))
        self.along += run
        self.moves[:6] = describe_moves(step, np.array([run]), np.array([self.along]))[0, :6]
        self.drawn[self.current.kind] += run * 1000 * self.code.grid_m / self.code.extent_m**2
        if not begins:
            piece, kind = np.array([[self.x, self.y], [x, y]]), np.full(2, self.current.kind)
            self.lengths += add_up_lengths(self.code, piece, np.zeros(2, np.int64), kind)[1]
            self.spread = describe_spread(self.code, self.bearing, self.lengths)[0]
        self.current.xy.append((x, y))
        self.x, self.y, self.placed = x, y, True
        self.vertex = len(self.current.xy)
        self.vertices += 1
        self.rays = cast_rays(self.ground, np.array([[x, y]]), np.array([len(self.strokes)]))[0]
        if len(self.current.xy) > 2:  # from now on it may close to a ring, or come back onto its own line
            self._mark_near(self.current.xy[-3:-1], len(self.strokes) + 1)

    def _snap(self, op: int, x: int, y: int) -> tuple[int, int]:
        """Move an end to the entry that it is near to, if there is one."""
        if op >= NEXT or op in {FIRST + AT_EDGE, APART + AT_EDGE, LAST + AT_EDGE}:
            return x, y
        gaps = [(max(abs(a - x), abs(b - y)), a, b) for a, b in self.waiting.get(self.section, [])]
        gap, a, b = min(gaps, default=(SNAP + 1, x, y))
        return (a, b) if gap <= SNAP and (self.current is None or (a, b) != (self.x, self.y)) else (x, y)

    def _stand(self, stands: int, x: int, y: int) -> tuple[int, int]:
        """Return how an end stands, and its partner; an entry that is met there waits no longer."""
        left = self.waiting.get(self.section)
        if left:
            self.waiting[self.section] = [p for p in left if max(abs(p[0] - x), abs(p[1] - y)) > 1]
        if stands == AT_EDGE:
            return EDGE, -1
        partner = int(self.near[x, y]) - 1 if stands == ON else -1
        return (TOUCHES, partner) if partner >= 0 else (WAITS if stands == OPEN else FREE, -1)

    def _end_stroke(self, stands: int, x: int, y: int) -> None:
        assert self.current is not None
        self.current.how[1], self.current.partners[1] = self._stand(stands, x, y)
        self.strokes.append(self.current)
        self.current = None
        self._mark_near(self.strokes[-1].xy, len(self.strokes))

    def _mark_near(self, line: Sequence[tuple[int, int]], mark: int) -> None:
        """Mark the positions that are near a line, where no earlier one is."""
        leave_traces(self.ground, np.array(line), np.zeros(len(line), np.int64), np.array([mark]))

    def _read_given(self, text: Text) -> None:
        """Read the next given step."""
        self.read += 1
        i = self.read
        self.op, self.x, self.y, self.placed = int(text.op[i]), int(text.x[i]), int(text.y[i]), bool(text.placed[i])
        self.section, self.vertex, self.number = int(text.section[i]), int(text.vertex[i]), int(text.number[i])
        self.rays, self.moves, self.drawn = text.rays[i].copy(), text.moves[i].copy(), text.drawn[i].copy()
        self.spread = text.spread[i]
        if self.read == self.prefix:
            self._enter(0)

    def finish(self) -> Written:
        """Return the strokes, given ones first. Ends that wait for a later stroke touch the nearest one."""
        done, code = self.strokes, self.code
        given = 0 if self.plan.given is None else len(self.plan.given)
        xy = np.array([p for stroke in done for p in stroke.xy], np.int64).reshape(-1, 2) - code.reach
        stroke = np.repeat(np.arange(len(done)), [len(s.xy) for s in done])
        kind = np.array([s.kind for s in done], np.int64)
        how = np.array([s.how for s in done], np.int64).reshape(-1, 2)
        partners = np.full((len(done), 2, 2), -1)
        partners[:, :, 0] = np.array([s.partners for s in done], np.int64).reshape(-1, 2)
        if given:
            how[:given], partners[:given] = FREE, -1
        lines = shapely.linestrings(xy.astype(float), indices=stroke) if len(done) else np.empty(0, object)
        for number, end in zip(*np.nonzero(how == WAITS), strict=True):
            names = GOES_ON.get(code.kinds[kind[number]], (code.kinds[kind[number]],))
            fits = np.isin(kind, [code.kinds.index(name) for name in names if name in code.kinds])
            fits[: number + 1] = False
            later = np.flatnonzero(fits)
            point = np.array(done[number].xy[-end]) - code.reach
            gaps = shapely.distance(lines[later], shapely.Point(point))
            if len(gaps) and gaps.min() * code.grid_m <= JOIN_M:
                how[number, end], partners[number, end, 0] = TOUCHES, later[gaps.argmin()]
            else:
                how[number, end] = FREE
        return Written(
            kind,
            np.arange(len(done)) < given,
            np.array([s.apart for s in done], bool), xy, stroke, how, partners, self.bearing, self.strength,
            np.ones(len(code.kinds), bool),
        )  # fmt: skip
