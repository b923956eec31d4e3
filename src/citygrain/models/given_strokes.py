"""What is changed of windows of strokes in training: a part is given, and some strokes come late."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from citygrain.geo.stroke_code import StrokeCode, Written
from citygrain.geo.window_strokes import split_at_site

SITE_SHARE = 0.35
"""Share of training windows of which a part is given."""

KEPT_SHARE = 0.25
"""Share of these in which some kinds are given on the site, too."""

CHANCES = 10
"""Random numbers that decide what is given of a window."""

LATE_WINDOWS, LATE_MOST = 0.5, 0.3
"""Share of training windows in which strokes come late, and the largest share of their strokes that do."""

WHOLE = np.array([-1.0, -1.0, 1.0, 1.0])
"""The site that is the whole window, in half windows from its middle."""


def give_part(
    code: StrokeCode, window: Written, chances: Sequence[float]
) -> tuple[Written, list[int], NDArray[np.float64]]:
    """Give a part of a window, in `SITE_SHARE` of all cases.

    Parameters
    ----------
    code
        How strokes are written.
    window
        The strokes of a whole window.
    chances
        `CHANCES` uniform random numbers.

    Returns
    -------
    window
        The strokes, the given ones marked.
    kept
        Kinds that are given on the site, too.
    site
        What is drawn, `(left, top, right, bottom)` in half windows from the middle.
    """
    if chances[0] >= SITE_SHARE or not len(window):
        return window, [], WHOLE
    half, kept = code.extent_m / 2, []
    site = (-half, -half, half, half) if chances[1] < KEPT_SHARE / 2 else draw_site(chances[2:], half)
    if chances[1] < KEPT_SHARE:
        kept = list(range(1 + int(chances[9] * (len(code.kinds) - 1))))
    return code.write(split_at_site(code.read(window), site, kept)), kept, np.array(site) / half


def delay_strokes(window: Written, grid_m: float, share: float, chances: NDArray[np.float64]) -> Written:
    """Put a share of the strokes that are drawn behind the others of their kind.

    A network that has seen strokes in canonical order alone never comes back: what it has skipped stays out, and its
    streets are too few.

    Parameters
    ----------
    window
        The strokes.
    grid_m
        Distance of positions.
    share
        The share of strokes that come late.
    chances
        A uniform random number for each stroke.
    """
    late = (chances < share) & ~window.given
    return window.ordered(grid_m, late) if late.any() else window


def shuffle_strokes(window: Written, grid_m: float, share: float, chances: NDArray[np.float64]) -> Written:
    """Put the strokes of each kind and length class in a random order, and a share of each kind behind the others.

    In canonical order the strokes of a class sweep over the window. A network that has drawn too few on its way meets
    what is asked for at the end of the way, where they crowd. In a random order each may lie anywhere.

    Parameters
    ----------
    window, grid_m, share
        See `delay_strokes`.
    chances
        `(2, N)` uniform random numbers.
    """
    drawn = ~window.given
    return window.ordered(grid_m, (chances[0] < share) & drawn, chances[1] * drawn)


class Varied(NamedTuple):
    """Windows as they are learned from.

    Attributes
    ----------
    windows
        The strokes; given ones are marked.
    kept
        Kinds that are given on the site, too.
    sites
        `(B, 4)` what is drawn, `(left, top, right, bottom)` in half windows from the middle.
    shuffled
        Which windows stand in a random order.
    """

    windows: Sequence[Written]
    kept: Sequence[Sequence[int]]
    sites: NDArray[np.float64]
    shuffled: Sequence[bool]

    @classmethod
    def whole(cls, windows: Sequence[Written]) -> Varied:
        """Return windows of which nothing is given, in canonical order."""
        return cls(windows, [[]] * len(windows), np.tile(WHOLE, (len(windows), 1)), [False] * len(windows))


def vary_windows(
    code: StrokeCode, windows: Sequence[Written], symmetry: Sequence[int], *, reorder: bool, shuffled: float
) -> Varied:
    """Turn each window to one of the 8 symmetries, give a part of some of them, and change their order.

    Parameters
    ----------
    code
        How strokes are written.
    windows, symmetry
        The windows, and what each is turned to.
    reorder
        Whether the order changes; else it is canonical.
    shuffled
        Share of the windows that stand in a random order then.
    """
    chance = torch.rand(len(windows), CHANCES).tolist()
    parted = [
        give_part(code, one.turned(turned, code.grid_m), numbers)
        for one, turned, numbers in zip(windows, symmetry, chance, strict=True)
    ]
    made, kept, sites = (list(part) for part in zip(*parted, strict=True))
    mixed = [False] * len(windows)
    if reorder:
        shares = (LATE_MOST * (1 - torch.rand(len(windows)) / LATE_WINDOWS)).tolist()
        mixed = (torch.rand(len(windows)) < shuffled).tolist()
        for i, (one, share) in enumerate(zip(made, shares, strict=True)):
            chances = torch.rand(2, len(one)).numpy()
            if mixed[i]:
                made[i] = shuffle_strokes(one, code.grid_m, share, chances)
            else:
                made[i] = delay_strokes(one, code.grid_m, share, chances[0])
    return Varied(made, kept, np.array(sites), mixed)


def draw_site(chance: Sequence[float], half: float) -> tuple[float, float, float, float]:
    """Draw a site from seven random numbers; each of its sides lies at the window's edge in four of ten cases."""
    spans = []
    for position, size, side in (chance[:3], chance[3:6]):
        width = 2 * half * (0.15 + 0.7 * size)
        low = -half + position * (2 * half - width)
        high = low + width
        if side < 0.25:
            low = -half
        elif side < 0.5:
            high = half
        elif side < 0.65:
            low, high = -half, half
        spans.append((low, high))
    (left, right), (top, bottom) = spans
    if math.isclose(right - left, 2 * half) and math.isclose(bottom - top, 2 * half):
        right = half * (2 * chance[6] - 1) * 0.5
    return left, top, right, bottom
