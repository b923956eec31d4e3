"""The sampler of strokes: one vertex after another, each where its operation can put it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.geo.stroke_code import BEARINGS, STRENGTHS, StrokeCode, Written, to_angle, turn_points
from citygrain.geo.window_strokes import AT_EDGE, EDGE, FREE, GOES_ON, JOIN_M, ON, OPEN, TOUCHES, WAITS
from citygrain.networks.stroke_network import Steps
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
from citygrain.protocols import Known, Noise, require
from citygrain.samplers.tokens import TokenSampler
from citygrain.spec import Conditions

NEAR = 1.6
"""An end lies on a stroke when it is at most this many positions away from it."""

AT_THE_EDGE = 0.8
"""An end lies at the window's edge when it is at most this many positions away from it."""

MOST_VERTICES = 40
"""A stroke ends with this vertex at the latest."""

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class ReadsSteps(Protocol):
    """Reads texts step by step, and remembers what it has read."""

    def read(self, steps: Steps, drawn: Tensor) -> Tensor:
        """Read one step `(B, 1)` of each text; return what is known then, `(B, E)`.

        The state of a step holds the moves only; `drawn`, `(B, 1, K)` in km/km², is what has been drawn.
        """
        ...

    def select(self, rows: Tensor) -> None:
        """Forget all texts but some."""
        ...


@runtime_checkable
class StrokeModel(Protocol):
    """The handle of `DrawStrokes`: the distribution of each step of a text, given the steps before it."""

    code: StrokeCode

    def reader(self, conditions: Conditions, site: Tensor) -> ReadsSteps:
        """Return a reader of one text for each condition; sites `(B, 4)` are in half windows from the middle."""
        ...

    def choose_op(self, known: Tensor) -> Tensor:
        """Return logits `(B, ops)` of the next step."""
        ...

    def choose_x(self, known: Tensor, op: Tensor) -> Tensor:
        """Return logits `(B, positions)` of x, given the operation."""
        ...

    def choose_y(self, known: Tensor, op: Tensor, x: Tensor) -> Tensor:
        """Return logits `(B, positions)` of y, given the operation and x."""
        ...


@dataclass(frozen=True)
class DrawStrokes(TokenSampler[StrokeModel]):
    """Draw one vertex after another.

    Operations and positions are drawn from those that are possible: an end at the edge lies there, an end on another
    stroke lies near one that has been drawn, and a stroke ends before the next begins.
    """

    needs: ClassVar[type] = StrokeModel

    def draw(self, model: StrokeModel, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, rows, 8)`."""
        known = np.ones(len(model.code.kinds), bool)
        return self.draw_plans(model, [Plan(known) for _ in noise.seeds], conditions, noise)

    def complete(self, model: StrokeModel, known: Known, conditions: Conditions, noise: Noise) -> Tensor:
        """Draw codes `(B, rows, 8)` around what is known; the known ways are in them."""
        plans = require(model, PlansStrokes, "Keeping parts of a layout", ["stroke_transformer"]).plan(known)
        return self.draw_plans(model, plans, conditions, noise)

    def draw_plans(self, model: StrokeModel, plans: Sequence[Plan], conditions: Conditions, noise: Noise) -> Tensor:
        """Draw what is missing of each plan; return codes `(B, rows, 8)`."""
        code = model.code
        steps = code.rows + 2 * len(code.kinds)
        numbers = noise.uniform(steps, 3)
        sites = torch.tensor([plan.site for plan in plans], dtype=torch.float32, device=noise.device)
        reader = model.reader(self.repeat_conditions(conditions), sites.repeat(self.runs, 1))
        pens = [_Pen(code, plan) for plan in plans]
        alive = np.arange(len(pens))
        for step in range(steps):
            active = [pens[i] for i in alive]
            batch, drawn = _collect_steps(active, noise.device)
            known = reader.read(_repeat(batch, self.runs), drawn.repeat(self.runs, 1, 1))
            self._choose(model, active, known, numbers[alive, step])
            still = np.array([not pen.done for pen in active])
            if not still.any():
                break
            if still.mean() < 0.75:
                rows = torch.from_numpy(np.flatnonzero(still)).to(noise.device)
                reader.select(torch.cat([rows + run * len(alive) for run in range(self.runs)]))
                alive = alive[still]
        codes = [code.to_code(pen.finish()) for pen in pens]
        return torch.from_numpy(np.stack(codes)).to(noise.device)

    def _choose(self, model: StrokeModel, pens: Sequence[_Pen], known: Tensor, numbers: Tensor) -> None:
        """Choose the next step of each pen that has a choice, and make it."""
        device = known.device
        allowed = torch.from_numpy(np.stack([pen.list_ops() for pen in pens])).to(device)
        op = self.pick(_mask(self.guide(model.choose_op(known)), allowed), numbers[:, 0])
        ops = [pen.settle_op(chosen) for pen, chosen in zip(pens, op.tolist(), strict=True)]
        op = torch.tensor(ops, device=device)
        columns = torch.from_numpy(np.stack([pen.list_x(o) for pen, o in zip(pens, ops, strict=True)])).to(device)
        x = self.pick(_mask(self.guide(model.choose_x(known, op.repeat(self.runs))), columns), numbers[:, 1])
        xs = x.tolist()
        rows = np.stack([pen.list_y(o, at) for pen, o, at in zip(pens, ops, xs, strict=True)])
        of_y = self.guide(model.choose_y(known, op.repeat(self.runs), x.repeat(self.runs)))
        y = self.pick(_mask(of_y, torch.from_numpy(rows).to(device)), numbers[:, 2])
        for pen, *made in zip(pens, ops, xs, y.tolist(), strict=True):
            pen.make(*made)


@dataclass(frozen=True, eq=False)
class Plan:
    """What is given of a window before it is drawn.

    Attributes
    ----------
    known
        `(K,)` bool: the kinds that are drawn.
    site
        The part that is drawn, `(left, top, right, bottom)` in half windows from the middle.
    given, text
        The strokes that are given, and the steps that read them; None where nothing is given.
    find_free
        Bearing → the positions of such a frame that may be drawn at, `(P, P)` bool by x and y; None for all within the
        window.
    entries
        Kind → positions `(n, 2)` at which given strokes of this kind go on in the site.
    """

    known: Bools
    site: tuple[float, float, float, float] = (-1.0, -1.0, 1.0, 1.0)
    given: Written | None = None
    text: Text | None = None
    find_free: Callable[[int], Bools] | None = None
    entries: dict[int, Ints] = field(default_factory=dict)


@runtime_checkable
class PlansStrokes(Protocol):
    """A handle that can tell which strokes are given where layouts are known."""

    def plan(self, known: Known) -> list[Plan]:
        """Return what is given of each layout."""
        ...


class _Stroke:
    """A stroke that is being drawn, or has been."""

    def __init__(self, kind: int, how: int, partner: int, *, apart: bool) -> None:
        self.kind, self.apart = kind, apart
        self.xy: list[tuple[int, int]] = []
        self.how, self.partners = [how, FREE], [partner, -1]


class _Pen:
    """Draws one window: knows where it is, what it may do, and what it has drawn."""

    def __init__(self, code: StrokeCode, plan: Plan) -> None:
        self.code, self.plan = code, plan
        kinds = len(code.kinds)
        self.sections = [k for k in range(kinds) if plan.known[k]]
        self.size = 2 * code.reach + 1
        self.near = np.zeros((self.size, self.size), np.int16)  # 1 + the first stroke that is near a position
        self.strokes: list[_Stroke] = []
        self.current: _Stroke | None = None
        self.bearing = self.strength = 0
        self.op, self.x, self.y, self.placed = BEGIN, code.reach, code.reach, False
        self.section, self.vertex, self.number = 2 * kinds + 1, 0, 0
        self.moves, self.drawn = np.zeros(MOVES, np.float32), np.zeros(kinds, np.float32)
        self.along, self.vertices, self.done, self.enters = 0.0, 0, False, False
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
            self.strokes.append(_Stroke(int(given.kind[i]), FREE, -1, apart=bool(given.apart[i])))
            self.strokes[-1].xy = [tuple(p) for p in points.tolist()]
            self._leave_trace(len(self.strokes))
        self.vertices = len(given.xy)

    def _set_frame(self, bearing: int, strength: int) -> None:
        self.bearing, self.strength = bearing, strength
        self.inside, self.edge = lay_window(self.code, bearing)
        if self.plan.find_free is not None:
            free = self.plan.find_free(bearing)
            self.inside, self.edge = self.inside & free, self.edge & free

    # What may be done -------------------------------------------------------------------------------------------

    def list_ops(self) -> Bools:
        """Return which operations are possible next, `(ops,)`."""
        allowed = np.zeros(OPS, bool)
        if self._is_forced():
            allowed[0] = True
        elif self.section == 2 * len(self.code.kinds) + 1:
            allowed[FRAME] = True
        elif self.current is None:
            allowed[FIRST:INNER] = self._has_room(4)
            for first in (FIRST, APART):
                allowed[first + AT_EDGE] &= self.edge.any()
                allowed[first + ON] &= bool(self.strokes)
            allowed[NEXT] = True
        else:
            count = len(self.current.xy)
            allowed[INNER] = count + 1 < MOST_VERTICES and self._has_room(3)
            allowed[LAST : LAST + 4] = True
            allowed[LAST + AT_EDGE] &= self.edge.any()
            allowed[LAST + ON] &= bool(self.strokes) or count > 2
        return allowed

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
        return self._canvas(op).any(1)

    def list_y(self, op: int, x: int) -> Bools:
        """Return which y are possible at x, `(P,)`."""
        row = self._canvas(op)[x]
        if self.current is not None and x == self.x and op >= INNER and row.sum() > 1:
            row = row.copy()
            row[self.y] = False  # a stroke moves on
        return row

    def _canvas(self, op: int) -> Bools:
        """Return where an operation may be done, by x and y `(P, P)`."""
        if self._is_forced() or op in {NEXT, FRAME}:
            possible = np.zeros((self.size, self.size), bool)
            if op == FRAME and not self._is_forced() and self.code.frame == "streets":
                possible[:BEARINGS, :STRENGTHS] = True
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
            on = (self.near > 0) & self.inside
            return on if on.any() else self.inside
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
        if op == FRAME:
            self._set_frame(x, y)
            self.moves[6:] = describe_frame(x, y)
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
            self.current = _Stroke(self.section, how, partner, apart=op >= APART)
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
        self.current.xy.append((x, y))
        self.x, self.y, self.placed = x, y, True
        self.vertex = len(self.current.xy)
        self.vertices += 1
        if len(self.current.xy) == 3:  # from now on it may close to a ring
            x0, y0 = self.current.xy[0]
            part = self.near[max(0, x0 - 1) : x0 + 2, max(0, y0 - 1) : y0 + 2]
            part[part == 0] = len(self.strokes) + 1

    def _stand(self, stands: int, x: int, y: int) -> tuple[int, int]:
        """Return how an end stands, and its partner; an entry that is met there waits no longer."""
        left = self.waiting.get(self.section)
        if left:
            self.waiting[self.section] = [p for p in left if max(abs(p[0] - x), abs(p[1] - y)) > 2]
        if stands == AT_EDGE:
            return EDGE, -1
        partner = int(self.near[x, y]) - 1 if stands == ON else -1
        return (TOUCHES, partner) if partner >= 0 else (WAITS if stands == OPEN else FREE, -1)

    def _end_stroke(self, stands: int, x: int, y: int) -> None:
        assert self.current is not None
        self.current.how[1], self.current.partners[1] = self._stand(stands, x, y)
        self.strokes.append(self.current)
        self.current = None
        self._leave_trace(len(self.strokes))

    def _leave_trace(self, mark: int) -> None:
        """Mark the positions that are near the last stroke, where no earlier one is."""
        points = np.array(self.strokes[-1].xy, float)
        runs = np.hypot(*np.diff(points, axis=0).T) if len(points) > 1 else np.zeros(0)
        along = np.concatenate([[0], np.cumsum(runs)])
        at = np.arange(0, along[-1] + 0.5, 0.7)
        track = np.stack([np.interp(at, along, points[:, i]) for i in (0, 1)], 1)
        spots = (np.rint(track)[:, None] + DISC).reshape(-1, 2).astype(np.int64)
        close = np.abs(spots - np.repeat(track, len(DISC), 0)).max(1) <= NEAR
        spots = spots[close & (spots >= 0).all(1) & (spots < self.size).all(1)]
        part = self.near[spots[:, 0], spots[:, 1]]
        self.near[spots[:, 0], spots[:, 1]] = np.where(part > 0, part, mark)

    def _read_given(self, text: Text) -> None:
        """Read the next given step."""
        self.read += 1
        i = self.read
        self.op, self.x, self.y, self.placed = int(text.op[i]), int(text.x[i]), int(text.y[i]), bool(text.placed[i])
        self.section, self.vertex, self.number = int(text.section[i]), int(text.vertex[i]), int(text.number[i])
        self.moves, self.drawn = text.moves[i].copy(), text.drawn[i].copy()
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


DISC = np.array([(x, y) for x in (-2, -1, 0, 1, 2) for y in (-2, -1, 0, 1, 2)])


@cache
def lay_window(code: StrokeCode, bearing: int) -> tuple[Bools, Bools]:
    """Return which positions of a frame lie within the window, and which on its edge, `(P, P)` by x and y each."""
    at = np.arange(-code.reach, code.reach + 1) * code.grid_m
    points = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    out = np.abs(turn_points(points, to_angle(bearing))).max(1).reshape(len(at), len(at)) - code.extent_m / 2
    return out <= code.grid_m / 2, np.abs(out) <= AT_THE_EDGE * code.grid_m


def _collect_steps(pens: Sequence[_Pen], device: torch.device) -> tuple[Steps, Tensor]:
    names = ("op", "x", "y", "placed", "section", "vertex", "number")
    plain = [torch.tensor([[getattr(pen, name)] for pen in pens], device=device) for name in names]
    moves, drawn = (
        torch.from_numpy(np.stack([getattr(pen, name) for pen in pens])).to(device)[:, None]
        for name in ("moves", "drawn")
    )
    return Steps(*plain, moves), drawn


def _repeat(steps: Steps, times: int) -> Steps:
    return steps if times == 1 else Steps(*(part.repeat(times, *[1] * (part.ndim - 1)) for part in steps))


def _mask(logits: Tensor, allowed: Tensor) -> Tensor:
    return logits.float().masked_fill(~allowed, -1e9)
