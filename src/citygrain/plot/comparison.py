"""Charts of several places: each has its colour, `citygrain.plot.hue`, by the order in which places are named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from numpy.typing import ArrayLike

from citygrain.errors import DataError
from citygrain.plot.style import COLOURS, FAINT, INK, add_legend, hue, new_axes, new_figure, style_axes

BEARING_STEP = 10.0
"""Degrees that a bar of an orientation rose is wide."""

MODES = ("street", "cycle", "walk", "rail")
"""Channels whose colours the parts of a place have, in order."""


def show_orientations(bearings: Sequence[tuple[ArrayLike, ArrayLike]], titles: Sequence[str]) -> Figure:
    """Draw in which directions ways run, place beside place.

    Parameters
    ----------
    bearings
        For each place, bearings and weights as `show_orientation` takes them.
    titles
        One for each.

    Returns
    -------
    matplotlib.figure.Figure
        One rose for each place.
    """
    columns = min(len(titles), 4)
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(2.6 * columns, 3 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "polar"}).ravel()
    for ax in axes[len(titles) :]:
        ax.set_axis_off()
    for i, (ax, (degrees, weights), title) in enumerate(zip(axes, bearings, titles, strict=False)):
        show_orientation(degrees, weights, ax, title=title, colour=hue(i))
    return figure


def show_orientation(
    degrees: ArrayLike, weights: ArrayLike, ax: Axes | None = None, *, title: str = "", colour: str | None = None
) -> Axes:
    """Draw a rose of the directions in which ways run. A way counts in both of its directions.

    Parameters
    ----------
    degrees
        Bearings `(N,)` from north, clockwise.
    weights
        `(N,)`, such as lengths.
    ax
        Polar axes to draw into; None makes a figure.
    title
        Above the rose.
    colour
        Of the bars; None for that of the first place.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    rose: Any = ax  # matplotlib's types do not know what polar axes can do
    if rose is None:
        rose = new_figure(2.6, 3).subplots(subplot_kw={"projection": "polar"})
    edges = np.arange(360 / BEARING_STEP + 1) * BEARING_STEP - BEARING_STEP / 2  # the first bar lies about north
    both = np.concatenate([np.asarray(degrees, float), np.asarray(degrees, float) + 180]) % 360
    both = np.where(both >= edges[-1], both - 360, both)
    share = np.histogram(both, edges, weights=np.tile(np.asarray(weights, float), 2))[0]
    share /= max(share.sum(), 1e-12)
    middles, width = np.radians(edges[:-1] + BEARING_STEP / 2), np.radians(BEARING_STEP)
    # Roots, because people compare the areas of the bars and not their lengths.
    rose.bar(middles, np.sqrt(share), width=width, color=colour or hue(0), alpha=0.85)
    rose.set_theta_zero_location("N")
    rose.set_theta_direction(-1)
    rose.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"])
    rose.set_yticks([])
    rose.set_title(title, color=INK, fontsize=10)
    rose.set_facecolor("white")
    rose.tick_params(colors=INK, labelsize=8)
    rose.spines["polar"].set_color(FAINT)
    drawn: Axes = rose
    return drawn


def show_ranges(
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float, float]]]],
    places: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw for each measure where each place lies: three percentiles, every measure on its own scale.

    Parameters
    ----------
    rows
        Label of a measure, and place → a low, a middle and a high value. The lowest and the highest value of all
        places are the ends of the measure's scale.
    places
        In the order of their colours.
    ax
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    DataError
        For no rows.
    """
    if not rows:
        raise DataError("There is no measure to draw.")
    alone = ax is None
    ax = new_axes(8.6, 0.9 + (0.12 + 0.11 * len(places)) * len(rows)) if ax is None else ax
    for i, (_, spans) in enumerate(rows):
        values = np.array(list(spans.values()))
        low, scale = values.min(), max(float(np.ptp(values)), 1e-12)
        for k, place in enumerate(places):
            if place in spans:
                first, middle, last = ((v - low) / scale for v in spans[place])
                y = -i - (k - (len(places) - 1) / 2) * 0.7 / len(places)
                ax.plot([first, last], [y, y], color=hue(k), linewidth=2.2, alpha=0.5, solid_capstyle="round")
                ax.scatter([middle], [y], s=18, color=hue(k), zorder=3)
        for x, value, side in ((0, low, "left"), (1, low + scale, "right")):
            ax.text(x, -i + 0.42, f"{value:.3g}", ha=side, va="center", fontsize=6.5, color=FAINT)
    ax.set_yticks(-np.arange(len(rows)), [label for label, _ in rows])
    ax.set_xticks([])
    ax.set_ylim(-len(rows) + 0.4, 0.7)
    dots = [ax.scatter([], [], s=18, color=hue(k)) for k in range(len(places))]
    add_legend(ax, dots, places, alone=alone)
    return style_axes(ax)


def show_distributions(samples: Mapping[str, Mapping[str, ArrayLike]], places: Sequence[str]) -> Figure:
    """Draw how measures are distributed in each place, measure beside measure.

    Parameters
    ----------
    samples
        Label of a measure, and place → values, as `show_distribution` takes them.
    places
        In the order of their colours.

    Returns
    -------
    matplotlib.figure.Figure
        One axes for each measure.
    """
    columns = min(max(len(samples), 1), 3)
    rows = math.ceil(max(len(samples), 1) / columns)
    figure = new_figure(3.1 * columns, 2.3 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(samples) :]:
        ax.set_axis_off()
    lines: dict[str, Any] = {}
    for ax, (label, values) in zip(axes, samples.items(), strict=False):
        lines |= _draw_distribution(ax, values, places, label)
    if lines:
        add_legend(axes[0], list(lines.values()), list(lines), alone=True)
    return figure


def show_distribution(
    samples: Mapping[str, ArrayLike], places: Sequence[str], ax: Axes | None = None, *, label: str
) -> Axes:
    """Draw how a measure is distributed in each place, on a logarithmic scale.

    Parameters
    ----------
    samples
        Place → values `(N,)`; those that are 0 or less are left out.
    places
        In the order of their colours.
    ax
        Where to draw; None makes a figure.
    label
        What the values are, with their unit.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    alone = ax is None
    ax = new_axes(3.6, 2.6) if ax is None else ax
    lines = _draw_distribution(ax, samples, places, label)
    add_legend(ax, list(lines.values()), list(lines), alone=alone)
    return ax


def _draw_distribution(
    ax: Axes, samples: Mapping[str, ArrayLike], places: Sequence[str], label: str
) -> dict[str, StepPatch]:
    """Draw a line for each place that has values above 0, and return the lines."""
    arrays = {place: np.asarray(values, float) for place, values in samples.items()}
    positive = {place: values[values > 0] for place, values in arrays.items() if (values > 0).any()}
    lines = {}
    if positive:
        joined = np.concatenate(list(positive.values()))
        bins = np.geomspace(joined.min(), max(joined.max(), joined.min() * 1.01), 41)
        for place, values in positive.items():
            share = np.histogram(values, bins)[0] / len(values)
            lines[place] = ax.stairs(share, bins, color=hue(places.index(place)), linewidth=1.6, label=place)
        ax.set_xscale("log")
    ax.set_yticks([])
    style_axes(ax, xlabel=label)
    return lines


def show_shares(shares: Mapping[str, Sequence[float]], labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw what each place consists of, as bars of parts.

    Parameters
    ----------
    shares
        Place → its parts.
    labels
        Of the parts, which are those of the network by car, cycle, foot and rail.
    ax
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    alone = ax is None
    ax = new_axes(8.6, 1 + 0.34 * len(shares)) if ax is None else ax
    at = -np.arange(len(shares), dtype=float)
    left = np.zeros(len(shares))
    bars = []
    for mode, parts in zip(MODES, np.array(list(shares.values())).T, strict=True):
        bars.append(ax.barh(at, parts, left=left, color=COLOURS[mode], height=0.7))
        colour = "white" if mode in {"rail", "cycle"} else INK
        for y, x, part in zip(at, left, parts, strict=True):
            if part > 0.04:
                middle = float(x + part / 2)
                ax.text(middle, float(y), f"{part:.0%}", ha="center", va="center", fontsize=8, color=colour)
        left = left + parts
    ax.set_yticks(at, list(shares))
    ax.set_xticks([])
    ax.set_xlim(0, max(float(left.max()), 1e-12))
    add_legend(ax, bars, labels, alone=alone)
    return style_axes(ax)
