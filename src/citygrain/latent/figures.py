"""Pictures of what codes hold. Each is returned as `(height, width, 3)` uint8, and written as a PNG where a path is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
from citygrain.plot import COLOURS, DPI, INK, PAPER, hue, plain, save, to_rgb

Picture = NDArray[np.uint8]

SCALE = "YlGnBu"
"""Colours of numbers: paper where there is nothing."""

CURVES = 6
"""Measures under a path, unless they are named."""


def latent_map(
    laid: Projection,
    codes: Codes,
    path: str | Path | None = None,
    *,
    by: str = "place",
    thumbnails: int = 0,
    heading: str = "",
) -> Picture:
    """Draw where codes lie.

    Parameters
    ----------
    laid
        From `project`.
    codes
        What was laid out.
    path
        PNG to write; None writes nothing.
    by
        What the colours tell: `place`, or the name of a measure.
    thumbnails
        Windows to show across the map, each in the middle of those around it; 0 for points alone.
    heading
        One line above.

    Raises
    ------
    DataError
        For a measure that was not measured.
    """
    if by != "place" and by not in codes.measured:
        raise DataError("Codes cannot be coloured by it.", got=by, choices=("place", *codes.measured))
    figure = Figure(figsize=(7.4, 6.6), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    points = laid.points
    if (points == np.rint(points)).all():  # cells of a self-organising map, which hold many codes each
        points = points + np.random.default_rng(0).uniform(-0.4, 0.4, points.shape)
    if by == "place":
        names = codes.spec.places
        colours = np.array([to_rgba(hue(i)) for i in range(len(names))])[codes.place]
        swatches = [axis.scatter([], [], color=hue(i)) for i in range(len(names))]
        figure.legend(
            swatches, [name.replace("_", " ") for name in names], loc="outside upper right", ncols=len(names),
            fontsize=9, frameon=False, labelcolor=INK,
        )  # fmt: skip
    else:
        values = np.ma.masked_invalid(codes.measured[by])
        scale = ScalarMappable(Normalize(*np.quantile(values.compressed(), [0.02, 0.98])), "viridis")
        colours = scale.to_rgba(values)
        bar = figure.colorbar(scale, ax=axis, shrink=0.8)
        bar.set_label(titled(by), color=INK, fontsize=9)
        bar.ax.tick_params(colors=INK, labelsize=8)
    axis.scatter(points[:, 0], points[:, 1], s=10, linewidths=0, alpha=0.7, color=colours)
    if thumbnails:
        _thumbnails(axis, points, codes, colours, thumbnails)
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(laid.how, color=INK, fontsize=9)
    axis.set_title(heading, color=INK, fontsize=11, loc="left")
    plain(axis)
    return save(figure, path)


def _thumbnails(
    axis: Any, points: NDArray[np.float64], codes: Codes, colours: NDArray[np.float64], across: int
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
        axis.imshow(to_rgb(layout, codes.spec.channels), extent=edges, zorder=3, interpolation="antialiased")
        frame = Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=colour, linewidth=2, zorder=4)
        axis.add_patch(frame)
    (left, under), (right, above) = np.min(middles, 0) - 0.6 * size, np.max(middles, 0) + 0.6 * size
    axis.set(xlim=(left, right), ylim=(under, above), aspect="equal")


def confusion_chart(
    table: pd.DataFrame, path: str | Path | None = None, *, heading: str = "", told: str = "told by its code"
) -> Picture:
    """Draw which place windows are taken for: numbers of windows, or shares.

    Parameters
    ----------
    table
        `Classified.confusion`, or what `taken_for` returns: place × told.
    path
        PNG to write; None writes nothing.
    heading
        One line above.
    told
        What the columns are.
    """
    values = table.to_numpy(float)
    shares = values / np.nansum(values, 1, keepdims=True).clip(1e-12)
    edge = 0.9 * len(table)
    figure = Figure(figsize=(2.4 + edge, 1.7 + edge), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.ma.masked_invalid(shares), cmap=SCALE, vmin=0, vmax=1)
    counted = bool(np.nanmax(values) > 1)
    for (i, j), share in np.ndenumerate(shares):
        if np.isfinite(values[i, j]):
            text = f"{share:.0%}" + (f"\n{values[i, j]:.0f}" if counted else "")
            axis.text(j, i, text, ha="center", va="center", fontsize=9, color="white" if share > 0.5 else INK)
    names = [str(name).replace("_", " ") for name in table.index]
    axis.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(told, color=INK, fontsize=9)
    axis.set_ylabel("windows of", color=INK, fontsize=9)
    axis.set_title(heading, color=INK, fontsize=10, loc="left")
    plain(axis)
    return save(figure, path)


def path_picture(
    way: CodePath,
    path: str | Path | None = None,
    *,
    measures: Sequence[str] | None = None,
    rows: int = 2,
    spread: Mapping[str, float] | None = None,
    heading: str = "",
) -> Picture:
    """Draw the decoded steps of a path, with the curves of what was measured on them beneath.

    Parameters
    ----------
    way
        From `traverse` or `interpolate`.
    path
        PNG to write; None writes nothing.
    measures
        Whose curves; None for those that move most in terms of `spread`, or of their own range.
    rows
        How many of the codes are shown; the curves are of all: their mean, and the middle four fifths.
    spread
        Measure → its standard deviation over real windows.
    heading
        One line above.
    """
    names = list(measures) if measures is not None else _moved_most(way, spread)
    steps = len(way.positions)
    rows = min(rows, way.codes.shape[1])
    lines = math.ceil(len(names) / 3)
    wide = max(8.6, 1.15 * steps)
    high = [rows * wide / steps + 0.55, 1.75 * lines]
    figure = Figure(figsize=(wide, sum(high) + 0.35), dpi=DPI, facecolor=PAPER, layout="constrained")
    if heading:
        figure.suptitle(heading, color=INK, fontsize=12, x=0.01, ha="left")
    halves: Any = figure.subfigures(2, 1, height_ratios=high)
    above, beneath = halves
    steps_of(above, way, rows)
    curves_of(beneath, way, names)
    return save(figure, path)


def steps_of(figure: Figure | SubFigure, way: CodePath, rows: int) -> None:
    """Draw the decoded layouts of the first codes, row by row."""
    steps = len(way.positions)
    axes = figure.subplots(rows, steps, squeeze=False)
    for row, of_row in enumerate(axes):
        for step, axis in enumerate(of_row):
            axis.imshow(to_rgb(way.layouts[step, row], way.spec.channels), interpolation="antialiased")
            axis.set(xticks=[], yticks=[])
            if row == rows - 1:
                axis.set_xlabel(f"{way.positions[step]:.3g}", color=INK, fontsize=9)
            plain(axis)
    figure.supxlabel(way.along, color=INK, fontsize=9)


def curves_of(
    figure: Figure | SubFigure, way: CodePath, names: Sequence[str], *, columns: int = 3, wanted: str | None = None
) -> None:
    """Draw measures along a path; of the wanted one, whose changes the positions are, also what was asked for."""
    lines = math.ceil(len(names) / columns)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        values = np.ma.masked_invalid(way.measured[name])
        mean = values.mean(1).filled(np.nan)
        if values.shape[1] > 2:
            spans = [np.quantile(v.compressed(), [0.1, 0.9]) if v.count() else (np.nan, np.nan) for v in values]
            axis.fill_between(way.positions, *np.array(spans).T, color=COLOURS["arterial"], alpha=0.2, linewidth=0)
        axis.plot(way.positions, mean, color=COLOURS["arterial"], linewidth=1.8, marker="o", markersize=3.5)
        if name == wanted:
            asked = mean[np.abs(way.positions).argmin()] + way.positions
            axis.plot(way.positions, asked, color=INK, linewidth=1, linestyle="--", label="asked for", zorder=1)
            axis.legend(fontsize=7.5, frameon=False, labelcolor=INK)
        axis.set_title(textwrap.fill(titled(name), 108 // columns), color=INK, fontsize=9, loc="left")
        axis.margins(y=0.15)
        plain(axis)


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


def probe_bars(
    probes: Probes, path: str | Path | None = None, *, kept: pd.Series | None = None, heading: str = ""
) -> Picture:
    """Draw what can be read off codes linearly, measure by measure.

    Parameters
    ----------
    probes
        From `probe`.
    path
        PNG to write; None writes nothing.
    kept
        R² of the measures on what is decoded, from `measures_kept`: what is in the code, whether linear or not.
    heading
        One line above.

    Raises
    ------
    DataError
        When there is no probe.
    """
    if not probes.r_squared:
        raise DataError("There is no probe to draw.", got=probes.left_out)
    table = probes.table()[::-1]
    figure = Figure(figsize=(7.6, 1.1 + 0.25 * len(table)), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(table))
    scores = table["R²"].to_numpy(float)
    axis.barh(at, scores.clip(0, 1), color=COLOURS["water"], height=0.62, label="read off linearly")
    for y, score in enumerate(scores.tolist()):
        axis.text(0.01, y, f"{score:.2f}", va="center", fontsize=7.5, color=INK)
    if kept is not None:
        marks = np.array([kept.get(name, np.nan) for name in table.index], float)
        axis.scatter(
            marks, at, marker="|", s=130, linewidths=2.2, color=COLOURS["arterial"], label="in what is decoded"
        )
        figure.legend(loc="outside upper right", ncols=2, fontsize=8, frameon=False, labelcolor=INK)
    axis.set_yticks(at, list(table["label"]))
    axis.set(xlim=(0, 1.08), ylim=(-0.6, len(table) - 0.4))
    axis.set_xlabel("R² on held-out windows", color=INK, fontsize=9)
    axis.set_title(heading, color=INK, fontsize=10, loc="left")
    plain(axis)
    return save(figure, path)


def information_chart(told: Information, path: str | Path | None = None, *, heading: str = "") -> Picture:
    """Draw how much each component of the code tells about each measure, as a share of what there is to tell."""
    shares = told.bits.to_numpy(float) / told.entropy.to_numpy()[:, None]
    rows, columns = shares.shape
    figure = Figure(figsize=(3.6 + 0.34 * columns, 1.6 + 0.27 * rows), dpi=DPI, facecolor=PAPER, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(shares, cmap=SCALE, vmin=0, vmax=max(float(shares.max()), 1e-6), aspect="auto")
    axis.set_yticks(range(rows), [about(str(name)).label for name in told.bits.index])
    axis.set_xticks(range(columns), list(told.bits.columns))
    axis.set_xlabel("principal component of the code", color=INK, fontsize=9)
    gaps = axis.secondary_yaxis("right")
    gaps.set_yticks(range(rows), [f"{gap:.2f}" for gap in told.gap])
    gaps.set_ylabel("mutual information gap", color=INK, fontsize=9)
    bar = figure.colorbar(drawn, ax=axis, shrink=0.8, pad=0.04)
    bar.set_label("share of the measure's entropy that is told", color=INK, fontsize=8.5)
    for part in (bar.ax, gaps):
        part.tick_params(colors=INK, labelsize=8)
    axis.set_title(heading, color=INK, fontsize=10, loc="left")
    plain(axis)
    return save(figure, path)
