"""The pictures of a comparison's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from citygrain.evaluation.form import FORM
from citygrain.evaluation.separation import ComparedPlace, Comparison
from citygrain.measures import MEASURES
from citygrain.plot import (
    make_sheet,
    save_figure,
    show_distributions,
    show_orientations,
    show_place_map,
    show_ranges,
    show_shares,
)

SHARES = ("car_share", "cycle_share", "walk_share", "rail_share")
DISTRIBUTIONS = ("footprint_area", "nearest_building", "setback", "block_area", "drive_segment_length")

CHARTED = 24
"""Measures in the chart: those that separate the places best."""

EXAMPLES, PERCENTILES = 4, (10, 50, 90)
"""Measures of which windows are shown, and at which percentiles of a place."""

ALIKE = 0.7
"""Measures whose ranks correlate by more than this say the same."""


def draw_pictures(comparison: Comparison, places: Sequence[ComparedPlace], out: Path) -> None:
    """Draw what the page of a comparison shows.

    Parameters
    ----------
    comparison
        The figures.
    places
        The places with their windows.
    out
        Where the pictures go.
    """
    best = [m for m in comparison.measures if m.separation is not None]
    _draw_orientation(comparison, places, out / "orientation.png")
    charted = [(m.label, {name: (of.p10, of.p50, of.p90) for name, of in m.places.items()}) for m in best[:CHARTED]]
    save_figure(show_ranges(charted, comparison.places), out / "measures.png")
    pooled = {
        f"{FORM[name].label} [{FORM[name].unit}]": {
            p.name: p.windows.samples[name] for p in places if len(p.windows.samples.get(name, ()))
        }
        for name in DISTRIBUTIONS
        if name in FORM
    }
    there = {label: of for label, of in pooled.items() if of}
    save_figure(show_distributions(there, comparison.places), out / "distributions.png")
    mixes = {
        p.name: [float(np.mean(p.windows.values[name])) for name in SHARES]
        for p in places
        if all(name in p.windows.values for name in SHARES)
    }
    if mixes:
        save_figure(show_shares(mixes, [MEASURES[name].label for name in SHARES]), out / "modes.png")
    _draw_flow(comparison, places, out)
    _draw_examples(comparison, places, _distinct_measures(places, [m.name for m in best]), out)


def _draw_orientation(comparison: Comparison, places: Sequence[ComparedPlace], path: Path) -> None:
    bearings = [
        (p.windows.samples["drive_bearing"], p.windows.samples["drive_bearing_length"])
        for p in places
        if p.name in comparison.orientation
    ]
    if bearings:
        titles = [f"{name}\nφ = {of.order:.2f}" for name, of in comparison.orientation.items()]
        save_figure(show_orientations(bearings, titles), path)


def _draw_flow(comparison: Comparison, places: Sequence[ComparedPlace], out: Path) -> None:
    flows = {p.name: p.flow for p in places if p.flow is not None}
    highest = max((float(of.max()) for _, of in flows.values()), default=0.0)
    label = "built mass within reach on foot [ha]"
    for name, (where, of) in flows.items():
        drawn = show_place_map(where, of, comparison.window_m, label=label, title=name, top=highest)
        save_figure(drawn, out / f"people_flow_{name}.png")


def _draw_examples(comparison: Comparison, places: Sequence[ComparedPlace], measures: Sequence[str], out: Path) -> None:
    """Draw, for each place, its windows at some percentiles of some measures."""
    for p in places:
        index, titles = [], []
        for name in measures:
            values = p.windows.values.get(name, np.empty(0))
            about = FORM.get(name) or MEASURES[name]
            for q in PERCENTILES if np.isfinite(values).any() else ():
                index.append(int(np.nanargmin(np.abs(values - np.nanpercentile(values, q)))))
                titles.append(f"{about.label}, {q} %: {values[index[-1]]:.3g}")
        if index:
            examples = make_sheet(
                p.windows.chosen(index), p.channels, titles=titles, columns=len(PERCENTILES) * 2,
                resolution_m=comparison.resolution_m, heading=p.name,
            )  # fmt: skip
            save_figure(examples, out / f"examples_{p.name}.png")


def _distinct_measures(places: Sequence[ComparedPlace], names: Sequence[str]) -> list[str]:
    """Return the first measures that do not say what one before them says, by rank correlation over all windows."""
    chosen: list[str] = []
    for name in names:
        if len(chosen) == EXAMPLES:
            break
        of = [p.windows.values for p in places if all(key in p.windows.values for key in (name, *chosen))]
        columns = {key: np.concatenate([values[key] for values in of]) for key in (name, *chosen)} if of else {}
        alike = [abs(spearmanr(columns[name], columns[key], nan_policy="omit").statistic) for key in chosen if columns]
        if not any(rho > ALIKE for rho in alike):
            chosen.append(name)
    return chosen
