"""Charts of one model: what was requested and what was measured, distances to real layouts, and how it learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from citygrain.errors import DataError
from citygrain.measures import MEASURES
from citygrain.networks.frame import FRAME
from citygrain.plot.style import COLOURS, FAINT, INK, new_axes, new_figure, style_axes

DOTS = "#4a7ba6"
"""Colour of single layouts."""


def r_squared(requested: ArrayLike, measured: ArrayLike) -> float:
    """Share of the measured values' variance that the requests explain: 1 − Σ(m − r)² / Σ(m − mean m)².

    The line is *measured = requested*, not a fitted one, so that a bias costs. Requests that are farther off than the
    mean of the measured values have a negative R². NaN where the measured values do not vary.
    """
    asked, got = np.asarray(requested, float), np.asarray(measured, float)
    spread = float(((got - got.mean()) ** 2).sum())
    return 1 - float(((got - asked) ** 2).sum()) / spread if spread > 0 else math.nan


def show_requests(requested: Mapping[str, ArrayLike], measured: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Draw what was measured against what was requested, condition beside condition.

    Parameters
    ----------
    requested, measured
        Condition → `(N,)` values in its unit, layout by layout.
    title
        One line above everything.

    Returns
    -------
    matplotlib.figure.Figure
        One axes for each condition, see `show_request`.

    Raises
    ------
    DataError
        For no condition, or values that do not pair up.
    """
    if not requested:
        raise DataError("There is nothing to compare: no condition was asked for.")
    columns = min(len(requested), 4)
    rows = math.ceil(len(requested) / columns)
    figure = new_figure(3.3 * columns, 3.8 * rows + (0.45 if title else 0.1))
    if title:
        figure.suptitle(title, color=INK, fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(requested) :]:
        ax.set_axis_off()
    for i, (ax, (name, values)) in enumerate(zip(axes, requested.items(), strict=False)):
        show_request(name, values, measured.get(name, ()), ax)
        if i % columns:
            ax.set_ylabel("")
    return figure


def show_request(name: str, requested: ArrayLike, measured: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw what was measured against what was requested: every layout, and the mean of each level that was requested.

    Parameters
    ----------
    name
        Of the condition.
    requested, measured
        `(N,)` in its unit, layout by layout.
    ax
        Where to draw; None makes a figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    DataError
        For values that do not pair up.
    """
    asked, got = (np.asarray(values, float).ravel() for values in (requested, measured))
    if asked.shape != got.shape or not asked.size:
        raise DataError(f"Requested and measured {name} do not pair up.", expected=asked.shape, got=got.shape)
    ax = new_axes(3.3, 3.9) if ax is None else ax
    both = np.concatenate([asked, got])
    low, high = float(min(both.min(), 0)), float(both.max()) * 1.06 or 1.0
    ax.plot([low, high], [low, high], color=FAINT, linewidth=1.2, zorder=1)
    _draw_levels(ax, asked, got, high - low)
    score = r_squared(asked, got)
    ax.set_title(_label(name), color=INK, fontsize=10, pad=18)
    note = f"n = {asked.size}" + ("" if math.isnan(score) else f"    R² = {score:.2f}")
    ax.text(0.5, 1.03, note, transform=ax.transAxes, ha="center", color=INK, fontsize=8.5)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    return style_axes(ax, xlabel="requested", ylabel="measured")


def _draw_levels(ax: Axes, asked: NDArray[np.float64], got: NDArray[np.float64], width: float) -> None:
    """Draw a dot for each layout. Where several were asked for the same, spread them a little, and draw their mean."""
    levels, level = np.unique(asked, return_inverse=True)
    repeated = len(levels) < asked.size
    jitter = np.random.default_rng(0).uniform(-1, 1, asked.size) * (0.012 * width if repeated else 0)
    ax.scatter(asked + jitter, got, s=9, color=DOTS, alpha=0.45, linewidths=0, zorder=2)
    if repeated:
        means = np.bincount(level, got) / np.bincount(level)
        ax.plot(levels, means, color=COLOURS["arterial"], linewidth=1.4, marker="o", markersize=6, zorder=3)


def _label(name: str) -> str:
    measure = {**MEASURES, **FRAME}.get(name)
    if measure is None:
        return name
    return measure.label + (f" [{measure.unit}]" if measure.unit not in {"", "–"} else "")


def show_distances(rows: Sequence[tuple[str, float, float, float]], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw how far generated layouts are from real ones, between the floor and the ceiling of each measure.

    Parameters
    ----------
    rows
        Label of a measure, its distance, its floor (real against real) and its ceiling (tiles shuffled), all in
        standard deviations.
    ax
        Where to draw; None makes a figure.
    title
        One line above.

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
        raise DataError("There is no distance to draw.")
    ax = new_axes(8.6, 1.1 + 0.24 * len(rows)) if ax is None else ax
    at = np.arange(len(rows))[::-1]
    value, floor, ceiling = np.array([row[1:] for row in rows], float).T
    ax.hlines(at, np.fmin(floor, value), np.fmax(floor, value), color=FAINT, linewidth=2.5, zorder=1)
    ax.scatter(ceiling, at, marker="|", s=60, color=FAINT, linewidths=2, label="tiles shuffled", zorder=2)
    ax.scatter(floor, at, marker="|", s=90, color=INK, linewidths=2, label="real against real", zorder=3)
    ax.scatter(value, at, s=26, color=COLOURS["arterial"], label="generated against real", zorder=4)
    ax.set_yticks(at, [row[0] for row in rows])
    ax.set_xlim(left=0)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.legend(loc="lower right", fontsize=8, frameon=False, labelcolor=INK)
    return style_axes(ax, title=title, xlabel="Wasserstein distance in standard deviations")


def show_histograms(
    samples: Mapping[str, ArrayLike],
    ax: Axes | None = None,
    *,
    label: str,
    mark: float | None = None,
    title: str = "",
) -> Axes:
    """Draw the distributions of samples over each other.

    Parameters
    ----------
    samples
        Name → `(N,)` values; those that are no numbers are left out.
    ax
        Where to draw; None makes a figure.
    label
        What the values are, with their unit.
    mark
        A value to mark by a line.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    ax = new_axes(6.4, 2.8) if ax is None else ax
    values = {name: np.asarray(sample, float) for name, sample in samples.items()}
    values = {name: sample[np.isfinite(sample)] for name, sample in values.items()}
    bins = np.histogram_bin_edges(np.concatenate(list(values.values())), 40).tolist()
    for (name, sample), colour in zip(values.items(), ("arterial", "water", "green", "building"), strict=False):
        ax.hist(sample, bins, density=True, alpha=0.55, color=COLOURS[colour], label=f"{name} (n = {len(sample)})")
    if mark is not None:
        ax.axvline(mark, color=INK, linewidth=1.2, linestyle="--")
    ax.set_yticks([])
    ax.legend(fontsize=8, frameon=False, labelcolor=INK)
    return style_axes(ax, title=title, xlabel=label)


def show_stages(stages: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]]) -> Figure:
    """Draw how losses fell in training, stage beside stage.

    Parameters
    ----------
    stages
        Stage → its losses, as `show_losses` takes them.

    Returns
    -------
    matplotlib.figure.Figure
        One axes for each stage.
    """
    figure = new_figure(4.3 * len(stages), 2.8)
    axes = figure.subplots(1, len(stages), squeeze=False).ravel()
    for ax, (stage, losses) in zip(axes, stages.items(), strict=True):
        show_losses(losses, ax, title=stage)
    for ax in axes[1:]:
        ax.set_ylabel("")
    return figure


def show_losses(losses: Mapping[str, Mapping[str, ArrayLike]], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw how losses fell in training.

    Parameters
    ----------
    losses
        Name → `step` and `loss`, `(N,)` each: of the training and, where there are any, of held-out windows.
    ax
        Where to draw; None makes a figure.
    title
        One line above.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.
    """
    ax = new_axes(4.3, 2.8) if ax is None else ax
    for (name, points), colour in zip(losses.items(), (FAINT, COLOURS["arterial"]), strict=False):
        ax.plot(points["step"], points["loss"], color=colour, linewidth=1.4, label=name)
    ax.legend(fontsize=8, frameon=False, labelcolor=INK)
    return style_axes(ax, title=title, xlabel="step", ylabel="loss")
