"""From strokes to cells, and from cells to strokes."""

from __future__ import annotations

from collections.abc import Sequence

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.strokes import merge_strokes
from citygrain.geo.vectorize import vectorize
from citygrain.geo.window_strokes import Strokes

DRAWN_M = 2.0
"""Cells of this size are drawn, and averaged to the size that is asked for, as the levels of a city raster are."""

NOWHERE = "EPSG:32631"
"""The CRS of windows that lie nowhere: any one in metres."""


def draw_strokes(
    strokes: Strokes, kinds: Sequence[str], channels: Sequence[str], size_px: int, resolution_m: float
) -> NDArray[np.uint8]:
    """Draw strokes as cells, `(C, size_px, size_px)` coverage, 255 = covered, as city rasters are drawn.

    Parameters
    ----------
    strokes
        The strokes of a window.
    kinds
        Names of their kinds.
    channels
        Names of the channels, in order; those that are no kind are empty.
    size_px, resolution_m
        Edge of the window in cells, and of a cell in metres.
    """
    features = {}
    for number, name in enumerate(kinds):
        chosen = (strokes.kind == number)[strokes.stroke]
        if name in channels and chosen.any():
            _, stroke = np.unique(strokes.stroke[chosen], return_inverse=True)
            lines = shapely.linestrings(strokes.xy[chosen] * (1, -1), indices=stroke)
            features[name] = gpd.GeoDataFrame({"width_m": np.full(len(lines), WIDTHS[name])}, geometry=lines)
    finer = max(1, round(resolution_m / DRAWN_M))
    fine = next(
        iter(
            rasterize(
                features, _lay_grid(size_px * finer, size_px * finer, resolution_m / finer), channels, size_px * finer
            )
        )
    )
    if finer == 1:
        return fine
    sums = fine.reshape(len(channels), size_px, finer, size_px, finer).sum((2, 4), dtype=np.uint32)
    return np.rint(sums / finer**2).astype(np.uint8)


def trace_strokes(layout: ArrayLike, channels: Sequence[str], resolution_m: float, kinds: Sequence[str]) -> Strokes:
    """Trace the ways of a layout `(C, H, W)`, coverage in [0, 1] or 0–255, and merge them into strokes.

    Parameters
    ----------
    layout
        The layout of a window, or of an area.
    channels
        Names of its channels; kinds that are not among them are unknown.
    resolution_m
        Edge of a cell in metres.
    kinds
        The kinds of the strokes.
    """
    cells = np.asarray(layout)
    traced = vectorize(cells, channels, _lay_grid(cells.shape[-1], cells.shape[-2], resolution_m))
    ways = {name: [np.empty(0, object)] for name in kinds}
    for network in traced.ways.values():
        for name in set(network.kind) & set(kinds):
            ways[name].append(network.lines[network.kind == name])
    merged = merge_strokes({name: np.concatenate(parts) for name, parts in ways.items()})
    lines = np.concatenate([merged[name] for name in kinds])
    kind = np.repeat(np.arange(len(kinds)), [len(merged[name]) for name in kinds])
    flipped = shapely.transform(lines, lambda xy: xy * (1, -1))
    return Strokes.of_lines(kind, flipped, np.array([name in channels for name in kinds]))


def trace_ways(layout: ArrayLike, channels: Sequence[str], resolution_m: float, kinds: Sequence[str]) -> DrawnWays:
    """Trace the ways of a layout, as `trace_strokes` does, and return them in metres from its upper left corner."""
    strokes = trace_strokes(layout, channels, resolution_m, kinds)
    height, width = np.shape(layout)[-2:]
    corner = np.array([width, height]) * resolution_m / 2
    lines = shapely.transform(strokes.lines, lambda xy: xy + corner)
    return DrawnWays(np.array(kinds)[strokes.kind], lines, strokes.apart)


def _lay_grid(width: int, height: int, resolution_m: float) -> Grid:
    return Grid(NOWHERE, -width * resolution_m / 2, height * resolution_m / 2, resolution_m, width, height)
