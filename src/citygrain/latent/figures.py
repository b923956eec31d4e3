"""Figures of what codes hold.

They are drawn as those of `citygrain.plot` are: into `ax`, or into a figure of their own; `save_figure` writes them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from citygrain.errors import DataError
from citygrain.latent.codes import Codes, about, titled
from citygrain.latent.directions import CodePath, Probes
from citygrain.latent.disentanglement import Information
from citygrain.latent.structure import Projection
from citygrain.plot import COLOURS, INK, hue, show_layout, style_axes, to_rgb
from citygrain.plot.style import add_legend, figure_of, new_axes, new_figure

SCALE = "YlGnBu"
"""Colours of numbers: paper where there is nothing."""

CURVES = 6
"""Measures under a path, unless they are named."""


def show_codes(
    laid: Projection,
    codes: Codes,
    ax: Axes | None = None,
    *,
    by: str = "place",
    thumbnails: int = 0,
    title: str = "",
) -> Axes:
    """Draw a map of codes: those that are alike lie beside each other.

    Parameters
    ----------
    laid
        Where the codes lie, from `project`.
    codes
        The codes that were laid out.
    ax
        Where to draw; None makes a figure.
    by
        What the colours tell: `place`, or the name of a measure.
    thumbnails
        How many windows are shown across the map. Each is the middle one of those around it; 0 shows points alone.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    DataError
        For a measure that was not measured.
    """
    if by != "place" and by not in codes.measured:
        raise DataError("Codes cannot be coloured by it.", got=by, choices=("place", *codes.measured))
    alone = ax is None
    ax = new_axes(7.4, 6.6) if ax is None else ax
    points = laid.points
    if (points == np.rint(points)).all():  # cells of a self-organising map, which hold many codes each
        points = points + np.random.default_rng(0).uniform(-0.4, 0.4, points.shape)
    colours = _place_colours(ax, codes, alone=alone) if by == "place" else _measure_colours(ax, codes, by)
    ax.scatter(points[:, 0], points[:, 1], s=10, linewidths=0, alpha=0.7, color=colours)
    if thumbnails:
        _draw_thumbnails(ax, points, codes, colours, thumbnails)
    ax.set(xticks=[], yticks=[])
    return style_axes(ax, title=title, xlabel=laid.how)


def _place_colours(ax: Axes, codes: Codes, *, alone: bool) -> NDArray[np.float64]:
    """Return the colour of each code's place, `(N, 4)`, and explain the colours."""
    names = codes.spec.places
    dots = [ax.scatter([], [], color=hue(i)) for i in range(len(names))]
    add_legend(ax, dots, [name.replace("_", " ") for name in names], alone=alone)
    colours: NDArray[np.float64] = np.array([to_rgba(hue(i)) for i in range(len(names))])[codes.place]
    return colours


def _measure_colours(ax: Axes, codes: Codes, name: str) -> NDArray[np.float64]:
    """Return the colour of each code's measure, `(N, 4)`, and draw a bar that explains the colours."""
    values = np.ma.masked_invalid(codes.measured[name])
    scale = ScalarMappable(Normalize(*np.quantile(values.compressed(), [0.02, 0.98])), "viridis")
    bar = figure_of(ax).colorbar(scale, ax=ax, shrink=0.8)
    bar.set_label(titled(name), color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    colours: NDArray[np.float64] = scale.to_rgba(values)
    return colours


def _draw_thumbnails(
    ax: Axes, points: NDArray[np.float64], codes: Codes, colours: NDArray[np.float64], across: int
) -> None:
    """Show in every square of the map the window that is nearest to the middle of those in it, framed in its colour."""
    low, size = points.min(0), np.ptp(points, 0).max() / across
    cell = np.floor((points - low) / size).astype(int).clip(max=across - 1)
    picked, middles = [], []
    for square in np.unique(cell, axis=0):
        inside = np.flatnonzero((cell == square).all(1))
        middles.append(low + (square + 0.5) * size)
        picked.append(inside[np.linalg.norm(points[inside] - middles[-1], axis=1).argmin()])
    half = 0.36 * size
    for layout, colour, (x, y) in zip(codes.layouts(picked), colours[picked], middles, strict=True):
        edges = (x - half, x + half, y - half, y + half)
        ax.imshow(to_rgb(layout, codes.spec.channels), extent=edges, zorder=3)
        frame = Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=colour, linewidth=2, zorder=4)
        ax.add_patch(frame)
    (left, under), (right, above) = np.min(middles, 0) - 0.6 * size, np.max(middles, 0) + 0.6 * size
    ax.set(xlim=(left, right), ylim=(under, above), aspect="equal")


def show_confusion(
    table: pd.DataFrame, ax: Axes | None = None, *, told: str = "told by its code", title: str = ""
) -> Axes:
    """Draw which place windows are taken for: numbers of windows, or shares.

    Parameters
    ----------
    table
        `Classified.confusion`, or what `taken_for` returns: place × told.
    ax
        Where to draw; None makes a figure.
    told
        What the columns are.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    values = table.to_numpy(float)
    shares = values / np.nansum(values, 1, keepdims=True).clip(1e-12)
    edge = 0.9 * len(table)
    ax = new_axes(2.4 + edge, 1.7 + edge) if ax is None else ax
    ax.imshow(np.ma.masked_invalid(shares), cmap=SCALE, vmin=0, vmax=1)
    counted = bool(np.nanmax(values) > 1)
    for (i, j), share in np.ndenumerate(shares):
        if np.isfinite(values[i, j]):
            text = f"{share:.0%}" + (f"\n{values[i, j]:.0f}" if counted else "")
            ax.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if share > 0.5 else INK)
    names = [str(name).replace("_", " ") for name in table.index]
    ax.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    return style_axes(ax, title=title, xlabel=told, ylabel="windows of")


def show_path(
    way: CodePath,
    *,
    measures: Sequence[str] | None = None,
    rows: int = 2,
    spread: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw the decoded steps of a path, with the curves of what was measured on them beneath.

    Parameters
    ----------
    way
        From `traverse`, `interpolate` or `follow`.
    measures
        Whose curves; None for those that move most in terms of `spread`, or of their own range.
    rows
        How many of the codes are shown. The curves are of all codes: their mean, and the middle four fifths.
    spread
        Measure → its standard deviation over real windows.
    title
        One line above.

    Returns
    -------
    matplotlib.figure.Figure
        What was drawn.
    """
    names = list(measures) if measures is not None else _moved_most(way, spread)
    steps = len(way.positions)
    rows = min(rows, way.codes.shape[1])
    lines = math.ceil(len(names) / 3)
    wide = max(8.6, 1.15 * steps)
    high = [rows * wide / steps + 0.55, 1.75 * lines]
    figure = new_figure(wide, sum(high) + 0.35)
    if title:
        figure.suptitle(title, color=INK, fontsize=12, x=0.01, ha="left")
    halves: Any = figure.subfigures(2, 1, height_ratios=high)
    above, beneath = halves
    draw_steps(above, way, rows)
    draw_curves(beneath, way, names)
    return figure


def draw_steps(figure: Figure | SubFigure, way: CodePath, rows: int) -> None:
    """Fill a figure with the decoded layouts of the first codes of a path, row by row."""
    steps = len(way.positions)
    axes = figure.subplots(rows, steps, squeeze=False)
    for row, of_row in enumerate(axes):
        for step, ax in enumerate(of_row):
            show_layout(way.layouts[step, row], way.spec.channels, ax)
            if row == rows - 1:
                ax.set_xlabel(f"{way.positions[step]:.3g}", color=INK, fontsize=9)
    figure.supxlabel(way.along, color=INK, fontsize=9)


def draw_curves(
    figure: Figure | SubFigure, way: CodePath, names: Sequence[str], *, columns: int = 3, wanted: str | None = None
) -> None:
    """Fill a figure with the curves of measures along a path.

    `wanted` is the measure whose changes the positions are: beside it, what was asked for is drawn, too.
    """
    lines = math.ceil(len(names) / columns)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, names, strict=False):
        values = np.ma.masked_invalid(way.measured[name])
        mean = values.mean(1).filled(np.nan)
        if values.shape[1] > 2:
            spans = [np.quantile(v.compressed(), [0.1, 0.9]) if v.count() else (np.nan, np.nan) for v in values]
            ax.fill_between(way.positions, *np.array(spans).T, color=COLOURS["arterial"], alpha=0.2, linewidth=0)
        ax.plot(way.positions, mean, color=COLOURS["arterial"], linewidth=1.8, marker="o", markersize=3.5)
        if name == wanted:
            asked = mean[np.abs(way.positions).argmin()] + way.positions
            ax.plot(way.positions, asked, color=INK, linewidth=1, linestyle="--", label="asked for", zorder=1)
            ax.legend(fontsize=7.5, frameon=False, labelcolor=INK)
        ax.set_title(textwrap.fill(titled(name), 108 // columns), color=INK, fontsize=9, loc="left")
        ax.margins(y=0.15)
        style_axes(ax)


def _moved_most(way: CodePath, spread: Mapping[str, float] | None) -> list[str]:
    known = {name: values for name, values in way.measured.items() if np.isfinite(values).any()}
    if spread is None:
        spread = {name: float(np.nanstd(values)) for name, values in known.items()}
    moved = {
        name: float(np.ptp(np.ma.masked_invalid(values).mean(1).compressed())) / spread[name]
        for name, values in known.items()
        if spread.get(name, 0) > 0
    }
    return sorted(moved, key=lambda name: -moved[name])[:CURVES]


def show_probes(probes: Probes, ax: Axes | None = None, *, kept: pd.Series | None = None, title: str = "") -> Axes:
    """Draw how well each measure can be read off codes by a linear function.

    Parameters
    ----------
    probes
        From `probe`.
    ax
        Where to draw; None makes a figure.
    kept
        R² of the measures on what is decoded, from `measures_kept`: what the code holds, whether a linear function
        can read it or not.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    DataError
        When there is no probe.
    """
    if not probes.r_squared:
        raise DataError("There is no probe to draw.", got=probes.left_out)
    table = probes.table()[::-1]
    alone = ax is None
    ax = new_axes(7.6, 1.1 + 0.25 * len(table)) if ax is None else ax
    at = np.arange(len(table))
    scores = table["R²"].to_numpy(float)
    bars = ax.barh(at, scores.clip(0, 1), color=COLOURS["water"], height=0.62)
    for y, score in enumerate(scores.tolist()):
        ax.text(0.01, y, f"{score:.2f}", va="center", fontsize=7.5, color=INK)
    if kept is not None:
        marks = np.array([kept.get(name, np.nan) for name in table.index], float)
        ticks = ax.scatter(marks, at, marker="|", s=130, linewidths=2.2, color=COLOURS["arterial"])
        add_legend(ax, [bars, ticks], ["read off linearly", "in what is decoded"], alone=alone)
    ax.set_yticks(at, list(table["label"]))
    ax.set(xlim=(0, 1.08), ylim=(-0.6, len(table) - 0.4))
    return style_axes(ax, title=title, xlabel="R² on held-out windows")


def show_information(told: Information, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw how much each component of the code tells about each measure, as a share of what there is to tell.

    Parameters
    ----------
    told
        From `disentanglement`.
    ax
        Where to draw; None makes a figure.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    shares = told.bits.to_numpy(float) / told.entropy.to_numpy()[:, None]
    rows, columns = shares.shape
    ax = new_axes(3.6 + 0.34 * columns, max(2.9, 1.6 + 0.27 * rows)) if ax is None else ax
    drawn = ax.imshow(shares, cmap=SCALE, vmin=0, vmax=max(float(shares.max()), 1e-6), aspect="auto")
    ax.set_yticks(range(rows), [about(str(name)).label for name in told.bits.index])
    ax.set_xticks(range(columns), list(told.bits.columns))
    gaps = ax.secondary_yaxis("right")
    gaps.set_yticks(range(rows), [f"{gap:.2f}" for gap in told.gap])
    gaps.set_ylabel("mutual information gap", color=INK, fontsize=9)
    bar = figure_of(ax).colorbar(drawn, ax=ax, shrink=0.8, pad=0.04)
    bar.set_label("share of the measure's entropy that is told", color=INK, fontsize=8.5)
    for part in (bar.ax, gaps):
        part.tick_params(colors=INK, labelsize=8)
    return style_axes(ax, title=title, xlabel="principal component of the code")
