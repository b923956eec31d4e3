"""Pattern cards: for each measure a card with windows of real cities, and with a path that changes the measure.

Some measures capture a part of one of Christopher Alexander's patterns. Their cards name the pattern, and say what the
measure sees of it and what it does not see. No measure here sees how a place is used.

References
----------
Alexander, C., Ishikawa, S. & Silverstein, M. (1977). *A Pattern Language*. Oxford University Press.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from citygrain.errors import DataError
from citygrain.evaluation.pages import format_number, write_page
from citygrain.latent.codes import Codes
from citygrain.latent.directions import CodePath, Probes, fit_probes, measure_changes, traverse
from citygrain.latent.figures import draw_curves, draw_steps
from citygrain.latent.following import follow
from citygrain.latent.measuring import find_measure, label_measure
from citygrain.measures import measurable
from citygrain.plot import INK, save_figure, show_layout
from citygrain.plot.style import new_figure
from citygrain.protocols import Codec
from citygrain.support.console import show_progress_bar

ENDS = 0.05
"""Share of the windows that counts as an extreme: examples are taken from both extremes, and the path ends there."""

EXAMPLES, STEPS, STARTS = 7, 7, 12
"""How many windows of each extreme are shown; steps of the path; windows near the median that the path starts at."""

CURVES, LISTED = 4, 8
"""How many measures have a curve, and how many the page lists: the measure itself, and those that change most."""


@dataclass(frozen=True)
class Pattern:
    """One of Alexander's patterns, and the part of it that a measure sees.

    Parameters
    ----------
    number, name
        Number and name of the pattern in *A Pattern Language*.
    measure
        Name of the measure.
    sees, misses
        What the measure sees of the pattern, and what it does not see.
    """

    number: int
    name: str
    measure: str
    sees: str
    misses: str


PATTERNS: tuple[Pattern, ...] = tuple(
    Pattern(*row)
    for row in (
        (16, "Web of Public Transportation", "rail", "how much rail there is", "stops, lines, and how they join"),
        (22, "Nine Per Cent Parking", "parking", "the share of the ground that is mapped as parking",
         "kerbs, garages, and whether it is nine per cent everywhere"),
        (50, "T Junctions", "drive_three_way", "the share of junctions with three arms", "their angles"),
        (52, "Network of Paths and Cars", "walk", "how much way there is for people on foot",
         "whether it crosses the streets at right angles, midway between them"),
        (56, "Bike Paths and Racks", "cycle", "how much cycleway there is", "racks, and whether the paths connect"),
        (60, "Accessible Green", "green", "how much green there is", "how far everybody has to it"),
        (60, "Accessible Green", "open_patch", "how large the largest open ground is",
         "how far everybody has to it, and whether it may be entered"),
        (61, "Small Public Squares", "square", "how much of the ground is square", "whether each is small and alive"),
        (64, "Pools and Streams", "water", "how much open water there is", "whether one gets near it"),
        (100, "Pedestrian Street", "frontage", "that buildings stand at public ways", "doors, and who walks there"),
        (106, "Positive Outdoor Space", "openness", "whether streets have buildings along their sides",
         "the shape of the space between buildings, which is what the pattern is about"),
        (108, "Connected Buildings", "nearest_building", "how far buildings stand apart", "whether they share walls"),
        (115, "Courtyards Which Live", "courtyard_share", "how much courtyard buildings enclose",
         "doors, views out and all that keeps one alive"),
        (120, "Paths and Goals", "reach_400", "how much way lies within 400 m on foot", "the goals"),
        (122, "Building Fronts", "frontage", "how much building edge meets a public way", "how it is shaped there"),
        (122, "Building Fronts", "setback", "how far buildings stand back from the carriageway",
         "whether they slightly fill out the street's shape"),
        (160, "Building Edge", "frontage", "how much building edge meets a public way",
         "the edge as a place: its depth, seats and shelter"),
    )
)  # fmt: skip
"""The patterns that measures see a part of, by number. A measure may see a part of several patterns."""


@dataclass(frozen=True)
class PatternCard:
    """A card of one measure.

    Attributes
    ----------
    measure
        Name of the measure.
    patterns
        The patterns that the measure sees a part of.
    figure
        The card as a figure.
    path
        The path that changes the measure.
    changes
        How much every measure changes along the path, see `citygrain.latent.measure_changes`.
    r_squared
        R² of the linear probe of the measure on held-out windows.
    """

    measure: str
    patterns: tuple[Pattern, ...]
    figure: Figure = field(repr=False)
    path: CodePath = field(repr=False)
    changes: pd.DataFrame = field(repr=False)
    r_squared: float


def make_pattern_card(
    codec: Codec,
    measure: str,
    train: Codes,
    held_out: Codes,
    *,
    probes: Probes | None = None,
    hold: Sequence[str] = (),
) -> PatternCard:
    """Draw the card of a measure: real windows with little and much of it, and a decoded path between the two.

    The path starts at held-out windows near the median of the measure. It leads to the values below and above which
    `ENDS` of the held-out windows lie. A condition is changed by `citygrain.latent.follow`. Urban form has no gradient,
    so it is changed along the direction of its probe, relative to its value on the decoded start.

    Parameters
    ----------
    codec
        The codec of the codes.
    measure
        Name of a measure that was measured on both sets of windows.
    train, held_out
        Codes that directions are learned from, and codes of the windows that are shown and that paths start at.
    probes
        Probes that were fitted before; None fits them.
    hold
        Conditions that keep their value, if the measure is a condition.

    Raises
    ------
    DataError
        For a measure that was not measured, or that has no probe.
    """
    probes = probes or fit_probes(train, held_out)
    if measure not in probes.directions:
        raise DataError(
            f"There is no card of {measure}.",
            got=probes.left_out.get(measure, "not measured"),
            choices=list(probes.directions),
            remedy="forms=True, which measures urban form, too",
        )
    values = held_out.measured[measure]
    ranked = np.argsort(values)[: int(np.isfinite(values).sum())]  # NaN comes last
    low, middle, high = np.quantile(values[ranked], [ENDS, 0.5, 1 - ENDS])
    near = ranked[np.argsort(np.abs(values[ranked] - middle), kind="stable")[:STARTS]]
    positions = _space_positions(low - middle, high - middle)
    form = measure not in measurable(train.spec.channels)
    if form:
        along = f"requested change of {label_measure(measure)}"
        direction = probes.directions[measure]
        path = traverse(codec, held_out.codes[near], direction, positions, along=along, forms=True)
    else:
        path = follow(codec, held_out.codes[near], measure, positions, train, hold=hold)
    changes = measure_changes(path, probes.spread, measure)
    patterns = tuple(p for p in PATTERNS if p.measure == measure)
    count = max(EXAMPLES, round(ENDS * len(ranked)))
    ends = [
        part[np.linspace(0, len(part) - 1, EXAMPLES).round().astype(int)] for part in (ranked[:count], ranked[-count:])
    ]
    figure = _draw_card(measure, patterns, held_out, ends, path, list(changes.index[:CURVES]))
    return PatternCard(measure, patterns, figure, path, changes, probes.r_squared[measure])


def _space_positions(low: float, high: float) -> NDArray[np.float64]:
    """Return `STEPS` positions from `low` to `high`; 0 is one of them, and they are even on each side of it."""
    below = round((STEPS - 1) * max(-low, 0) / max(high - low, 1e-12))
    down, up = np.linspace(low, 0, below + 1), np.linspace(0, high, STEPS - below)
    return np.concatenate([down[:-1], up])


def _draw_card(
    measure: str,
    patterns: Sequence[Pattern],
    held_out: Codes,
    ends: Sequence[NDArray[np.int64]],
    path: CodePath,
    curves: Sequence[str],
) -> Figure:
    figure = new_figure(9.2, 8.8)
    names = dict.fromkeys(f"{p.number} {p.name}" for p in patterns)
    beside = f"   beside Alexander's {', '.join(names)}" if names else ""
    figure.suptitle(label_measure(measure) + beside, color=INK, fontsize=12, x=0.01, ha="left")
    parts: Any = figure.subfigures(4, 1, height_ratios=[1.7, 1.7, 3.2, 2.2])
    for part, index, which in zip(parts, ends, ("least", "most"), strict=False):
        _draw_examples(part, measure, held_out, index, f"windows with the {which} of it")
    parts[2].suptitle("decoded, from windows near the median", color=INK, fontsize=9, x=0.01, ha="left")
    draw_steps(parts[2], path, 2)
    draw_curves(parts[3], path, curves, columns=len(curves), target=measure)
    return figure


def _draw_examples(figure: SubFigure, measure: str, codes: Codes, index: NDArray[np.int64], heading: str) -> None:
    figure.suptitle(heading, color=INK, fontsize=9, x=0.01, ha="left")
    layouts = codes.layouts(index)
    axes = figure.subplots(1, len(index))
    for ax, layout, value in zip(axes, layouts, codes.measured[measure][index], strict=True):
        show_layout(layout, codes.spec.channels, ax)
        ax.set_xlabel(format_number(float(value), 2), color=INK, fontsize=8.5)


def write_pattern_cards(
    codec: Codec,
    measures: Sequence[str],
    train: Codes,
    held_out: Codes,
    folder: str | Path,
    *,
    hold: Sequence[str] = (),
) -> Path:
    """Draw a card of each measure, and write one page with all cards; the page holds its pictures.

    Parameters
    ----------
    codec
        The codec of the codes.
    measures
        Names of the measures.
    train, held_out
        See `make_pattern_card`.
    folder
        Where the page and the pictures are written.
    hold
        Conditions that keep their value, if the measure of a card is another condition.

    Returns
    -------
    Path
        `patterns.html` in the folder; beside it lies a PNG of each card.

    Raises
    ------
    DataError
        For a measure that was not measured, or that has no probe.
    """
    into = Path(folder)
    probes = fit_probes(train, held_out)
    cards = []
    with show_progress_bar("drawing cards", len(measures)) as advance:
        for name in measures:
            kept = [other for other in hold if other != name]
            cards.append(make_pattern_card(codec, name, train, held_out, probes=probes, hold=kept))
            save_figure(cards[-1].figure, into / f"{name}.png")
            advance(1)
    return write_page(
        into / "patterns.html",
        "citygrain.latent",
        "patterns",
        cards=[
            {
                "about": find_measure(card.measure),
                "patterns": card.patterns,
                "r_squared": card.r_squared,
                "picture": f"{card.measure}.png",
                "changes": card.changes.head(LISTED).to_dict("records"),
            }
            for card in cards
        ],
        places=[name.replace("_", " ") for name in held_out.spec.places],
        hold=[find_measure(name).label for name in hold],
    )
