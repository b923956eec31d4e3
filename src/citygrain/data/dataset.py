"""Windows of prepared places: where they may lie, which one a number stands for, and their bytes, fast.

A window is allowed where it lies wholly in its split (train windows keep a buffer's distance from held-out blocks),
enough of it has data, and enough of it is built: an empty sheet of sea or forest is no city. The three are judged on
the coarsest level of the city raster, for the smallest square of its cells that holds the window.

Train window *i* is a pure function of the seed and *i*: its place, position and augmentation are drawn by hashing, with
no state. So ranks, workers and resumed runs agree on what window *i* is without ever talking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from citygrain.data.transforms import SYMMETRIES, RawBatch, turn
from citygrain.errors import DataError
from citygrain.geo.cityraster import COMPLETE, MANIFEST, CityRaster, Level
from citygrain.geo.layers import PARTS, RASTER_FORMAT, find_parts, select_channels

STATISTICS = ".cache"
"""Folder beside the places that keeps measured statistics; may be deleted at any time."""

BUILT = ("building", "arterial", "street")
"""Channels that make a place a city: their summed share of a window is its built share."""

MIN_VALID = 0.95
"""Share of a window that must have data."""

MIN_BUILT = 0.05
"""Share of a window that must be building or street: the edge of a village has it, fields and open sea do not."""

Balance = Literal["places", "area"]

Bits = NDArray[np.uint64]


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

    Zoomed and turned windows are drawn from the raster, at twice their resolution where all places have it: resampled
    from cells of their own size, streets would lose their edges. What is allowed is judged on the upright square that
    holds a window whatever its zoom and angle. Under zoom all widths scale, those drawn in metres too: at twice the
    extent an 8 m street is 4 m wide. Conditions are measured on what the model sees.

    Parameters
    ----------
    symmetries
        Whether windows are turned and mirrored to one of the 8 symmetries of the square.
    zoom
        Windows show an extent drawn log-uniformly between 1 / zoom and zoom times their own; 1 for their own.
    rotation
        Windows are turned by an angle drawn uniformly from ± so many degrees; 0 for not at all.
    noise
        Standard deviation of Gaussian noise on the coverage, cut off at 0 and 1; conditions are measured without it.

    Raises
    ------
    DataError
        For a zoom below 1, a rotation beyond 45 degrees (further than that, symmetries turn), or a negative number.
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

    def reach(self, size_px: int) -> int:
        """Return the edge in cells of the upright square that holds a window however it is zoomed and turned."""
        if self.zoom == 1 and self.rotation == 0:
            return size_px
        angle = math.radians(self.rotation)
        widest = size_px * self.zoom * (math.cos(angle) + math.sin(angle))
        return math.ceil(widest) + 1  # the middles of cells that are interpolated between lie half a cell outside


UNCHANGED = Augmentation(symmetries=False)


class Allowed:
    """Where the windows of one split of one place may begin.

    Parameters
    ----------
    raster
        The place.
    split
        `train`, `val` or `test`.
    rules
        Which windows are allowed.
    built
        Channels that count as built.

    Raises
    ------
    DataError
        When the raster has no level of that resolution, or there is no such split.

    Attributes
    ----------
    factor
        Cells of a window's level to a cell of the coarsest level, on which the rules are judged.
    inside, free
        `(h, w)` bool: whether a window that begins at that coarse cell lies in the split; and obeys all rules.
    reasons
        How many beginnings fail each rule.
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
        self._beginnings = np.flatnonzero(self.free)

    def __len__(self) -> int:
        return len(self._beginnings)

    def draw(self, where: Bits, down: Bits, right: Bits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows and columns of windows, for three random words each.

        A beginning is drawn among coarse cells. It is then moved by less than a coarse cell, where the windows that
        begin at the next cells are allowed as well, since the moved window lies within their union.
        """
        row, col = np.divmod(self._beginnings[where % np.uint64(len(self))], self.free.shape[1])
        dy, dx = ((word % np.uint64(self.factor)).astype(np.int64) for word in (down, right))
        below, beside = (np.minimum(at + 1, n - 1) for at, n in zip((row, col), self.free.shape, strict=True))
        dy *= self.free[below, col] & (below > row)
        dx *= self.free[row, beside] & (beside > col)
        both = (dy == 0) | (dx == 0) | self.free[below, beside]
        return row * self.factor + dy * both, col * self.factor + dx * both

    def grid(self) -> NDArray[np.int64]:
        """Return `(N, 2)` rows and columns of windows that do not overlap, always the same ones.

        They are packed into the split first and judged afterwards: packing what is allowed would prefer windows that
        are barely so.
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

    def nothing(self, size_px: int) -> DataError:
        """Say why there is no window of that size, which a larger square may have been asked for around."""
        rules, (height, width) = self.rules, self.free.shape
        counts = "; ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        extent = f"{rules.size_px} px at {rules.resolution_m:g} m = {rules.size_px * rules.resolution_m:g} m"
        if rules.size_px > size_px:
            extent = f"{size_px} px, which zoomed and turned takes {extent}"
        return DataError(
            f"{self.name} has no {self.split} window of {extent}.",
            expected="a window in one split, with data, and built",
            got=f"of {height * width} beginnings: {counts}" if height * width else "the place is smaller than a window",
            remedy="a smaller size_px, zoom or rotation, or a finer resolution_m; lower min_valid or min_built; "
            "or a larger place",
        )


class CityWindows(Dataset[RawBatch]):
    """Windows of one split of one or more places.

    `train`: random positions, augmented; any index from 0 on is a window, always the same one. `val`, `test`: a fixed
    grid of windows that do not overlap, the places mixed evenly, as they are; so is `all`, of the whole places.

    Give a `DataLoader` the collation `whole_batch`: a batch is gathered at once.

    Parameters
    ----------
    rasters
        The places, or their folders.
    split
        `train`, `val`, `test` or `all`.
    rules
        Size, resolution, and which windows are allowed; of zoomed or turned ones, which squares around them.
    augmentation
        How train windows are varied.
    channels
        Names of the channels, in order; when None those that all places know.
    balance
        `places`: as many windows of each place; `area`: in proportion to where windows may lie.
    limit
        At most so many windows of a fixed grid, evenly spread; all when None.
    seed
        Of the train windows.
    built
        Channels that count as built; when None, see `built_channels`. Without any, bare windows are allowed too.
    raster_format
        Format of the city rasters that the channels are of: a model of an earlier one gets what was parted since added
        up again (`citygrain.geo.layers.select_channels`).

    Attributes
    ----------
    channels
        Names of the channels of a window, in order.
    left_out
        Channel → why it was left out, where `channels` is None.

    Raises
    ------
    DataError
        For no place, a channel that a place does not know, a resolution that it does not have; or when no window of a
        train place, or of all places of another split, is allowed, with the reasons counted.
    """

    def __init__(
        self,
        rasters: Sequence[CityRaster | str | Path],
        split: str,
        rules: Rules,
        *,
        augmentation: Augmentation = Augmentation(),
        channels: Sequence[str] | None = None,
        balance: Balance = "places",
        limit: int | None = None,
        seed: int = 0,
        built: Sequence[str] | None = None,
        raster_format: int = RASTER_FORMAT,
    ) -> None:
        self.raster_format = raster_format
        self.rasters = [r if isinstance(r, CityRaster) else CityRaster.open(r) for r in rasters]
        self.split, self.rules, self.seed = split, rules, seed
        self.augmentation = augmentation if split == "train" else UNCHANGED
        self.reach = self.augmentation.reach(rules.size_px)
        resampled = self.reach != rules.size_px
        self._fineness = 2 if resampled and all(r.resolution_m < rules.resolution_m for r in self.rasters) else 1
        self.channels, self.left_out = common_channels(self.rasters, channels, raster_format)
        if balance not in {"places", "area"}:
            raise DataError("Windows are balanced in one of two ways.", got=balance, choices=("places", "area"))
        self._bands = [_as_slice([r.channels.index(c) for c in self.channels]) for r in self.rasters]
        self._levels: list[Level] | None = None
        self._fixed: NDArray[np.int64] | None = None
        built = built_channels(self.rasters) if built is None else built
        built = tuple(part for name in built for part in find_parts(name, raster_format))
        judged = replace(rules, size_px=self.reach, min_built=rules.min_built if built else 0.0)
        allowed = [Allowed(raster, split, judged, built) for raster in self.rasters]
        if split == "train":
            for place in allowed:
                if not len(place):
                    raise place.nothing(rules.size_px)
            self._allowed = allowed
            weights = np.array([len(a) * a.factor**2 if balance == "area" else 1 for a in allowed], float)
            self.shares: NDArray[np.float64] = weights / weights.sum()
        else:
            grids = [place.grid() for place in allowed]
            self._fixed = _mixed(grids, balance, limit)
            if not len(self._fixed):
                raise allowed[0].nothing(rules.size_px)

    def __len__(self) -> int:
        """Return how many windows the grid has; for `train`, at how many places of the coarsest level one may begin."""
        return sum(map(len, self._allowed)) if self._fixed is None else len(self._fixed)

    def __getitem__(self, index: int) -> RawBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> RawBatch:
        """Gather a whole batch at once."""
        located = place, row, col, symmetry = self.locate(indices)
        finer = self._fineness
        size = self.reach * finer
        layout = torch.empty(len(place), len(self.channels), size, size, dtype=torch.uint8)
        array, levels = layout.numpy(), self._opened()
        where = zip(place.tolist(), (row * finer).tolist(), (col * finer).tolist(), symmetry.tolist(), strict=True)
        for b, (p, r, c, s) in enumerate(where):
            window = levels[p].array[:, r : r + size, c : c + size]
            if self.raster_format == RASTER_FORMAT:
                window = window[self._bands[p]]
            else:
                window = select_channels(window, self.rasters[p].channels, self.channels, self.raster_format)
            array[b] = turn(np.ascontiguousarray(window), s)  # turned out of the file's mapping it takes twice as long
        return RawBatch(layout, *map(torch.from_numpy, located), *map(torch.from_numpy, self._drawn(indices)))

    def locate(self, indices: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        """Return place, row, column and symmetry, `(B,)` each, of the windows that indices stand for.

        Of zoomed or turned windows, row and column are those of the squares around them.

        Raises
        ------
        IndexError
            For a negative index, or one beyond a fixed grid.
        """
        index = np.asarray(indices, np.int64)
        if index.size and (index.min() < 0 or (self._fixed is not None and index.max() >= len(self._fixed))):
            raise IndexError(f"windows 0 … {len(self) - 1} were asked for {index.min()} … {index.max()}")
        if self._fixed is not None:
            place, row, col = self._fixed[index].T.copy()
            return place, row, col, np.zeros_like(place)
        words = [_hash(self.seed, index.astype(np.uint64), stream) for stream in range(5)]
        place = np.searchsorted(np.cumsum(self.shares)[:-1], words[0] / 2.0**64, side="right")
        row, col = np.empty_like(index), np.empty_like(index)
        for p in np.unique(place):
            mine = place == p
            row[mine], col[mine] = self._allowed[p].draw(*(word[mine] for word in words[1:4]))
        turned = np.uint64(SYMMETRIES if self.augmentation.symmetries else 1)
        return place.astype(np.int64), row, col, (words[4] % turned).astype(np.int64)

    def _drawn(self, indices: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
        """Return extent and angle, `(B,)` each, and noise of windows, see `RawBatch`."""
        words = [_hash(self.seed, np.asarray(indices, np.uint64), stream) for stream in (5, 6, 7)]
        size, chosen = self.rules.size_px, self.augmentation
        extent = chosen.zoom ** _around_zero(words[0]) * (size / self.reach)
        angle = math.radians(chosen.rotation) * _around_zero(words[1])
        noise = np.empty((len(indices), len(self.channels) if chosen.noise else 0, size, size), np.float32)
        if noise.size:
            for word, one in zip(words[2].tolist(), noise, strict=True):
                np.random.default_rng(word).standard_normal(out=one, dtype=np.float32)
            noise *= chosen.noise
        return extent.astype(np.float32), angle.astype(np.float32), noise

    def _opened(self) -> list[Level]:
        if self._levels is None:
            self._levels = [r.level(self.rules.resolution_m / self._fineness) for r in self.rasters]
        return self._levels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_levels": None}  # a worker maps the files itself: pickling would copy them


def whole_batch(batch: Any) -> Any:
    """Collation of data sets whose batches come gathered: nothing is left to do."""
    return batch


def find_place(root: Path, place: str) -> Path:
    """Return the folder of a prepared place by its name below `root`, or as given.

    Raises
    ------
    DataError
        When there is no city raster in either.
    """
    for folder in (root / place, Path(place)):
        if (folder / MANIFEST).is_file():
            return folder
    prepared = sorted(p.parent.name for p in root.glob(f"*/{MANIFEST}"))
    raise DataError(
        f"The place {place} is not prepared.",
        expected=f"a city raster in {root / place}",
        got=place,
        choices=prepared,
        remedy=f"citygrain prepare place={place} paths.data={root}",
    )


def built_channels(rasters: Sequence[CityRaster]) -> tuple[str, ...]:
    """Return the channels that tell built windows from bare ones: those of `BUILT` that every place knows."""
    return tuple(name for name in BUILT if all(name in r.channels and name not in r.unknown for r in rasters))


def common_channels(
    rasters: Sequence[CityRaster], wanted: Sequence[str] | None = None, raster_format: int = RASTER_FORMAT
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the channels that all places know, in order, and why each other one is left out.

    Parameters
    ----------
    rasters
        The places.
    wanted
        Channels that must be among them; then exactly these are returned.
    raster_format
        Format whose channels are meant: in an earlier one there were fewer.

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
        if reasons:
            left_out[name] = "; ".join(reasons)
    if raster_format == 1:
        left_out |= dict.fromkeys(PARTS, "models of format 1 know it as part of another channel")
    known = tuple(name for name in rasters[0].channels if name not in left_out)
    if wanted is None:
        return known, left_out
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
    """Sum every `size` × `size` square of `(H, W)`: `(H − size + 1, W − size + 1)`, from a summed-area table.

    The table may wrap around, the differences are right all the same (a square's own sum is far below 2³²).
    """
    if size > min(values.shape):
        return np.zeros((0, 0), np.uint32)
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1), np.uint32)
    np.cumsum(values, 0, np.uint32, table[1:, 1:])
    np.cumsum(table[1:, 1:], 1, np.uint32, table[1:, 1:])
    sums: NDArray[np.uint32] = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    return sums


def _mixed(grids: Sequence[NDArray[np.int64]], balance: Balance, limit: int | None) -> NDArray[np.int64]:
    """Return `(N, 3)` place, row, column of at most `limit` windows, spread over each place and mixed evenly."""
    counts = [len(grid) for grid in grids]
    room = sum(counts) if limit is None else min(limit, sum(counts))
    quotas = dict.fromkeys(range(len(grids)), 0)
    left, available = room, sum(counts)
    for given, place in enumerate(sorted(quotas, key=counts.__getitem__)):  # who has few gives all, the others share
        share = left / (len(grids) - given) if balance == "places" else left * counts[place] / max(available, 1)
        quotas[place] = min(counts[place], round(share))
        left, available = left - quotas[place], available - counts[place]
    parts, when = [], []
    for place, grid in enumerate(grids):
        middles = 2 * np.arange(quotas[place]) + 1  # of equal parts of the grid, in halves of such a part
        picked = grid[middles * len(grid) // (2 * quotas[place] or 1)]
        parts.append(np.insert(picked, 0, place, axis=1))
        when.append(middles / (2 * quotas[place] or 1))
    chosen: NDArray[np.int64] = np.concatenate(parts)[np.argsort(np.concatenate(when), kind="stable")]
    return chosen


def _hash(seed: int, index: Bits, stream: int) -> Bits:
    """Return one random word an index: the finaliser of splitmix64, over seed, stream and index in turn."""
    word = np.zeros_like(index)
    for part in (np.full_like(index, seed % 2**64), np.full_like(index, stream), index):
        word = (word ^ part) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
    return word


def _around_zero(words: Bits) -> NDArray[np.float64]:
    """Numbers even in −1 … 1, one a random word."""
    return words / 2.0**63 - 1


def _as_slice(bands: list[int]) -> slice | list[int]:
    """Neighbouring bands as a slice, which needs no copy."""
    neighbours = bands == list(range(bands[0], bands[0] + len(bands)))
    return slice(bands[0], bands[-1] + 1) if neighbours else bands
