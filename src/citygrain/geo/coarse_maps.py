"""What was requested of layouts on each cell of a coarse map, and what is measured there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMNS = ("unit", "cell_m", "cells", "requested", "measured", "mean_error", "r2")
"""What is told of a map that was requested."""


@dataclass(frozen=True, eq=False)
class CoarseMaps:
    """Maps that were requested of N layouts.

    Parameters
    ----------
    cell_px
        Edge of a cell of the maps, in cells of the layouts. The cells of the last row and column may be cut.
    requested
        Measure → `(N, h, w)` in its unit; NaN where nothing was requested of some of the cell.
    weights
        Measure → channel → its weight: the measures are linear in the shares of the cells.
    units
        Measure → its unit.
    """

    cell_px: int
    requested: Mapping[str, NDArray[np.float64]]
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def take(self, chosen: Sequence[int]) -> CoarseMaps:
        """Return the maps of some of the layouts."""
        return replace(self, requested={name: maps[list(chosen)] for name, maps in self.requested.items()})

    def join(self, other: CoarseMaps | None) -> CoarseMaps | None:
        """Return the maps of more layouts; None where those of the others are not alike."""
        if other is None or self.cell_px != other.cell_px or {*self.requested} != {*other.requested}:
            return None
        joined = {name: np.concatenate([maps, other.requested[name]]) for name, maps in self.requested.items()}
        return replace(self, requested=joined)

    def measure(self, shares: NDArray[np.floating], channels: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Measure layouts `(N, C, H, W)` on the cells of the maps: measure → `(N, h, w)` in its unit.

        Measures of channels that the layouts do not have are left out.
        """
        means = average_blocks(shares, self.cell_px)
        rows = {
            name: np.array([weights.get(channel, 0.0) for channel in channels])
            for name, weights in self.weights.items()
            if {*weights} <= {*channels}
        }
        return {name: np.einsum("c,nchw->nhw", row, means) for name, row in rows.items()}

    def compare(
        self,
        shares: NDArray[np.floating],
        channels: Sequence[str],
        resolution_m: float,
        names: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Compare requested with measured: one row for each map, or one for each map of each layout.

        Parameters
        ----------
        shares, channels, resolution_m
            The layouts `(N, C, H, W)`, their channels, and the edge of their cells.
        names
            Of the layouts, where each has a row of its own.

        Returns
        -------
        pandas.DataFrame
            The index is the `map`. The columns are `COLUMNS`, after `layout` if there are names: the unit, the edge of
            a cell of the map, and what `compare_maps` gives.
        """
        groups = [("", slice(None))] if names is None else [(name, slice(i, i + 1)) for i, name in enumerate(names)]
        rows = [
            {
                "map": name,
                "layout": layout,
                "unit": self.units[name],
                "cell_m": self.cell_px * resolution_m,
                **compare_maps(self.requested[name][of], found[of]),
            }
            for layout, of in groups
            for name, found in self.measure(shares, channels).items()
        ]
        return pd.DataFrame(rows, columns=["map", *(["layout"] if names else []), *COLUMNS]).set_index("map")


def average_blocks(values: NDArray[np.floating], cell_px: int) -> NDArray[np.float64]:
    """Average `(…, H, W)` over blocks of `cell_px` × `cell_px`, or less at the end; NaN where one of them is NaN."""
    height, width = values.shape[-2:]
    down, across = np.arange(0, height, cell_px), np.arange(0, width, cell_px)
    total = np.add.reduceat(np.add.reduceat(values.astype(np.float64), down, -2), across, -1)
    counts = np.diff([*down, height])[:, None] * np.diff([*across, width])
    means: NDArray[np.float64] = total / counts
    return means


def compare_maps(requested: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Compare two maps on the cells of which something was requested.

    Returns
    -------
    dict
        The number of `cells`, the means `requested` and `measured`, the mean absolute error `mean_error`, and `r2`
        about the line measured = requested: 1 − Σ error² / Σ (requested − its mean)². It is NaN where the same is
        requested of all cells.
    """
    there = np.isfinite(requested)
    asked, found = requested[there], measured[there]
    if not asked.size:
        return {"cells": 0, **dict.fromkeys(("requested", "measured", "mean_error", "r2"), np.nan)}
    off, spread = found - asked, float(np.square(asked - asked.mean()).sum())
    return {
        "cells": asked.size,
        "requested": float(asked.mean()),
        "measured": float(found.mean()),
        "mean_error": float(np.abs(off).mean()),
        "r2": 1 - float(np.square(off).sum()) / spread if spread > 1e-12 * asked.size else np.nan,
    }
