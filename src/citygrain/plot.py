"""Layouts as maps that people can read, and what was asked for against what was measured.

Everything here takes arrays or CPU tensors, draws without a display, and returns or writes pictures.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb as _colour
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.geo.layers import CHANNELS, WIDTHS
from citygrain.geo.vectorize import Vectors
from citygrain.measures import MEASURES
from citygrain.support.files import atomic_path

PAPER = "#f8f5ee"
INK = "#33313a"
FAINT = "#c9c4b8"

COLOURS: Mapping[str, str] = {c.name: c.colour for c in CHANNELS}

PAINTED = (
    *("green", "water", "parking", "square", "walk", "service", "street", "arterial", "cycle", "rail", "building"),
)
"""The painter's order: what comes later lies above. Areas first, then ways, buildings last; a cycle track above the
street that it shares an 8 m cell with, or it would never be seen."""

BOOST: Mapping[str, float] = {
    "walk": 0.6,
    "cycle": 0.45,
    "service": 0.7,
    "street": 0.75,
    "arterial": 0.75,
    "rail": 0.55,
}
"""Exponent of a channel's coverage on its way to opacity: a 4 m track covers half of an 8 m cell and must be seen."""

HAZE = 0.03
"""Coverage below this is not painted: generated layouts are never exactly zero."""

DPI, FONT = 100, 8.5
MARGIN, GAP, LINE, SWATCH = 18, 12, 18, 10
"""Pixels: around a sheet, between layouts, a line of the legend, a colour in it."""


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
    coverage = _coverage(layout, channels)
    picture = np.empty((*coverage.shape[1:], 3), np.float32)
    picture[:] = _colour(PAPER)
    for name in PAINTED:
        if name in channels:
            covered = np.clip((coverage[list(channels).index(name)] - HAZE) / (1 - HAZE), 0, 1)
            opacity = (covered ** BOOST.get(name, 1.0))[..., None]
            picture += opacity * (np.asarray(_colour(COLOURS[name]), np.float32) - picture)
    return np.rint(picture * 255).astype(np.uint8)


def sheet(
    layouts: ArrayLike,
    channels: Sequence[str],
    path: str | Path | None = None,
    *,
    titles: Sequence[str] | None = None,
    heading: str = "",
    columns: int | None = None,
    scale: int | None = None,
    resolution_m: float | None = None,
    outline: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Lay out layouts side by side, with captions and a legend.

    Parameters
    ----------
    layouts
        `(N, C, H, W)`, coverage in [0, 1] or uint8.
    channels
        Names of the C channels, in order.
    path
        PNG to write; None writes nothing.
    titles
        A caption for each layout.
    heading
        One line above everything.
    columns
        How many layouts stand in a row; None for a nearly square sheet.
    scale
        Screen pixels per cell, so that cells can be seen; None makes a layout about 200 pixels wide.
    resolution_m
        Edge of a cell in metres; draws a scale bar.
    outline
        `(H, W)`: cells around whose edge a line is drawn on every layout.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.

    Raises
    ------
    DataError
        For no layouts at all, or titles that do not match them.
    """
    pictures = [to_rgb(layout, channels) for layout in np.asarray(layouts)]
    return _grid(pictures, channels, path, titles, heading, columns, scale, resolution_m, outline)


def channel_panels(
    layout: ArrayLike,
    channels: Sequence[str],
    path: str | Path | None = None,
    *,
    heading: str = "",
    scale: int | None = None,
    resolution_m: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a layout as a map, and each of its channels alone, captioned with the share that it covers.

    Parameters
    ----------
    layout
        `(C, H, W)`, coverage in [0, 1] or uint8.
    channels, path, heading, scale, resolution_m
        As for `sheet`.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    coverage = _coverage(layout, channels)
    pictures, titles = [to_rgb(coverage, channels)], ["all channels"]
    for name, band in zip(channels, coverage, strict=True):
        pictures.append(to_rgb(band[None], [name]))
        titles.append(f"{name} {band.mean():.1%}")
    return _grid(pictures, (), path, titles, heading, min(len(pictures), 5), scale, resolution_m)


def vector_sheet(
    layouts: Sequence[Vectors],
    path: str | Path | None = None,
    *,
    titles: Sequence[str] | None = None,
    pixels: int = 480,
) -> NDArray[np.uint8]:
    """Draw features as a map, layout beside layout, with captions and a legend.

    Parameters
    ----------
    layouts
        As `citygrain.geo.vectorize` makes them.
    path
        PNG to write; None writes nothing.
    titles
        A caption for each layout.
    pixels
        Width of a layout.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    drawn = {name for v in layouts for name in (*v.areas, *(kind for ways in v.ways.values() for kind in ways.kind))}
    sizes = np.array([(v.grid.width * v.grid.resolution_m, v.grid.height * v.grid.resolution_m) for v in layouts])
    wide, high = sizes.max(0, initial=1.0)
    shape = pixels, max(1, round(pixels * high / wide))
    pictures = [_map(v, (wide, high), shape) for v in layouts]
    return _grid(pictures, sorted(drawn), path, titles, "", None, 1, wide / pixels)


def _map(vectors: Vectors, size_m: tuple[float, float], pixels: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw the features of a layout, its north-west corner in that of the picture."""
    left, _, _, top = vectors.grid.bounds
    figure = Figure(figsize=(pixels[0] / DPI, pixels[1] / DPI), dpi=DPI, facecolor=PAPER)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(left, left + size_m[0]), ylim=(top - size_m[1], top))
    for name in PAINTED:
        shapes = vectors.areas.get(name, ())
        if len(shapes):
            rings = [Outline(shapely.get_coordinates(ring), closed=True) for ring in shapely.get_rings(shapes)]
            axis.add_patch(PathPatch(Outline.make_compound_path(*rings), facecolor=COLOURS[name], linewidth=0))
        lines = [shapely.get_coordinates(x) for ways in vectors.ways.values() for x in ways.lines[ways.kind == name]]
        if lines:
            width = max(0.8, 0.5 * WIDTHS[name] / size_m[0] * pixels[0] * 72 / DPI)
            axis.add_collection(LineCollection(lines, colors=COLOURS[name], linewidths=width, capstyle="round"))
    for ways in vectors.ways.values():
        x, y = ways.nodes[ways.street_count > 2].T
        axis.scatter(x, y, s=3, color=INK, linewidths=0, zorder=3)
    return save(figure, None)


def requested_measured(
    requested: Mapping[str, ArrayLike],
    measured: Mapping[str, ArrayLike],
    path: str | Path | None = None,
    *,
    heading: str = "",
) -> NDArray[np.uint8]:
    """Draw, for each condition, what was asked for against what came out: every layout, and the mean of each level.

    Parameters
    ----------
    requested, measured
        Condition to `(N,)` values in its unit, layout by layout.
    path
        PNG to write; None writes nothing.
    heading
        One line above everything.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.

    Raises
    ------
    DataError
        For no condition, or values that do not pair up.
    """
    if not requested:
        raise DataError("There is nothing to compare: no condition was asked for.")
    columns = min(len(requested), 4)
    rows = math.ceil(len(requested) / columns)
    top = 0.45 if heading else 0.1
    figure = Figure(figsize=(3.3 * columns, 3.8 * rows + top), dpi=DPI, facecolor=PAPER, layout="constrained")
    if heading:
        figure.suptitle(heading, color=INK, fontsize=12)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[::columns]:
        axis.set_ylabel("measured", color=INK, fontsize=9)
    for axis in axes[len(requested) :]:
        axis.set_axis_off()
    for axis, (name, asked) in zip(axes, requested.items(), strict=False):
        _compare(axis, name, np.asarray(asked, float).ravel(), np.asarray(measured.get(name, ()), float).ravel())
    return save(figure, path)


def distance_chart(
    rows: Sequence[tuple[str, float, float, float]],
    path: str | Path | None = None,
    *,
    heading: str = "",
) -> NDArray[np.uint8]:
    """Draw how far generated layouts are from real ones, between the floor and the ceiling of each measure.

    Parameters
    ----------
    rows
        Label of a measure, its distance, and those of the floor (real against real) and of the ceiling (shuffled), all
        in one unit, such as standard deviations.
    path
        PNG to write; None writes nothing.
    heading
        One line above.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    if not rows:
        raise DataError("There is no distance to draw.")
    figure = Figure(figsize=(8.6, 1.1 + 0.24 * len(rows)), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(rows))[::-1]
    value, floor, ceiling = np.array([row[1:] for row in rows], float).T
    axis.hlines(at, np.fmin(floor, value), np.fmax(floor, value), color=FAINT, linewidth=2.5, zorder=1)
    axis.scatter(ceiling, at, marker="|", s=60, color=FAINT, linewidths=2, label="tiles shuffled", zorder=2)
    axis.scatter(floor, at, marker="|", s=90, color=INK, linewidths=2, label="real against real", zorder=3)
    axis.scatter(value, at, s=26, color=COLOURS["arterial"], label="generated against real", zorder=4)
    axis.set_yticks(at, [row[0] for row in rows])
    axis.set_xlim(left=0)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xlabel("Wasserstein distance in standard deviations", color=INK, fontsize=9)
    axis.legend(loc="lower right", fontsize=8, frameon=False, labelcolor=INK)
    if heading:
        axis.set_title(heading, color=INK, fontsize=11, loc="left")
    plain(axis)
    return save(figure, path)


def histograms(
    samples: Mapping[str, ArrayLike],
    path: str | Path | None = None,
    *,
    label: str,
    mark: float | None = None,
    heading: str = "",
) -> NDArray[np.uint8]:
    """Draw how samples are distributed, over each other.

    Parameters
    ----------
    samples
        Name to `(N,)` values.
    path
        PNG to write; None writes nothing.
    label
        What the values are, with their unit.
    mark
        A value to mark by a line.
    heading
        One line above.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    figure = Figure(figsize=(6.4, 2.8), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    values = {name: np.asarray(sample, float) for name, sample in samples.items()}
    values = {name: sample[np.isfinite(sample)] for name, sample in values.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 40).tolist()
    for (name, sample), colour in zip(values.items(), ("arterial", "water", "green", "building"), strict=False):
        axis.hist(sample, bins, density=True, alpha=0.55, color=COLOURS[colour], label=f"{name} (n = {len(sample)})")
    if mark is not None:
        axis.axvline(mark, color=INK, linewidth=1.2, linestyle="--")
    axis.set_yticks([])
    axis.set_xlabel(label, color=INK, fontsize=9)
    axis.legend(fontsize=8, frameon=False, labelcolor=INK)
    if heading:
        axis.set_title(heading, color=INK, fontsize=11, loc="left")
    plain(axis)
    return save(figure, path)


def curves(
    stages: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]], path: str | Path | None = None
) -> NDArray[np.uint8]:
    """Draw how losses fell in training, stage beside stage.

    Parameters
    ----------
    stages
        Stage → name of a loss → `step` and `loss`, `(N,)` each.
    path
        PNG to write; None writes nothing.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    figure = Figure(figsize=(4.3 * len(stages), 2.8), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots(1, len(stages), squeeze=False).ravel()
    for axis, (stage, losses) in zip(axes, stages.items(), strict=True):
        for (name, of), colour in zip(losses.items(), (FAINT, COLOURS["arterial"]), strict=False):
            axis.plot(of["step"], of["loss"], color=colour, linewidth=1.4, label=name)
        axis.set_title(stage, color=INK, fontsize=11, loc="left")
        axis.set_xlabel("step", color=INK, fontsize=9)
        axis.legend(fontsize=8, frameon=False, labelcolor=INK)
        plain(axis)
    axes[0].set_ylabel("loss", color=INK, fontsize=9)
    return save(figure, path)


def roses(
    bearings: Sequence[tuple[ArrayLike, ArrayLike]], titles: Sequence[str], path: str | Path | None = None
) -> NDArray[np.uint8]:
    """Draw in which directions ways run, both ways each, place beside place.

    Parameters
    ----------
    bearings
        For each place, bearings `(N,)` in degrees from north and weights `(N,)`.
    titles
        One for each.
    path
        PNG to write; None writes nothing.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    columns = min(len(titles), 4)
    rows = math.ceil(len(titles) / columns)
    figure = Figure(figsize=(2.6 * columns, 3 * rows), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "polar"}).ravel()
    edges = np.arange(37) * 10.0 - 5
    for axis in axes[len(titles) :]:
        axis.set_axis_off()
    for i, (axis, (degrees, weights), title) in enumerate(zip(axes, bearings, titles, strict=False)):
        both = np.concatenate([np.asarray(degrees, float), np.asarray(degrees, float) + 180]) % 360
        both = np.where(both >= 355, both - 360, both)  # the first bin lies about north
        share = np.histogram(both, edges, weights=np.tile(np.asarray(weights, float), 2))[0]
        share /= max(share.sum(), 1e-12)
        # Areas, not radii, are what people compare.
        axis.bar(np.radians(edges[:-1] + 5), np.sqrt(share), width=np.radians(10), color=hue(i), alpha=0.85)
        axis.set_theta_zero_location("N")
        axis.set_theta_direction(-1)
        axis.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"])
        axis.set_yticks([])
        axis.set_title(title, color=INK, fontsize=10)
        axis.set_facecolor("white")
        axis.tick_params(colors=INK, labelsize=8)
        axis.spines["polar"].set_color(FAINT)
    return save(figure, path)


def ranges(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]],
    places: Sequence[str],
    path: str | Path | None = None,
) -> NDArray[np.uint8]:
    """Draw for each measure where each place lies: three percentiles, every measure on its own scale.

    Parameters
    ----------
    rows
        Label of a measure, and place → a low, a middle and a high value. The lowest and the highest of all places are
        the ends of its scale.
    places
        In the order of their colours.
    path
        PNG to write; None writes nothing.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    if not rows:
        raise DataError("There is no measure to draw.")
    figure = Figure(figsize=(8.6, 0.9 + (0.12 + 0.11 * len(places)) * len(rows)), dpi=DPI, facecolor=PAPER,
                    layout="constrained")  # fmt: skip
    axis = figure.subplots()
    for i, (_, of) in enumerate(rows):
        values = np.array(list(of.values()))
        low, scale = values.min(), max(float(np.ptp(values)), 1e-12)
        for k, place in enumerate(places):
            if place in of:
                first, middle, last = ((v - low) / scale for v in of[place])
                y = -i - (k - (len(places) - 1) / 2) * 0.7 / len(places)
                axis.plot([first, last], [y, y], color=hue(k), linewidth=2.2, alpha=0.5, solid_capstyle="round")
                axis.scatter([middle], [y], s=18, color=hue(k), zorder=3)
        for x, value, side in ((0, low, "left"), (1, low + scale, "right")):
            axis.text(x, -i + 0.42, f"{value:.3g}", ha=side, va="center", fontsize=6.5, color=FAINT)
    axis.set_yticks(-np.arange(len(rows)), [label for label, _ in rows])
    axis.set_xticks([])
    axis.set_ylim(-len(rows) + 0.4, 0.7)
    points = [axis.scatter([], [], s=18, color=hue(k)) for k in range(len(places))]
    figure.legend(points, places, loc="outside upper right", ncols=len(places), fontsize=8, frameon=False,
                  labelcolor=INK)  # fmt: skip
    plain(axis)
    return save(figure, path)


def distributions(
    samples: Mapping[str, Mapping[str, ArrayLike]], places: Sequence[str], path: str | Path | None = None
) -> NDArray[np.uint8]:
    """Draw how measures are distributed in each place, on logarithmic scales, measure beside measure.

    Parameters
    ----------
    samples
        Label of a measure, and place → values `(N,)`; those that are 0 or less are left out.
    places
        In the order of their colours.
    path
        PNG to write; None writes nothing.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    columns = min(max(len(samples), 1), 3)
    rows = math.ceil(max(len(samples), 1) / columns)
    figure = Figure(figsize=(3.1 * columns, 2.3 * rows + 0.3), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(samples) :]:
        axis.set_axis_off()
    for axis, (label, of) in zip(axes, samples.items(), strict=False):
        positive = {name: np.asarray(v, float)[np.asarray(v, float) > 0] for name, v in of.items()}
        joined = np.concatenate([np.empty(0), *positive.values()])
        if len(joined):
            bins = np.geomspace(joined.min(), max(joined.max(), joined.min() * 1.01), 41)
            for name, values in positive.items():
                if len(values):
                    share = np.histogram(values, bins)[0] / len(values)
                    axis.stairs(share, bins, color=hue(places.index(name)), linewidth=1.6, label=name)
            axis.set_xscale("log")
        axis.set_yticks([])
        axis.set_xlabel(label, color=INK, fontsize=9)
        plain(axis)
    if samples:
        lines = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(lines.values(), lines, loc="outside upper right", ncols=len(lines), fontsize=8, frameon=False,
                      labelcolor=INK)  # fmt: skip
    return save(figure, path)


def stacked(
    shares: Mapping[str, Sequence[float]], labels: Sequence[str], path: str | Path | None = None
) -> NDArray[np.uint8]:
    """Draw what each place consists of, as bars of parts.

    Parameters
    ----------
    shares
        Place → its parts.
    labels
        Of the parts: of the network by car, cycle, foot and rail.
    path
        PNG to write; None writes nothing.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    figure = Figure(figsize=(8.6, 1 + 0.34 * len(shares)), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    at = -np.arange(len(shares), dtype=float)
    left = np.zeros(len(shares))
    for label, kind, parts in zip(labels, ("street", "cycle", "walk", "rail"), np.array(list(shares.values())).T,
                                  strict=True):  # fmt: skip
        colour = "white" if kind in {"rail", "cycle"} else INK
        axis.barh(at, parts, left=left, color=COLOURS[kind], label=label, height=0.7)
        for y, x, part in zip(at, left, parts, strict=True):
            if part > 0.04:
                axis.text(
                    float(x + part / 2), float(y), f"{part:.0%}", ha="center", va="center", fontsize=8, color=colour
                )
        left = left + parts
    axis.set_yticks(at, list(shares))
    axis.set_xticks([])
    axis.set_xlim(0, max(float(left.max()), 1e-12))
    figure.legend(loc="outside upper right", ncols=len(labels), fontsize=8, frameon=False, labelcolor=INK)
    plain(axis)
    return save(figure, path)


def place_map(
    where: ArrayLike,
    values: ArrayLike,
    window_m: float,
    path: str | Path | None = None,
    *,
    label: str,
    heading: str = "",
    top: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a measure of windows where these lie.

    Parameters
    ----------
    where
        `(N, 2)` eastings and northings of their middles in metres.
    values
        `(N,)`.
    window_m
        Edge of a window.
    path
        PNG to write; None writes nothing.
    label
        What the values are, with their unit.
    heading
        One line above.
    top
        Value of the darkest colour; the highest by default. Maps that are to be compared need one.

    Returns
    -------
    numpy.ndarray
        The picture, `(height, width, 3)` uint8.
    """
    middles, measured = np.asarray(where, float), np.asarray(values, float)
    figure = Figure(figsize=(5.2, 4.4), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    squares = [Rectangle((x - window_m / 2, y - window_m / 2), window_m, window_m) for x, y in middles]
    drawn = PatchCollection(squares, cmap="YlOrRd", linewidths=0)
    drawn.set_array(measured)
    drawn.set_clim(0, top)
    axis.add_collection(drawn)
    low, high = middles.min(0) - window_m, middles.max(0) + window_m
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    bar = figure.colorbar(drawn, ax=axis, shrink=0.7)
    bar.set_label(label, color=INK, fontsize=8.5)
    bar.ax.tick_params(colors=INK, labelsize=8)
    kilometres = 10 ** math.floor(math.log10(max((high - low)[0] / 2000, 1e-3)))
    left, under = low + window_m / 2
    axis.plot([left, left + kilometres * 1000], [under, under], color=INK, linewidth=2)
    axis.text(left, under + window_m * 0.3, f"{kilometres:g} km", fontsize=8, color=INK)
    if heading:
        axis.set_title(heading, color=INK, fontsize=11, loc="left")
    plain(axis)
    return save(figure, path)


def hue(i: int) -> str:
    """Colour of the i-th place."""
    return ("#d9572f", "#3f7fb5", "#5c8f4e", "#8a5a9e", "#b98b2d", "#555560")[i % 6]


def r_squared(requested: ArrayLike, measured: ArrayLike) -> float:
    """Share of the measured values' variance that the requests explain: 1 − Σ(m − r)² / Σ(m − mean m)².

    The line is *measured = requested*, not a fitted one, so that a bias costs; worse than their own mean is negative.
    NaN where the measured values do not vary.
    """
    asked, got = np.asarray(requested, float), np.asarray(measured, float)
    spread = float(((got - got.mean()) ** 2).sum())
    return 1 - float(((got - asked) ** 2).sum()) / spread if spread > 0 else math.nan


def _compare(axis: Any, name: str, asked: NDArray[np.float64], got: NDArray[np.float64]) -> None:
    if asked.shape != got.shape or not asked.size:
        raise DataError(f"Requested and measured {name} do not pair up.", expected=asked.shape, got=got.shape)
    measure = MEASURES.get(name)
    unit = f" [{measure.unit}]" if measure and measure.unit not in {"", "–"} else ""
    both = np.concatenate([asked, got])
    low, high = float(min(both.min(), 0)), float(both.max()) * 1.06 or 1.0
    levels, of = np.unique(asked, return_inverse=True)
    axis.plot([low, high], [low, high], color=FAINT, linewidth=1.2, zorder=1)
    jitter = np.random.default_rng(0).uniform(-1, 1, asked.size) * (
        0.012 * (high - low) if len(levels) < asked.size else 0
    )
    axis.scatter(asked + jitter, got, s=9, color="#4a7ba6", alpha=0.45, linewidths=0, zorder=2)
    if len(levels) < asked.size:
        means = np.bincount(of, got) / np.bincount(of)
        axis.plot(levels, means, color=COLOURS["arterial"], linewidth=1.4, marker="o", markersize=6, zorder=3)
    score = r_squared(asked, got)
    axis.set_title(f"{measure.label if measure else name}{unit}", color=INK, fontsize=10, pad=18)
    note = f"n = {asked.size}" + ("" if math.isnan(score) else f"    R² = {score:.2f}")
    axis.text(0.5, 1.03, note, transform=axis.transAxes, ha="center", color=INK, fontsize=8.5)
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set_xlabel("requested", color=INK, fontsize=9)
    plain(axis)


def plain(axis: Any) -> None:
    """Leave of an axis what says something: on white, without a frame around it."""
    axis.tick_params(colors=INK, labelsize=8, length=3)
    axis.set_facecolor("white")
    for side in axis.spines.values():
        side.set_color(FAINT)


def _coverage(layout: ArrayLike, channels: Sequence[str]) -> NDArray[np.float32]:
    array = np.asarray(layout)
    if array.ndim != 3 or len(array) != len(channels):
        raise DataError("This is no layout.", expected=f"({len(channels)}, H, W)", got=array.shape)
    unknown = [name for name in channels if name not in COLOURS]
    if unknown:
        raise DataError("A channel has no colour on the map.", got=unknown[0], choices=COLOURS)
    return array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)


def _grid(
    pictures: Sequence[NDArray[np.uint8]],
    legend: Sequence[str],
    path: str | Path | None,
    titles: Sequence[str] | None,
    heading: str,
    columns: int | None,
    scale: int | None,
    resolution_m: float | None,
    outline: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    if not pictures or (titles is not None and len(titles) != len(pictures)):
        raise DataError(
            "A sheet needs layouts, and a title for each or none.",
            got=f"{len(pictures)} layouts, {0 if titles is None else len(titles)} titles",
        )
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    scale = scale or max(1, math.ceil(192 / pictures[0].shape[1]))
    high, wide = (scale * edge for edge in pictures[0].shape[:2])
    captions = [_wrapped(title, wide) for title in titles or ()]
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    foot = _foot([n for n in reversed(PAINTED) if n in legend], width, _scale_bar(resolution_m, scale, wide))
    caption = 15 * max(map(len, captions)) + 6 if captions else 0
    top = MARGIN + (34 if heading else 0)
    bottom = MARGIN + (12 + LINE * (foot[-1][2] + 1) if foot else 0)
    height = top + rows * (high + caption) + (rows - 1) * GAP + bottom
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def write(left: float, under: float, text: str, size: float = FONT) -> None:
        figure.text(left / width, under / height, text, va="baseline", color=INK, fontsize=size)

    def box(left: float, under: float, w: float, h: float, colour: str = INK) -> None:
        figure.add_artist(Rectangle((left / width, under / height), w / width, h / height, color=colour, linewidth=0))

    write(MARGIN, height - MARGIN - 14, heading, 13)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        left = MARGIN + column * (wide + GAP)
        under = height - top - row * (high + caption + GAP) - high - caption
        shown = picture.repeat(scale, 0).repeat(scale, 1)
        if outline is not None:
            inside = np.pad(outline.repeat(scale, 0).repeat(scale, 1), 1)
            lonely = ~(inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:])
            shown[inside[1:-1, 1:-1] & lonely] = _colour(INK)
        figure.figimage(shown, left, under, origin="upper")
        for line, text in enumerate(reversed(captions[i] if captions else ())):
            write(left, under + high + 6 + 15 * line, text)
    for name, across, line, length in foot:
        under = bottom - 12 - LINE * (line + 1) + 4
        if length:
            box(across, under, length, 2)
            box(across, under, 2, 7)
            box(across + length - 2, under, 2, 7)
        else:
            box(across, under - 1, SWATCH, SWATCH, COLOURS[name])
        write(across + (length or SWATCH) + 5, under, name)
    return save(figure, path)


def _scale_bar(resolution_m: float | None, scale: int, wide: int) -> tuple[str, float] | None:
    """Return the text and length in pixels of a round number of metres that is up to 0.6 of a layout's width."""
    if resolution_m is None:
        return None
    pixels = scale / resolution_m
    step = next((s for s in (1000, 500, 200, 100, 50, 20, 10, 5, 2) if s * pixels <= 0.6 * wide), 1)
    return f"{step} m", step * pixels


def _foot(
    legend: Sequence[str], width: int, scale_bar: tuple[str, float] | None
) -> list[tuple[str, float, int, float]]:
    """Place the scale bar and the legend in lines: `(text, pixels from the left, line, length of the bar or 0)`."""
    items = [(scale_bar[0], scale_bar[1])] if scale_bar else []
    items += [(name, 0.0) for name in legend]
    placed = []
    left, line = float(MARGIN), 0
    for text, length in items:
        needs = (length or SWATCH) + 5 + _text_width(text)
        if left > MARGIN and left + needs > width - MARGIN:
            left, line = float(MARGIN), line + 1
        placed.append((text, left, line, length))
        left += needs + 14
    return placed


def _text_width(text: str) -> float:
    return float(TextPath((0, 0), text, size=FONT * DPI / 72).get_extents().width) if text.strip() else 0.0


def _wrapped(text: str, wide: int) -> list[str]:
    """Break a caption into lines that fit above a layout; its own line breaks stay."""
    letters = max(6, int(wide / _text_width("coverage 0.25") * 13))
    return [part for line in text.splitlines() for part in textwrap.wrap(line, letters) or [""]]


def save(figure: Figure, path: str | Path | None) -> NDArray[np.uint8]:
    """Draw a figure and return its pixels `(height, width, 3)`; where there is a path, a PNG of it too."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    if path is not None:
        with atomic_path(Path(path)) as temporary:
            figure.savefig(temporary, dpi=DPI, facecolor=figure.get_facecolor())
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
