"""Whether the parts of an area fit together: streets that go on across the edge of a site, seams between windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

AROUND = np.ones((3, 3), bool)

LEVEL = 0.5
"""The coverage by streets from which a cell counts as street."""


def count_street_ends(
    layout: ArrayLike, free: NDArray[np.bool_], channels: Sequence[str], kinds: Sequence[str] = ("arterial", "street")
) -> tuple[int, int]:
    """Count the streets outside a site that touch its edge, and how many of them go on inside the site.

    A street outside the site is a group of street cells along the edge that touch each other. It goes on when a cell
    inside the site that touches it is street. A street that runs along the edge counts as well, so compare the counts
    with those of the real layout.

    Parameters
    ----------
    layout
        `(C, H, W)` in [0, 1].
    free
        `(H, W)` bool: the cells of the site.
    channels
        Names of the C channels, in order.
    kinds
        Channels that are streets.

    Returns
    -------
    going_on, ends
        Streets that go on, and all streets that touch the edge.
    """
    cells = np.asarray(layout)
    street = cells[[channels.index(kind) for kind in kinds if kind in channels]].sum(0) >= LEVEL
    outside = street & ~free & ndimage.binary_dilation(free, AROUND)
    inside = street & free & ndimage.binary_dilation(~free, AROUND)
    ends, count = ndimage.label(outside, AROUND)
    going_on = np.unique(ends[ndimage.binary_dilation(inside, AROUND) & outside])
    return len(going_on), count


def measure_seams(layout: ArrayLike, rows: Iterable[int], columns: Iterable[int]) -> float:
    """Compare the difference of neighbouring cells across seams with that elsewhere: their ratio is 1 without seams.

    Parameters
    ----------
    layout
        `(C, H, W)` in [0, 1].
    rows, columns
        Rows and columns right behind a seam: those where a window begins, and the first ones after its end.
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
