"""Strokes as a text: which step follows which, and what is known after each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citygrain.geo.stroke_code import BEARINGS, STRENGTHS, StrokeCode, Written
from citygrain.geo.window_strokes import STANDS
from citygrain.networks.stroke_network import Steps
from citygrain.networks.stroke_rays import RAYS, cast_rays, lay_ground, leave_traces
from citygrain.networks.stroke_spread import add_up_lengths, describe_spread

FIRST = 0
"""The operations `FIRST` … `FIRST + 3` begin a stroke with a vertex, by how its end stands (`STANDS`)."""

APART = len(STANDS)
"""The operations `APART` … `APART + 3` do the same for a stroke that crosses others without meeting them."""

INNER = APART + len(STANDS)
"""A vertex within a stroke."""

LAST = INNER + 1
"""The operations `LAST` … `LAST + 3` end a stroke with a vertex, by how its end stands."""

NEXT = LAST + len(STANDS)
"""The section has no more strokes."""

FRAME = NEXT + 1
"""The bearing (x) and the strength (y) of the frame."""

BEGIN = FRAME + 1
"""Before all others."""

OPS = BEGIN + 1

MOVES = 9
"""Numbers of a state that tell how the pen moved, and in which frame."""

DENSITY = 5.0
"""Unit of drawn lengths in a state, km/km²."""


@dataclass(frozen=True, eq=False)
class Text:
    """The steps of one window: arrays `(L,)`, see `Steps`; `drawn` is `(L, K)` km/km²; `target` says what is drawn."""

    op: NDArray[np.int64]
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    placed: NDArray[np.bool_]
    section: NDArray[np.int64]
    vertex: NDArray[np.int64]
    number: NDArray[np.int64]
    rays: NDArray[np.float32]
    spread: NDArray[np.float32]
    moves: NDArray[np.float32]
    drawn: NDArray[np.float32]
    target: NDArray[np.bool_]


def count_sections(kinds: int) -> int:
    """Return how many sections there are: drawn and given ones of each kind, the frame, the end."""
    return 2 * kinds + 2


def write_text(
    written: Written, code: StrokeCode, kept: Sequence[int] = (), *, framed: bool = True, shuffled: bool = False
) -> Text:
    """Return the steps that draw the strokes of a window.

    Parameters
    ----------
    written
        The strokes, in order; given ones first.
    code
        How they were written.
    kept
        Kinds that are not drawn: they are given.
    framed
        Whether the frame is drawn. Where strokes are given, it is not: it is theirs.
    shuffled
        Whether the strokes of a length class stand in no order. The first step tells it.
    """
    kinds = len(code.kinds)
    own = [k for k in range(kinds) if written.known[k] and k not in kept]
    any_given = bool(written.given.any())
    sections = np.array([*(kinds + k for k in range(kinds) if any_given and written.known[k]), *own, 2 * kinds])
    of_stroke = written.kind + kinds * written.given
    place = np.full(count_sections(kinds), -1)
    place[sections] = np.arange(len(sections))
    vertices, last_section = len(written.xy), len(sections) - 1
    rank = place[of_stroke][written.stroke] if vertices else np.empty(0, np.int64)
    at = 2 + np.arange(vertices) + rank  # a step NEXT ends each section before
    ends = 2 + np.searchsorted(rank, np.arange(last_section), side="right") + np.arange(last_section)
    length = 2 + vertices + last_section
    op = np.full(length, NEXT)
    op[:2] = BEGIN, FRAME
    stands = written.find_standing(code.kinds) if vertices else np.zeros((0, 2), np.int64)
    ops = np.full(vertices, INNER)
    ops[written.first] = FIRST + stands[:, 0] + APART * written.apart
    ops[written.last] = LAST + stands[:, 1]
    op[at] = ops
    placed = np.zeros(length, bool)
    placed[at] = True
    x, y = np.full(length, code.reach), np.full(length, code.reach)
    x[at], y[at] = (written.xy + code.reach).clip(0, 2 * code.reach).T
    x[1], y[1] = written.bearing, written.strength
    pen = np.maximum.accumulate(np.where(placed, np.arange(length), 0))
    pen[1] = 1
    x, y = x[pen], y[pen]
    x[0] = y[0] = code.reach
    after = np.zeros(length, np.int64)
    after[at], after[ends] = rank, np.arange(last_section) + 1
    section = sections[after]
    section[0] = 2 * kinds + 1
    vertex, number = np.zeros(length, np.int64), np.zeros(length, np.int64)
    vertex[0] = shuffled
    if vertices:
        vertex[at] = np.arange(vertices) - written.first[written.stroke] + 1
        first_of = np.searchsorted(place[of_stroke], np.arange(last_section))
        number[at] = written.stroke - first_of[rank] + 1
    step = np.zeros((vertices, 2))
    if vertices:
        step[1:] = np.diff(written.xy, axis=0)
        step[written.first] = 0
    run = np.hypot(*step.T) if vertices else np.empty(0)
    along = np.cumsum(run)
    along = along - along[written.first][written.stroke] if vertices else along
    moves = np.zeros((length, MOVES), np.float32)
    moves[at] = describe_moves(step, run, along)
    moves[1:, 6:] = describe_frame(written.bearing, written.strength)
    per_kind = np.zeros((length, kinds))
    if vertices:
        per_kind[at, written.kind[written.stroke]] = run
    drawn = (per_kind.cumsum(0) * (1000 * code.grid_m / code.extent_m**2)).astype(np.float32)
    rays = np.zeros((length, RAYS), np.float32)
    if vertices:
        ground = lay_ground(code, written.bearing)
        leave_traces(ground, written.xy + code.reach, written.stroke, np.arange(len(written)) + 1)
        rays[at] = cast_rays(ground, (written.xy + code.reach).clip(0, 2 * code.reach), written.stroke)
    lengths = add_up_lengths(code, written.xy + code.reach, written.stroke, written.kind[written.stroke])
    before = np.concatenate([np.zeros((1, lengths.shape[1]), np.float32), lengths])[placed.cumsum()]
    spread = describe_spread(code, written.bearing, before)
    spread[0] = 0
    target = section < kinds
    target[0] = framed and not any_given and code.frame == "streets"
    target[-1] = False
    return Text(op, x, y, placed, section, vertex, number, rays, spread, moves, drawn, target)


def describe_moves(
    step: NDArray[np.float64], run: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return how the pen moved `(N, 9)`: the step, its length and direction, the stroke so far; room for the frame."""
    moves = np.zeros((len(step), MOVES), np.float32)
    moves[:, :2] = step / 32
    moves[:, 2] = np.log1p(run) / 4
    moves[:, 3:5] = step / np.maximum(run, 1e-9)[:, None]
    moves[:, 5] = np.log1p(along) / 4
    return moves


def describe_frame(bearing: int, strength: int) -> tuple[float, float, float]:
    """Return the frame as three numbers: cosine and sine of four times the bearing, and the strength."""
    angle = 2 * math.pi * bearing / BEARINGS
    return math.cos(angle), math.sin(angle), (strength + 0.5) / STRENGTHS


def collate_texts(texts: Sequence[Text]) -> tuple[Steps, Tensor, Tensor]:
    """Return steps `(B, L)`, what has been drawn `(B, L, K)`, and which steps are followed by one that is drawn.

    `Steps.state` holds the moves only. Shorter texts are filled up at the end.
    """
    length = max(len(text.op) for text in texts)

    def stack(name: str) -> Tensor:
        parts = [getattr(text, name) for text in texts]
        joined = np.zeros((len(texts), length, *parts[0].shape[1:]), parts[0].dtype)
        for row, part in zip(joined, parts, strict=True):
            row[: len(part)] = part
        return torch.from_numpy(joined)

    names = ("op", "x", "y", "placed", "section", "vertex", "number", "rays", "spread", "moves")
    return Steps(*map(stack, names)), stack("drawn"), stack("target")
