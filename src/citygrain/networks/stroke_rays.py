"""What lies around a vertex: the ground of a window, on which strokes leave traces, and rays that are cast over it."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from citygrain.geo.stroke_code import StrokeCode, to_angle, turn_points

STEP = 0.7
"""Strokes are followed in steps of this many positions. The positions next to each step are on the stroke."""

AT_THE_EDGE = 0.8
"""An end lies at the window's edge when it is at most this many positions away from it."""

RAYS = 16
"""Directions that are looked in, evenly spaced, the first along x."""

RADII = np.arange(4, 65, 2)
"""Distances that are looked at, in positions. The nearest are left out: a vertex on a stroke would see nothing else."""

MARGIN = 64
"""Positions around the ground, so that rays do not leave it."""

OUTSIDE = -1

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Ground = NDArray[np.int16]

_ANGLES = 2 * math.pi * np.arange(RAYS) / RAYS
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
_NEXT_TO = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)])


@cache
def lay_window(code: StrokeCode, bearing: int) -> tuple[Bools, Bools]:
    """Return which positions of a frame lie within the window, and which on its edge, `(P, P)` by x and y each."""
    at = np.arange(-code.reach, code.reach + 1) * code.grid_m
    points = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    out = np.abs(turn_points(points, to_angle(bearing))).max(1).reshape(len(at), len(at)) - code.extent_m / 2
    return out <= code.grid_m / 2, np.abs(out) <= AT_THE_EDGE * code.grid_m


def lay_ground(code: StrokeCode, bearing: int) -> Ground:
    """Return the ground of a window without strokes, `(P + 2 · MARGIN, P + 2 · MARGIN)` by x and y.

    It is 0 within the window and `OUTSIDE` elsewhere; where a stroke is near, it is 1 + the number of the first one.
    """
    return _lay_empty_ground(code, bearing).copy()


@cache
def _lay_empty_ground(code: StrokeCode, bearing: int) -> Ground:
    inside, _ = lay_window(code, bearing)
    ground: Ground = np.pad(np.where(inside, 0, OUTSIDE), MARGIN, constant_values=OUTSIDE).astype(np.int16)
    return ground


def leave_traces(ground: Ground, xy: Ints, stroke: Ints, marks: Ints) -> None:
    """Mark the positions near strokes, where no earlier stroke is near.

    Parameters
    ----------
    ground
        See `lay_ground`; it is changed.
    xy
        `(V, 2)` positions of the vertices, counted from 0.
    stroke
        `(V,)` which stroke a vertex is of, from 0 on, in order.
    marks
        The mark of each stroke, rising.
    """
    pieces = np.flatnonzero(
        stroke[1:] == stroke[:-1]
    )  # each is followed from its own vertex, so that it may come alone
    if not len(pieces):
        return
    step = (xy[1:] - xy[:-1])[pieces]
    count = np.ceil(np.hypot(*step.T) / STEP).astype(np.int64) + 1
    piece = np.repeat(np.arange(len(pieces)), count)
    share = (np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)) / np.maximum(count - 1, 1)[piece]
    track, of = xy[pieces][piece] + share[:, None] * step[piece], stroke[pieces][piece]
    spots = (np.rint(track)[::-1, None].astype(np.int64) + _NEXT_TO + MARGIN).reshape(-1, 2)
    cell = spots[:, 0] * len(ground) + spots[:, 1]
    cells = ground.reshape(-1)
    free = cells[cell] == 0
    cells[cell[free]] = np.repeat(marks[of][::-1], len(_NEXT_TO))[free]  # the earliest stroke is written last


def cast_rays(ground: Ground, at: Ints, before: Ints) -> NDArray[np.float32]:
    """Look around from positions: return `(N, RAYS)`, how far away the first thing is.

    Parameters
    ----------
    ground
        See `lay_ground`.
    at
        `(N, 2)` positions, counted from 0.
    before
        `(N,)`: strokes with larger marks are not seen.

    Returns
    -------
    array
        The distance of a stroke; minus the distance of the window's edge; 0 if there is neither in reach.
    """
    cells, offsets = ground.reshape(-1), _find_offsets(len(ground))
    here = (at[:, 0] + MARGIN) * len(ground) + at[:, 1] + MARGIN
    latest = before.astype(np.int16)[:, None]
    there = cells[here[:, None, None] + offsets[:, 1::2]]
    seen = (there != 0) & (there <= latest[..., None])
    first = seen.argmax(2)
    nearer = 2 * first  # every second distance was looked at; what is met may begin one before it
    before_it = cells[here[:, None] + offsets[np.arange(RAYS), nearer]]
    begins = (before_it != 0) & (before_it <= latest)
    what = cells[here[:, None] + offsets[np.arange(RAYS), nearer + 1]]
    distance = (RADII[first] - begins) * np.sign(what)
    return np.where(seen.any(2), distance, 0).astype(np.float32)


@cache
def _find_offsets(width: int) -> Ints:
    """Return how far on rays go in a flat ground of a width, `(RAYS, 2 · RADII)`: before each distance, and at it."""
    radii = np.stack([RADII - 1, RADII], 1).reshape(-1)
    steps = np.rint(_DIRECTIONS[:, None] * radii[:, None]).astype(np.int64)
    offsets: Ints = steps[..., 0] * width + steps[..., 1]
    return offsets
