"""Figures of codes, probes and paths.

They are drawn like the figures of `citygrain.plot`: into `ax`, or into a figure of their own, which
`citygrain.plot.save_figure` writes.
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
from citygrain.latent.codes import Codes
from citygrain.latent.directions import CodePath, Probes
from citygrain.latent.disentanglement import Disentanglement
from citygrain.latent.measuring import find_measure, label_measure
from citygrain.latent.structure import Projection
from citygrain.plot import COLOURS, INK, hue, show_layout, style_axes, to_rgb
from citygrain.plot.style import add_legend, figure_of, new_axes, new_figure

SCALE = "YlGnBu"
"""Colours of shares: white for 0."""

CURVES = 6
"""How many measures have a curve under a path, if they are not named."""


def show_codes(
    projection: Projection,
    codes: Codes,
    ax: Axes | None = None,
    *,
    by: str = "place",
    thumbnails: int = 0,
    title: str = "",
) -> Axes:
    """Draw a map of codes, on which codes that are alike lie close to each other.

    Parameters
    ----------
    projection
        The map, from `project_codes`.
    codes
        The codes on the map.
    ax
        Where to draw; None makes a figure.
    by
        What the colours show: `place`, or the name of a measure.
    thumbnails
        How many windows are shown along the longer side of the map. Each stands for the codes around it. With 0, only
        points are shown.
    title
        One line above the figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes that were drawn into.

    Raises
    ------
    DataError
        For a measure that was not measured on the windows.
    """
    if by != "place" and by not in codes.measured:
        raise DataError("Codes cannot be coloured by it.", got=by, choices=("place", *codes.measured))
    alone = ax is None
    ax = new_axes(7.4, 6.6) if ax is None else ax
    points = projection.points
    if (points == np.rint(points)).all():  # cells of a self-organising map, which hold many codes each
        points = points + np.random.default_rng(0).uniform(-0.4, 0.4, points.shape)
    colours = _place_colours(ax, codes, alone=alone) if by == "place" else _measure_colours(ax, codes, by)
    ax.scatter(points[:, 0], points[:, 1], s=10, linewidths=0, alpha=0.7, color=colours)
    if thumbnails:
        _draw_thumbnails(ax, points, codes, colours, thumbnails)
    ax.set(xticks=[], yticks=[])
    return style_axes(ax, title=title, xlabel=projection.label)


def _place_colours(ax: Axes, codes: Codes, *, alone: bool) -> NDArray[np.float64]:
    """Return the colour of each code's place, `(N, 4)`, and draw a legend of the colours."""
    names = codes.spec.places
    dots = [ax.scatter([], [], color=hue(i)) for i in range(len(names))]
    add_legend(ax, dots, [name.replace("_", " ") for name in names], alone=alone)
    colours: NDArray[np.float64] = np.array([to_rgba(hue(i)) for i in range(len(names))])[codes.place]
    return colours


def _measure_colours(ax: Axes, codes: Codes, name: str) -> NDArray[np.float64]:
    """Return the colour of each code's measured value, `(N, 4)`, and draw a bar of the colours."""
    values = np.ma.masked_invalid(codes.measured[name])
    scale = ScalarMappable(Normalize(*np.quantile(values.compressed(), [0.02, 0.98])), "viridis")
    bar = figure_of(ax).colorbar(scale, ax=ax, shrink=0.8)
    bar.set_label(label_measure(name), color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    colours: NDArray[np.float64] = scale.to_rgba(values)
    return colours


def _draw_thumbnails(
    ax: Axes, points: NDArray[np.float64], codes: Codes, colours: NDArray[np.float64], across: int
) -> None:
    """Show one window in each square of the map: the one nearest to the middle of the square, framed in its colour."""
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
    table: pd.DataFrame, ax: Axes | None = None, *, xlabel: str = "place read off the code", title: str = ""
) -> Axes:
    """Draw which place a classifier gives the windows of each place, as numbers of windows or as shares.

    Parameters
    ----------
    table
        `Classification.confusion`, or what `classify_unseen_places` returns.
    ax
        Where to draw; None makes a figure.
    xlabel
        What the columns are.
    title
        One line above the figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes that were drawn into.
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
    return style_axes(ax, title=title, xlabel=xlabel, ylabel="windows of")


def show_path(
    path: CodePath,
    *,
    measures: Sequence[str] | None = None,
    rows: int = 2,
    spread: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draw the decoded steps of a path, and below them the curves of what was measured on the steps.

    Parameters
    ----------
    path
        From `traverse`, `interpolate` or `follow`.
    measures
        The measures that have a curve; None for those that change most.
    rows
        How many of the codes are shown. The curves belong to all codes: a line for their mean, and a band that holds
        the middle four fifths of them.
    spread
        Measure → its standard deviation over real windows, by which changes are compared. If None, changes are compared
        by the standard deviation along the path.
    title
        One line above the figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.
    """
    names = list(measures) if measures is not None else _find_most_changed(path, spread)
    steps = len(path.positions)
    rows = min(rows, path.codes.shape[1])
    lines = math.ceil(len(names) / 3)
    wide = max(8.6, 1.15 * steps)
    high = [rows * wide / steps + 0.55, 1.75 * lines]
    figure = new_figure(wide, sum(high) + 0.35)
    if title:
        figure.suptitle(title, color=INK, fontsize=12, x=0.01, ha="left")
    halves: Any = figure.subfigures(2, 1, height_ratios=high)
    above, beneath = halves
    draw_steps(above, path, rows)
    draw_curves(beneath, path, names)
    return figure


def draw_steps(figure: Figure | SubFigure, path: CodePath, rows: int) -> None:
    """Draw the decoded layouts of a path: one row for each of the first `rows` codes, one column for each step."""
    steps = len(path.positions)
    axes = figure.subplots(rows, steps, squeeze=False)
    for row, of_row in enumerate(axes):
        for step, ax in enumerate(of_row):
            show_layout(path.layouts[step, row], path.spec.channels, ax)
            if row == rows - 1:
                ax.set_xlabel(f"{path.positions[step]:.3g}", color=INK, fontsize=9)
    figure.supxlabel(path.along, color=INK, fontsize=9)


def draw_curves(
    figure: Figure | SubFigure, path: CodePath, names: Sequence[str], *, columns: int = 3, target: str | None = None
) -> None:
    """Draw the curves of measures along a path.

    If the positions of the path are changes of one of the measures, `target` is its name: the requested values are then
    drawn beside its curve.
    """
    lines = math.ceil(len(names) / columns)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, names, strict=False):
        values = np.ma.masked_invalid(path.measured[name])
        mean = values.mean(1).filled(np.nan)
        if values.shape[1] > 2:
            spans = [np.quantile(v.compressed(), [0.1, 0.9]) if v.count() else (np.nan, np.nan) for v in values]
            ax.fill_between(path.positions, *np.array(spans).T, color=COLOURS["arterial"], alpha=0.2, linewidth=0)
        ax.plot(path.positions, mean, color=COLOURS["arterial"], linewidth=1.8, marker="o", markersize=3.5)
        if name == target:
            asked = mean[np.abs(path.positions).argmin()] + path.positions
            ax.plot(path.positions, asked, color=INK, linewidth=1, linestyle="--", label="requested", zorder=1)
            ax.legend(fontsize=7.5, frameon=False, labelcolor=INK)
        ax.set_title(textwrap.fill(label_measure(name), 108 // columns), color=INK, fontsize=9, loc="left")
        ax.margins(y=0.15)
        style_axes(ax)


def _find_most_changed(path: CodePath, spread: Mapping[str, float] | None) -> list[str]:
    known = {name: values for name, values in path.measured.items() if np.isfinite(values).any()}
    if spread is None:
        spread = {name: float(np.nanstd(values)) for name, values in known.items()}
    moved = {
        name: float(np.ptp(np.ma.masked_invalid(values).mean(1).compressed())) / spread[name]
        for name, values in known.items()
        if spread.get(name, 0) > 0
    }
    return sorted(moved, key=lambda name: -moved[name])[:CURVES]


def show_probes(probes: Probes, ax: Axes | None = None, *, decoded: pd.Series | None = None, title: str = "") -> Axes:
    """Draw how well a linear function reads each measure off codes.

    Parameters
    ----------
    probes
        From `fit_probes`.
    ax
        Where to draw; None makes a figure.
    decoded
        R² of the measures on decoded layouts, from `score_decoded_measures`. It shows whether the code holds a measure
        that a linear function cannot read.
    title
        One line above the figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes that were drawn into.

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
    if decoded is not None:
        marks = np.array([decoded.get(name, np.nan) for name in table.index], float)
        ticks = ax.scatter(marks, at, marker="|", s=130, linewidths=2.2, color=COLOURS["arterial"])
        add_legend(ax, [bars, ticks], ["read off the code linearly", "measured on decoded layouts"], alone=alone)
    ax.set_yticks(at, list(table["label"]))
    ax.set(xlim=(0, 1.08), ylim=(-0.6, len(table) - 0.4))
    return style_axes(ax, title=title, xlabel="R² on held-out windows")


def show_disentanglement(disentanglement: Disentanglement, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the mutual information of components of the code and measures, as a share of the entropy of the measure.

    Parameters
    ----------
    disentanglement
        From `measure_disentanglement`.
    ax
        Where to draw; None makes a figure.
    title
        One line above the figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes that were drawn into.
    """
    shares = disentanglement.bits.to_numpy(float) / disentanglement.entropy.to_numpy()[:, None]
    rows, columns = shares.shape
    ax = new_axes(3.6 + 0.34 * columns, max(2.9, 1.6 + 0.27 * rows)) if ax is None else ax
    drawn = ax.imshow(shares, cmap=SCALE, vmin=0, vmax=max(float(shares.max()), 1e-6), aspect="auto")
    ax.set_yticks(range(rows), [find_measure(str(name)).label for name in disentanglement.bits.index])
    ax.set_xticks(range(columns), list(disentanglement.bits.columns))
    gaps = ax.secondary_yaxis("right")
    gaps.set_yticks(range(rows), [f"{gap:.2f}" for gap in disentanglement.gap])
    gaps.set_ylabel("mutual information gap", color=INK, fontsize=9)
    bar = figure_of(ax).colorbar(drawn, ax=ax, shrink=0.8, pad=0.04)
    bar.set_label("mutual information / entropy of the measure", color=INK, fontsize=8.5)
    for part in (bar.ax, gaps):
        part.tick_params(colors=INK, labelsize=8)
    return style_axes(ax, title=title, xlabel="principal component of the code")
