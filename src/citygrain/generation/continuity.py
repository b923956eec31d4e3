"""Whether what was drawn in parts holds together: streets across an edge, and seams between windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

AROUND = np.ones((3, 3), bool)

LEVEL = 0.5
"""Coverage from which a cell is a street."""


def street_ends(
    layout: ArrayLike, free: NDArray[np.bool_], channels: Sequence[str], kinds: Sequence[str] = ("arterial", "street")
) -> tuple[int, int]:
    """Count the streets that reach the edge of what was redrawn from outside, and those of them that go on inside.

    A street's end is what it covers of the cells along the edge. It goes on where a cell on the other side that touches
    it is street. A street that runs along the edge is one end, too, so compare with the same count on real layouts.

    Parameters
    ----------
    layout
        `(C, H, W)` in [0, 1].
    free
        `(H, W)`: what was redrawn.
    channels
        Names of the C channels, in order.
    kinds
        Channels that are streets.

    Returns
    -------
    going_on, ends
        How many of how many.
    """
    cells = np.asarray(layout)
    street = cells[[channels.index(kind) for kind in kinds if kind in channels]].sum(0) >= LEVEL
    outside = street & ~free & ndimage.binary_dilation(free, AROUND)
    inside = street & free & ndimage.binary_dilation(~free, AROUND)
    ends, count = ndimage.label(outside, AROUND)
    going_on = np.unique(ends[ndimage.binary_dilation(inside, AROUND) & outside])
    return len(going_on), count


def seam_contrast(layout: ArrayLike, rows: Iterable[int], columns: Iterable[int]) -> float:
    """Return how much more neighbouring cells differ across seams than elsewhere: 1 where there is nothing to be seen.

    Parameters
    ----------
    layout
        `(C, H, W)` in [0, 1].
    rows, columns
        Numbers of the cells behind a seam: those in which a window begins or that come after its last.
    """
    cells = np.asarray(layout, float)
    across, elsewhere = [], []
    for axis, seams in ((1, rows), (2, columns)):
        steps = np.abs(np.diff(cells, axis=axis)).mean((0, 3 - axis))
        seam = np.isin(np.arange(1, len(steps) + 1), list(seams))
        across.append(steps[seam])
        elsewhere.append(steps[~seam])
    at, off = (np.concatenate(parts) for parts in (across, elsewhere))
    return float(at.mean() / off.mean()) if len(at) and off.mean() > 0 else math.nan
