"""Maps: a layout in its colours, its features, and a measure of windows where these lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb as _colour
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import Vectors
from citygrain.plot.style import COLOURS, INK, PAPER, figure_of, new_axes, style_axes

PAINTED = (
    *("green", "water", "parking", "square", "walk", "service", "street", "arterial", "cycle", "rail", "building"),
)
"""The painter's order: what comes later lies above. Areas first, then ways, buildings last. A cycle track often shares
an 8 m cell with a street; it lies above the street, or it would never be seen."""

BOOST = {
    "walk": 0.6,
    "cycle": 0.45,
    "service": 0.7,
    "street": 0.75,
    "arterial": 0.75,
    "rail": 0.55,
}
"""Exponent that turns a channel's coverage into opacity: a 4 m track covers half of an 8 m cell and must be seen."""

HAZE = 0.03
"""Coverage below this is not painted: in generated layouts it is never exactly zero."""

_ROWS_AT_ONCE = 128
"""Rows that are painted at once: numbers in single precision take much more memory than the bytes of a layout."""

MAP_INCHES = 4.8
"""Width of a map that is alone in its figure."""

POINTS_PER_INCH = 72


def to_rgb(layout: ArrayLike, channels: Sequence[str]) -> NDArray[np.uint8]:
    """Paint a layout in map colours.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1], or 0–255 as uint8.
    channels
        Names of the C channels, in order.

    Returns
    -------
    numpy.ndarray
        `(H, W, 3)` uint8.

    Raises
    ------
    DataError
        For another shape, or a channel that has no colour.
    """
    array = np.asarray(layout)
    if array.ndim == 3 and array.shape[1] > _ROWS_AT_ONCE:
        starts = range(0, array.shape[1], _ROWS_AT_ONCE)
        return np.concatenate([to_rgb(array[:, start : start + _ROWS_AT_ONCE], channels) for start in starts])
    coverage = coverage_of(array, channels)
    picture = np.empty((*coverage.shape[1:], 3), np.float32)
    picture[:] = _colour(PAPER)
    for name in PAINTED:
        if name in channels:
            covered = np.clip((coverage[list(channels).index(name)] - HAZE) / (1 - HAZE), 0, 1)
            opacity = (covered ** BOOST.get(name, 1.0))[..., None]
            picture += opacity * (np.asarray(_colour(COLOURS[name]), np.float32) - picture)
    return np.rint(picture * 255).astype(np.uint8)


def coverage_of(layout: ArrayLike, channels: Sequence[str]) -> NDArray[np.float32]:
    """Return a layout as coverage in [0, 1], `(C, H, W)` float32.

    Raises
    ------
    DataError
        For another shape, or a channel that has no colour.
    """
    array = np.asarray(layout)
    if array.ndim != 3 or len(array) != len(channels):
        raise DataError("This is no layout.", expected=f"({len(channels)}, H, W)", got=array.shape)
    unknown = [name for name in channels if name not in COLOURS]
    if unknown:
        raise DataError("A channel has no colour on the map.", got=unknown[0], choices=COLOURS)
    return array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)


def show_layout(
    layout: ArrayLike,
    channels: Sequence[str],
    ax: Axes | None = None,
    *,
    grid: Grid | None = None,
    title: str = "",
    **style: Any,
) -> Axes:
    """Draw a layout as a map.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1], or 0–255 as uint8.
    channels
        Names of the C channels, in order.
    ax
        Where to draw; None makes a figure.
    grid
        Where the layout lies. With it the axes are in metres of its CRS, so that `GeoDataFrame.plot(ax=…)` fits on
        top; without it they are in cells.
    title
        One line above.
    **style
        For `matplotlib.axes.Axes.imshow`.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    DataError
        For another shape, or a channel that has no colour.
    """
    picture = to_rgb(layout, channels)
    if ax is None:
        ax = new_axes(MAP_INCHES, MAP_INCHES * picture.shape[0] / picture.shape[1] + (0.35 if title else 0))
    if grid is not None:
        left, bottom, right, top = grid.upright.bounds
        style = {"extent": (left, right, bottom, top), **style}
    image = ax.imshow(picture, **style)
    if grid is not None and grid.angle:
        turned = Affine2D().rotate_deg_around(grid.left, grid.top, -grid.angle)
        image.set_transform(turned + ax.transData)
        left, bottom, right, top = grid.bounds
        ax.set(xlim=(left, right), ylim=(bottom, top))
    ax.set(xticks=[], yticks=[])
    return style_axes(ax, title=title)


def show_vectors(
    vectors: Vectors, ax: Axes | None = None, *, size_m: tuple[float, float] | None = None, title: str = ""
) -> Axes:
    """Draw the features of a layout as a map: areas, ways, and a dot where three ways or more meet.

    Parameters
    ----------
    vectors
        As `citygrain.geo.vectorize.vectorize` makes them.
    ax
        Where to draw, in metres of the layout's CRS; None makes a figure.
    size_m
        Width and height of what is shown, from the north-west corner of the layout; None for all of the layout.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    left, bottom, right, top = vectors.grid.bounds
    wide, high = size_m or (right - left, top - bottom)
    if ax is None:
        ax = new_axes(MAP_INCHES, MAP_INCHES * high / wide + (0.35 if title else 0))
    ax.set(xlim=(left, left + wide), ylim=(top - high, top), aspect="equal", xticks=[], yticks=[])
    style_axes(ax, title=title)
    ax.set_facecolor(PAPER)
    ax.spines[:].set_visible(False)
    inches = ax.get_window_extent().transformed(figure_of(ax).dpi_scale_trans.inverted())
    points_per_m = POINTS_PER_INCH * min(inches.width / wide, inches.height / high)
    for name in PAINTED:
        shapes = vectors.areas.get(name, ())
        if len(shapes):
            rings = [Outline(shapely.get_coordinates(ring), closed=True) for ring in shapely.get_rings(shapes)]
            ax.add_patch(PathPatch(Outline.make_compound_path(*rings), facecolor=COLOURS[name], linewidth=0))
        lines = [shapely.get_coordinates(x) for ways in vectors.ways.values() for x in ways.lines[ways.kind == name]]
        if lines:
            width = max(0.8, 0.5 * WIDTHS[name] * points_per_m)
            ax.add_collection(LineCollection(lines, colors=COLOURS[name], linewidths=width, capstyle="round"))
    for ways in vectors.ways.values():
        x, y = ways.nodes[ways.street_count > 2].T
        ax.scatter(x, y, s=3, color=INK, linewidths=0, zorder=3)
    return ax


def show_place_map(
    middles: ArrayLike,
    values: ArrayLike,
    window_m: float,
    ax: Axes | None = None,
    *,
    label: str,
    title: str = "",
    top: float | None = None,
) -> Axes:
    """Draw a measure of windows as coloured squares where the windows lie, with a scale bar and a bar of colours.

    Parameters
    ----------
    middles
        `(N, 2)` eastings and northings of the windows' middles in metres.
    values
        `(N,)`.
    window_m
        Edge of a window.
    ax
        Where to draw; None makes a figure.
    label
        What the values are, with their unit.
    title
        One line above.
    top
        Value of the darkest colour; None for the highest value. Maps that are to be compared need the same.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    centres = np.asarray(middles, float)
    ax = new_axes(5.2, 4.4) if ax is None else ax
    squares = [Rectangle((x - window_m / 2, y - window_m / 2), window_m, window_m) for x, y in centres]
    drawn = PatchCollection(squares, cmap="YlOrRd", linewidths=0)
    drawn.set_array(np.asarray(values, float))
    drawn.set_clim(0, top)
    ax.add_collection(drawn)
    low, high = centres.min(0) - window_m, centres.max(0) + window_m
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    bar = figure_of(ax).colorbar(drawn, ax=ax, shrink=0.7)
    bar.set_label(label, color=INK, fontsize=8.5)
    bar.ax.tick_params(colors=INK, labelsize=8)
    kilometres = 10 ** math.floor(math.log10(max((high - low)[0] / 2000, 1e-3)))
    left, under = low + window_m / 2
    ax.plot([left, left + kilometres * 1000], [under, under], color=INK, linewidth=2)
    ax.text(left, under + window_m * 0.3, f"{kilometres:g} km", fontsize=8, color=INK)
    return style_axes(ax, title=title)
