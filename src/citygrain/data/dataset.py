"""Windows of prepared places: which window a number stands for, and its bytes, fast.

Train window *i* is a pure function of the seed and *i*: its place, position and augmentation are drawn by hashing, with
no state. So all ranks, workers and resumed runs agree which window that is, without talking to each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from citygrain.data.cityraster import CityRaster, Level
from citygrain.data.rules import (
    SYMMETRIC,
    UNCHANGED,
    Allowed,
    Augmentation,
    Balance,
    Bits,
    Rules,
    list_built_channels,
    list_common_channels,
)
from citygrain.data.transforms import SYMMETRIES, RawBatch, cut_windows, turn
from citygrain.errors import DataError
from citygrain.geo.layers import RASTER_FORMAT, find_parts, select_channels
from citygrain.geo.raster_files import COMPLETE, MANIFEST
from citygrain.geo.stroke_code import FRAMED, Frame
from citygrain.networks.frame import find_frames

STATISTICS = ".cache"
"""Folder beside the places that keeps measured statistics; it may be deleted at any time."""


class CityWindows(Dataset[RawBatch]):
    """Windows of one split of one or more places.

    In the split `train` windows lie anywhere and are augmented: every index from 0 on stands for a window, always the
    same one. In `val` and `test` windows lie on a fixed grid, do not overlap, are not augmented, and come from the
    places in turn. The split `all` is such a grid of the whole places.

    Give a `DataLoader` the collation `collate_whole`, since a batch is gathered at once.

    Parameters
    ----------
    rasters
        The places, or their folders.
    split
        `train`, `val`, `test` or `all`.
    rules
        Size, resolution, and which windows are allowed; a zoomed or turned window is judged by the square around it.
    augmentation
        How train windows are varied.
    frame
        `streets` turns every window into the frame of its streets, in all splits; the streets are those around the same
        middle before the turn. `none` leaves windows upright.
    channels
        Names of the channels, in order; None for those that all places know.
    balance
        `places`: as many windows of each place; `area`: in proportion to where windows may lie.
    limit
        At most this many windows of a fixed grid, evenly spread; None for all.
    seed
        Seed of the train windows.
    built
        Channels that count as built; None for `list_built_channels`. If there are none, bare windows are allowed too.
    raster_format
        Format of city rasters that the channels are of. For a model of an earlier format, channels that were one
        channel then are added up again (`citygrain.geo.layers.select_channels`).
    allow_unknown
        Whether a place may lack a channel; it is 0 there. Then each place is judged built by the channels it knows.

    Attributes
    ----------
    channels
        Names of the channels of a window, in order.
    left_out
        Channel → why it was left out, where `channels` is None.

    Raises
    ------
    DataError
        For no place, a channel that a place does not know, or a resolution that it does not have. For a place without
        an allowed train window, or when no place has an allowed window of another split; the reasons are counted.
    """

    def __init__(
        self,
        rasters: Sequence[CityRaster | str | Path],
        split: str,
        rules: Rules,
        *,
        augmentation: Augmentation = SYMMETRIC,
        frame: Frame = "none",
        channels: Sequence[str] | None = None,
        balance: Balance = "places",
        limit: int | None = None,
        seed: int = 0,
        built: Sequence[str] | None = None,
        raster_format: int = RASTER_FORMAT,
        allow_unknown: bool = False,
    ) -> None:
        self.raster_format = raster_format
        self.rasters = [r if isinstance(r, CityRaster) else CityRaster.open(r) for r in rasters]
        self.split, self.rules, self.seed, self.frame = split, rules, seed, frame
        self.augmentation = augmentation if split == "train" else UNCHANGED
        if frame not in get_args(Frame):
            raise DataError("There is no such frame of windows.", got=frame, choices=get_args(Frame))
        self.reach = self.augmentation.reach(rules.size_px, frame)
        resampled = self.reach != rules.size_px
        self._fineness = 2 if resampled and all(r.resolution_m < rules.resolution_m for r in self.rasters) else 1
        self.channels, self.left_out = list_common_channels(
            self.rasters, channels, raster_format, allow_unknown=allow_unknown
        )
        if frame == "streets" and not set(FRAMED) <= set(self.channels):
            raise DataError(
                "The frame of a window is that of its streets.", expected=", ".join(FRAMED), got=list(self.channels)
            )
        if balance not in {"places", "area"}:
            raise DataError("Windows are balanced in one of two ways.", got=balance, choices=("places", "area"))
        self._bands = [_as_slice([r.channels.index(c) for c in self.channels]) for r in self.rasters]
        self._levels: list[Level] | None = None
        self._fixed: NDArray[np.int64] | None = None
        allowed = []
        for raster in self.rasters:
            judges = list_built_channels([raster] if allow_unknown else self.rasters) if built is None else built
            parts = tuple(part for name in judges for part in find_parts(name, raster_format))
            judged = replace(rules, size_px=self.reach, min_built=rules.min_built if parts else 0.0)
            allowed.append(Allowed(raster, split, judged, parts))
        if split == "train":
            for place in allowed:
                if not len(place):
                    raise place.explain_no_window(rules.size_px)
            self._allowed = allowed
            weights = np.array([len(a) * a.factor**2 if balance == "area" else 1 for a in allowed], float)
            self.shares: NDArray[np.float64] = weights / weights.sum()
        else:
            grids = [place.grid() for place in allowed]
            self._fixed = _mixed(grids, balance, limit)
            if not len(self._fixed):
                raise allowed[0].explain_no_window(rules.size_px)

    def __len__(self) -> int:
        """Return how many windows the grid has; for `train`, at how many cells of the coarsest level one may begin."""
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
            array[b] = turn(np.ascontiguousarray(window), s)  # turning cells in the file's mapping takes twice as long
        extent, angle, noise = self._drawn(indices)
        if self.frame == "streets":
            streets = layout[:, [self.channels.index(name) for name in FRAMED]].sum(1).clamp(max=COMPLETE) / COMPLETE
            angle = find_frames(streets, torch.from_numpy(extent))[0].numpy()
        return RawBatch(layout, *map(torch.from_numpy, (*located, extent, angle, noise)))

    def read_cells(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return windows as they are cut out, `(B, C, size_px, size_px)` in bytes, without noise."""
        raw, size = self.__getitems__(indices), self.rules.size_px
        if raw.layout.shape[-1] == size:
            return raw.layout.numpy()
        cells: NDArray[np.uint8] = (cut_windows(raw, size) * COMPLETE).round().to(torch.uint8).numpy()
        return cells

    def locate(self, indices: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
        """Return place, row, column and symmetry, `(B,)` each, of the windows that indices stand for.

        Row and column of a zoomed or turned window are those of the square that holds it.

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
        """Return extent and angle, `(B,)` each, and noise of the windows, see `RawBatch`."""
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
        return {**self.__dict__, "_levels": None}  # a pickle would copy the pixels; a worker maps the files itself


def collate_whole(batch: Any) -> Any:
    """Return a batch as it is: the collation of data sets that gather whole batches."""
    return batch


def find_place(root: Path, place: str) -> Path:
    """Return the folder of a prepared place: by its name below `root`, or the folder itself.

    Raises
    ------
    DataError
        When neither is a city raster.
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


def _mixed(grids: Sequence[NDArray[np.int64]], balance: Balance, limit: int | None) -> NDArray[np.int64]:
    """Return `(N, 3)` place, row, column of at most `limit` windows, spread over each place and mixed evenly."""
    counts = [len(grid) for grid in grids]
    room = sum(counts) if limit is None else min(limit, sum(counts))
    quotas = dict.fromkeys(range(len(grids)), 0)
    left, available = room, sum(counts)
    # The smallest grid comes first: if it has fewer windows than its share, the others take the rest.
    for given, place in enumerate(sorted(quotas, key=counts.__getitem__)):
        share = left / (len(grids) - given) if balance == "places" else left * counts[place] / max(available, 1)
        quotas[place] = min(counts[place], round(share))
        left, available = left - quotas[place], available - counts[place]
    parts, when = [], []
    for place, grid in enumerate(grids):
        middles = 2 * np.arange(quotas[place]) + 1  # the grid is cut in equal parts; counted in halves of a part
        picked = grid[middles * len(grid) // (2 * quotas[place] or 1)]
        parts.append(np.insert(picked, 0, place, axis=1))
        when.append(middles / (2 * quotas[place] or 1))
    chosen: NDArray[np.int64] = np.concatenate(parts)[np.argsort(np.concatenate(when), kind="stable")]
    return chosen


def _hash(seed: int, index: Bits, stream: int) -> Bits:
    """Return one random word an index: seed, stream and index, mixed in turn by the finaliser of splitmix64."""
    word = np.zeros_like(index)
    for part in (np.full_like(index, seed % 2**64), np.full_like(index, stream), index):
        word = (word ^ part) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
    return word


def _around_zero(words: Bits) -> NDArray[np.float64]:
    """Return numbers that are uniform in −1 … 1, one a random word."""
    return words / 2.0**63 - 1


def _as_slice(bands: list[int]) -> slice | list[int]:
    """Return neighbouring bands as a slice, which copies nothing."""
    neighbours = bands == list(range(bands[0], bands[0] + len(bands)))
    return slice(bands[0], bands[-1] + 1) if neighbours else bands
