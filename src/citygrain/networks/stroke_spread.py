"""How far strokes are spread over a window so far: their lengths on coarse cells, which tell where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from citygrain.geo.stroke_code import StrokeCode
from citygrain.networks.stroke_rays import lay_window

CELLS = 12
"""Coarse cells along an edge of the square that holds a window at every bearing."""

DRIVEN = ("arterial", "street", "service")
"""Kinds whose lengths are told together; those of all others are told together, too."""

MAPS = 3
"""Numbers of a cell: lengths of the kinds that are driven on and of the others, and the share within the window."""

SPREAD = MAPS * CELLS**2
"""Numbers that tell how strokes are spread."""

STEP = 2.0
"""Strokes are followed in steps of at most this many positions."""

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def add_up_lengths(code: StrokeCode, xy: Ints, stroke: Ints, kind: Ints) -> Floats:
    """Return the lengths on coarse cells up to each vertex, `(V, 2 · CELLS²)`, in edges of a cell.

    Parameters
    ----------
    code
        How strokes are written.
    xy
        `(V, 2)` positions, counted from 0.
    stroke
        `(V,)` which stroke a vertex is of, in order.
    kind
        `(V,)` which kind it is.
    """
    lengths = np.zeros((len(xy), 2 * CELLS**2), np.float32)
    if len(xy) < 2:
        return lengths
    step = np.diff(xy, axis=0)
    run = np.hypot(*step.T) * (stroke[1:] == stroke[:-1])
    count = np.ceil(run / STEP).astype(np.int64)
    of = np.repeat(np.arange(len(run)), count)
    within = (np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[of]
    edge = (2 * code.reach + 1) / CELLS
    cell = ((xy[:-1][of] + within[:, None] * step[of] + 0.5) / edge).astype(np.int64).clip(0, CELLS - 1)
    others = ~_find_driven(code.kinds)[kind[1:][of]]
    flat = (others * CELLS + cell[:, 0]) * CELLS + cell[:, 1]
    np.add.at(lengths, (of + 1, flat), ((run / np.maximum(count, 1))[of] / edge).astype(np.float32))
    return lengths.cumsum(0, dtype=np.float32)


def describe_spread(code: StrokeCode, bearing: int, lengths: Floats) -> Floats:
    """Return `(N, SPREAD)` numbers of order one: lengths `(N, 2 · CELLS²)` on coarse cells, and where the window is."""
    inside = np.broadcast_to(_share_inside(code, bearing), (len(lengths), CELLS**2))
    return np.concatenate([np.log1p(lengths), inside], 1)


@cache
def _find_driven(kinds: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([kind in DRIVEN for kind in kinds])


@cache
def _share_inside(code: StrokeCode, bearing: int) -> Floats:
    """Return the share of each coarse cell that lies within the window, `(CELLS²,)`."""
    inside, _ = lay_window(code, bearing)
    at = (np.arange(len(inside)) * CELLS / len(inside)).astype(np.int64)
    cell = at[:, None] * CELLS + at
    count = np.bincount(cell.ravel(), minlength=CELLS**2)
    share: Floats = (np.bincount(cell.ravel(), inside.ravel(), CELLS**2) / np.maximum(count, 1)).astype(np.float32)
    return share
