"""What is given of a window before its strokes are drawn, and where others may be drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.layers import WIDTHS
from citygrain.geo.stroke_code import StrokeCode, Written, to_angle, turn_points
from citygrain.geo.stroke_drawing import trace_ways
from citygrain.geo.window_strokes import FREE, WAITS, Strokes
from citygrain.networks.stroke_steps import Text, write_text
from citygrain.spec import LayoutSpec

FAR_M = 10.0
"""Ways that are cut off nearer to each other than this are one."""

AROUND = np.ones((3, 3), bool)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Account:
    """What lengths of ways are asked of a window, and how short of them it may stay.

    Attributes
    ----------
    asked
        `(S,)` km/km²; NaN where nothing is asked.
    weights
        `(S, K)`: how much of each kind counts as a length.
    shortfall
        How much may be missing of each, in km/km².
    """

    asked: NDArray[np.float64]
    weights: NDArray[np.float64]
    shortfall: float

    def find_missing(self, kinds: Sequence[int], kind: int, drawn: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what is missing of each length that is asked for and that this kind is the last to add to, in km/km².

        Parameters
        ----------
        kinds
            All that are drawn, in order.
        kind
            The one that is being drawn.
        drawn
            `(K,)` km/km² of each kind so far.
        """
        later = [k for k in kinds if k > kind]
        due = (self.weights[:, kind] > 0) & ~(self.weights[:, later] > 0).any(1) & ~np.isnan(self.asked)
        missing: NDArray[np.float64] = (self.asked - self.weights @ drawn)[due]
        return missing


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
        Bearing → which positions of such a frame lie on what is drawn, and which lie there or next to it, `(P, P)` bool
        by x and y each; None for all within the window.
    entries
        Kind → positions `(n, 2)` at which given strokes of this kind go on in the site.
    bearing
        Bin of the frame's bearing, where it is asked for; None draws it.
    account
        What lengths are asked for, where they have to be met; None leaves it to the network.
    shuffled
        Whether the strokes of a length class are drawn in no order.
    """

    known: Bools
    site: tuple[float, float, float, float] = (-1.0, -1.0, 1.0, 1.0)
    given: Written | None = None
    text: Text | None = None
    find_free: Callable[[int], tuple[Bools, Bools]] | None = None
    entries: dict[int, Ints] = field(default_factory=dict)
    bearing: int | None = None
    account: Account | None = None
    shuffled: bool = False


def plan_window(
    code: StrokeCode,
    spec: LayoutSpec,
    cells: NDArray[np.float32],
    keep: NDArray[np.bool_],
    kinds: Bools,
    ways: DrawnWays | None = None,
    *,
    shuffled: bool = False,
) -> Plan:
    """Plan a window that is known in part.

    Parameters
    ----------
    code, spec
        How strokes are written, and the layouts.
    cells
        `(C, H, W)`: the known part; nothing elsewhere.
    keep
        `(C, H, W)`: what is known.
    kinds
        `(K,)`: the kinds that the place knows. Others are not drawn, and are only given where there are such ways.
    ways
        The ways of the known part as lines. None traces them from the cells.
    shuffled
        Whether the strokes of a length class are drawn in no order.
    """
    stays = {name for name, kept in zip(spec.channels, keep, strict=True) if kept.all()}
    drawn = kinds & np.array([kind not in stays for kind in code.kinds])
    free = np.zeros(keep.shape[1:], bool)
    for name, kept in zip(spec.channels, keep, strict=True):
        if name not in stays:
            free |= ~kept
    if ways is None:
        ways = trace_ways(cells, spec.channels, spec.resolution_m, code.kinds)
    given = _list_given(ways, code, kinds)
    rows, columns = np.flatnonzero(free.any(1)), np.flatnonzero(free.any(0))
    if not len(rows):
        drawn[:] = False
        rows = columns = np.array([0, len(free) - 1])
    spans = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    left, top, right, bottom = (2 * at / spec.size_px - 1 for at in spans)
    site = (left, top, right, bottom)
    find_free = partial(_find_free, code, free, spec.resolution_m)
    if not len(given):
        return Plan(drawn, site, find_free=find_free, shuffled=shuffled)
    written = code.write(given)
    _, ground = find_free(written.bearing)
    how, entries = written.how.copy(), {k: np.empty((0, 2), np.int64) for k in np.flatnonzero(drawn).tolist()}
    for end, at in enumerate((written.first, written.last)):
        x, y = (written.xy[at] + code.reach).clip(0, 2 * code.reach).T
        waits = drawn[written.kind] & (how[:, end] == FREE) & ground[x, y]
        how[waits, end] = WAITS
        for kind in np.unique(written.kind[waits]).tolist():
            chosen = waits & (written.kind == kind)
            entries[kind] = np.concatenate([entries[kind], np.stack([x, y], 1)[chosen]])
    for kind, known in entries.items():  # also where a piece is too short to be traced, or ends beside another way
        size = WIDTHS[code.kinds[kind]] / spec.resolution_m
        cut = _find_cuts(cells[spec.channels.index(code.kinds[kind])], free, size)
        points = turn_points(cut * spec.resolution_m - code.extent_m / 2, -to_angle(written.bearing)) / code.grid_m
        places = (np.rint(points).astype(np.int64) + code.reach).clip(0, 2 * code.reach)
        places = places[ground[places[:, 0], places[:, 1]]]
        far = np.abs(places[:, None] - known).max(2).min(1, initial=code.reach) * code.grid_m > FAR_M
        entries[kind] = np.concatenate([known, places[far]])
    written = replace(written, how=how)
    text = write_text(written, code, np.flatnonzero(~drawn).tolist(), shuffled=shuffled)
    return Plan(drawn, site, written, text, find_free, entries, shuffled=shuffled)


def _list_given(ways: DrawnWays, code: StrokeCode, kinds: Bools) -> Strokes:
    """Return the ways of a window as strokes that are given. Those of kinds that its place does not know are known."""
    own = np.isin(ways.kind, code.kinds)
    kind = np.array([code.kinds.index(name) for name in ways.kind[own].tolist()], np.int64)
    lines = shapely.transform(ways.lines[own], lambda xy: xy - code.extent_m / 2)
    there = np.bincount(kind, minlength=len(code.kinds)) > 0
    return Strokes.of_lines(kind, lines, kinds | there, np.ones(len(kind), bool), ways.apart[own])


def _find_cuts(cells: NDArray[np.float32], free: Bools, width: float) -> NDArray[np.float64]:
    """Return where ways are cut off at free cells, `(N, 2)` in cells.

    A way that crosses at a low angle, a road of two carriageways or a junction at the edge touches more free cells than
    one way that crosses at a right angle. Ways that touch still more run along the free cells, and are left out.

    Parameters
    ----------
    cells
        `(H, W)`: coverage by the ways.
    free
        `(H, W)`: the free cells.
    width
        Width of the ways in cells.
    """
    there = (cells >= 0.5 * min(1.0, width)) & ~free & ndimage.binary_dilation(free, AROUND)
    labels, count = ndimage.label(there, AROUND)
    if not count:
        return np.empty((0, 2))
    middles = np.array(ndimage.center_of_mass(there, labels, range(1, count + 1)))
    spans = np.array([[part.stop - part.start for part in box] for box in ndimage.find_objects(labels)])
    return middles[spans.max(1) <= 4 * width + 2][:, ::-1] + 0.5


def _find_free(code: StrokeCode, free: Bools, resolution_m: float, bearing: int) -> tuple[Bools, Bools]:
    """Return which positions of a frame lie on free cells, and which lie on them or next to them, by x and y."""
    wide = ndimage.binary_dilation(free, np.ones((3, 3), bool), math.ceil(1.5 * code.grid_m / resolution_m))
    at = np.arange(-code.reach, code.reach + 1) * code.grid_m
    points = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    points = turn_points(points, to_angle(bearing)) + code.extent_m / 2
    column, row = np.floor(points / resolution_m).astype(int).clip(0, len(free) - 1).T
    on, beside = (cells[row, column].reshape(len(at), len(at)) for cells in (free, wide))
    return on, beside
