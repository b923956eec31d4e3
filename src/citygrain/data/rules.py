"""Rules for windows: which of a place's windows are allowed, in which channels, and how train windows are varied.

A window is allowed where it lies wholly in its split (train windows keep a buffer's distance from held-out blocks),
enough of it has data, and enough of it is built: an empty sheet of sea or forest is no city. The three are judged on
the coarsest level of the city raster, for the smallest square of its cells that holds the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from citygrain.data.cityraster import CityRaster
from citygrain.errors import DataError
from citygrain.geo.layers import BUILT, PARTS, RASTER_FORMAT, find_parts
from citygrain.geo.raster_files import COMPLETE
from citygrain.geo.stroke_code import Frame

MIN_VALID = 0.95
"""Share of a window that must have data."""

MIN_BUILT = 0.05
"""Share of a window that must be building or street: the edge of a village has it, fields and open sea do not."""

Balance = Literal["places", "area"]
"""`places`: as many train windows of each place; `area`: in proportion to where windows may lie."""

Bits = NDArray[np.uint64]
"""Random words of 64 bits, one a window."""


@dataclass(frozen=True)
class Rules:
    """Which windows are allowed.

    Parameters
    ----------
    size_px
        Height and width of a window in cells.
    resolution_m
        Edge of a cell in metres.
    min_valid
        Least share of the window that has data.
    min_built
        Least share that is building, arterial or street.
    """

    size_px: int
    resolution_m: float
    min_valid: float = MIN_VALID
    min_built: float = MIN_BUILT

    def __post_init__(self) -> None:
        if self.size_px < 1 or not self.resolution_m > 0:
            raise DataError(
                "A window has a positive size and resolution.",
                expected="size_px >= 1, resolution_m > 0",
                got=f"size_px={self.size_px}, resolution_m={self.resolution_m}",
            )
        for name in ("min_valid", "min_built"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} is a share of a window.", expected="0 … 1", got=getattr(self, name))


@dataclass(frozen=True)
class Augmentation:
    """How train windows are varied, so that a city gives more of them than it has.

    A zoomed or turned window is interpolated from the raster. Where all places have cells of half its size, these are
    taken, since streets that are interpolated from cells of the window's own size would lose their edges. The rules
    judge the upright square that holds the window at every zoom and angle. A zoom changes all widths, those that are
    drawn in metres too: in a window of twice the extent an 8 m street is 4 m wide. Conditions are measured on what the
    model sees.

    Parameters
    ----------
    symmetries
        Whether windows are turned and mirrored to one of the 8 symmetries of the square.
    zoom
        The extent of a window is drawn log-uniformly between 1 / zoom and zoom times `size_px`; 1 leaves it.
    rotation
        Windows are turned by an angle that is drawn uniformly from ± this many degrees; 0 leaves them.
    noise
        Standard deviation of Gaussian noise on the coverage, which stays within 0 and 1; 0 adds none. Conditions are
        measured without it.

    Raises
    ------
    DataError
        For a zoom below 1 or above 16, a rotation above 45 degrees (symmetries do the rest), a noise above 1, or a
        negative number.
    """

    symmetries: bool = True
    zoom: float = 1.0
    rotation: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (("zoom", 1.0, 16.0), ("rotation", 0.0, 45.0), ("noise", 0.0, 1.0)):
            if not least <= getattr(self, name) <= most:
                raise DataError(
                    f"Train windows cannot be augmented with such a {name}.",
                    expected=f"{least:g} … {most:g}, {least:g} for none",
                    got=getattr(self, name),
                )

    def reach(self, size_px: int, frame: Frame = "none") -> int:
        """Return the edge in cells of the upright square that holds a window however it is zoomed and turned.

        Raises
        ------
        DataError
            For windows that are turned into the frame of their streets, and by another angle, too.
        """
        if frame == "streets" and self.rotation:
            raise DataError(
                "Windows in the frame of their streets cannot be turned by another angle, too.",
                expected="rotation=0 with frame=streets",
                got=f"rotation={self.rotation:g}",
            )
        if self.zoom == 1 and self.rotation == 0 and frame == "none":
            return size_px
        angle = math.radians(45.0 if frame == "streets" else self.rotation)
        widest = size_px * self.zoom * (math.cos(angle) + math.sin(angle))
        return math.ceil(widest) + 1  # at the window's edge, the next cell's middle lies half a cell outside


SYMMETRIC = Augmentation()
"""Windows in one of the 8 symmetries of the square, and otherwise as they lie in the city."""

UNCHANGED = Augmentation(symmetries=False)
"""Windows as they lie in the city."""


class Allowed:
    """Where the windows of one split of one place may begin.

    Parameters
    ----------
    raster
        The place.
    split
        `train`, `val`, `test` or `all`.
    rules
        Which windows are allowed.
    built
        Channels that count as built.

    Raises
    ------
    DataError
        When the raster has no level of the rules' resolution, or there is no such split.

    Attributes
    ----------
    factor
        Cells of a window's level to a cell of the coarsest level, on which the rules are judged.
    inside, free
        `(h, w)` bool, one a coarse cell: whether a window that begins there lies in the split; and obeys all rules.
    reasons
        In words what a rule asks for → at how many coarse cells a window would fail it.
    """

    def __init__(self, raster: CityRaster, split: str, rules: Rules, built: Sequence[str] = BUILT) -> None:
        raster.level(rules.resolution_m)  # refuses a resolution that is not there
        coarse = max(raster.resolutions)
        self.name, self.split, self.rules = raster.name, split, rules
        self.factor = round(coarse / rules.resolution_m)
        level = raster.level(coarse)
        cells = self.cells = math.ceil(rules.size_px / self.factor)
        in_split = _box_sums(raster.split_mask(coarse, split), cells)
        valid = _box_sums(level.valid, cells)
        channels = [raster.channels.index(name) for name in built if name in raster.channels]
        mass = _box_sums(level.array[channels].sum(0, dtype=np.uint32), cells)
        self.inside = in_split == cells**2
        enough_valid = valid >= rules.min_valid * cells**2
        enough_built = mass >= rules.min_built * cells**2 * COMPLETE
        self.free = self.inside & enough_valid & enough_built
        self.reasons = {
            f"not wholly in {split} blocks": int((~self.inside).sum()),
            f"in {split} blocks, less than {rules.min_valid:.0%} data": int((self.inside & ~enough_valid).sum()),
            f"with data, less than {rules.min_built:.1%} built": int(
                (self.inside & enough_valid & ~enough_built).sum()
            ),
        }
        self._starts = np.flatnonzero(self.free)

    def __len__(self) -> int:
        """Return at how many coarse cells a window may begin."""
        return len(self._starts)

    def draw(self, where: Bits, down: Bits, right: Bits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of windows, for three random words each.

        A window begins at an allowed coarse cell. Then it is moved by less than a coarse cell, if the windows that
        begin at the next coarse cells are allowed as well: the moved window lies within their union.
        """
        row, col = np.divmod(self._starts[where % np.uint64(len(self))], self.free.shape[1])
        dy, dx = ((word % np.uint64(self.factor)).astype(np.int64) for word in (down, right))
        below, beside = (np.minimum(at + 1, n - 1) for at, n in zip((row, col), self.free.shape, strict=True))
        dy *= self.free[below, col] & (below > row)
        dx *= self.free[row, beside] & (beside > col)
        both = (dy == 0) | (dx == 0) | self.free[below, beside]
        return row * self.factor + dy * both, col * self.factor + dx * both

    def grid(self) -> NDArray[np.int64]:
        """Return `(N, 2)` rows and columns of windows that do not overlap, always the same ones.

        Windows are packed into the split first, and judged by the rules afterwards. Were only allowed windows packed,
        those at the edge of what is allowed would come first.
        """
        unused = self.inside.copy()
        chosen = []
        for row in np.flatnonzero(unused.any(1)):
            while (columns := np.flatnonzero(unused[row])).size:
                col = int(columns[0])
                unused[row : row + self.cells, max(0, col - self.cells + 1) : col + self.cells] = False
                if self.free[row, col]:
                    chosen.append((int(row), col))
        return np.array(chosen, np.int64).reshape(-1, 2) * self.factor

    def explain_no_window(self, size_px: int) -> DataError:
        """Return the error of a place that has no allowed window, with the reasons counted.

        Parameters
        ----------
        size_px
            Edge of a window in cells. `rules.size_px` is larger where windows are zoomed or turned.
        """
        rules, (height, width) = self.rules, self.free.shape
        counts = "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        extent = f"{rules.size_px} px at {rules.resolution_m:g} m = {rules.size_px * rules.resolution_m:g} m"
        if rules.size_px > size_px:
            extent = f"{size_px} px, which zoomed and turned takes {extent}"
        return DataError(
            f"{self.name} has no {self.split} window of {extent}.",
            expected="a window in one split, with data, and built",
            got=f"of {height * width} positions: {counts}" if height * width else "the place is smaller than a window",
            remedy="a smaller size_px, zoom or rotation, or a finer resolution_m; lower min_valid or min_built; "
            "or a larger place",
        )


def list_built_channels(rasters: Sequence[CityRaster]) -> tuple[str, ...]:
    """Return the channels of `BUILT` that every place knows: they tell built windows from bare ones."""
    return tuple(name for name in BUILT if all(name in r.channels and name not in r.unknown for r in rasters))


def list_common_channels(
    rasters: Sequence[CityRaster],
    wanted: Sequence[str] | None = None,
    raster_format: int = RASTER_FORMAT,
    *,
    allow_unknown: bool = False,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the channels that all places know, in order, and why each other one is left out.

    Parameters
    ----------
    rasters
        The places.
    wanted
        Exactly these channels are returned, in this order. None returns all that every place knows.
    raster_format
        Format of city rasters that the channels are of: an earlier one has fewer.
    allow_unknown
        Whether a place may lack a channel. Then every channel that one of the places knows is returned.

    Raises
    ------
    DataError
        For no place, or a wanted channel that a place does not know.
    """
    if not rasters:
        raise DataError("Windows need at least one prepared place.", remedy="data.places=[…]")
    left_out = {}
    for name in dict.fromkeys(name for r in rasters for name in r.channels):
        reasons = [
            f"{r.name}: {r.unknown.get(part, 'no such channel')}"
            for r in rasters
            for part in find_parts(name, raster_format)
            if part in r.unknown or part not in r.channels
        ]
        if reasons and not (allow_unknown and len(reasons) < len(rasters)):
            left_out[name] = "; ".join(reasons)
    if raster_format == 1:
        left_out |= dict.fromkeys(PARTS, "models of format 1 know it as part of another channel")
    known = tuple(name for name in rasters[0].channels if name not in left_out)
    if wanted is None:
        return known, left_out
    if allow_unknown:
        known = tuple(dict.fromkeys(name for r in rasters for name in r.channels))
    for name in wanted:
        if name not in known:
            raise DataError(
                f"The channel {name} is not known in every place.",
                expected="channels that all places know, or places that all know the channel",
                got=f"{name} ({left_out[name]})" if name in left_out else name,
                choices=known,
            )
    return tuple(wanted), {}


def _box_sums(values: NDArray[Any], size: int) -> NDArray[np.uint32]:
    """Return the sums of all `size` × `size` squares of `(H, W)`: `(H − size + 1, W − size + 1)`.

    They are differences in a table of summed areas. Its numbers may wrap around at 2³²: the differences are right all
    the same, since the sum of a square is far below 2³².
    """
    if size > min(values.shape):
        return np.zeros((0, 0), np.uint32)
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.uint32)
    np.cumsum(values, 0, np.uint32, table[1:, 1:])
    np.cumsum(table[1:, 1:], 1, np.uint32, table[1:, 1:])
    sums: NDArray[np.uint32] = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    return sums
