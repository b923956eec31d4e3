"""What separates places, as typed values: measures in order, streets pooled, all of it in one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from citygrain.evaluation.effect import cliffs_delta, separation
from citygrain.evaluation.form import FORM, FormMeasure, find_bias
from citygrain.evaluation.gather import Gathered
from citygrain.evaluation.networks import orientation_entropy, orientation_order
from citygrain.evaluation.pages import TEMPLATES, render, write_page
from citygrain.measures import MEASURES, Measure
from citygrain.support.files import write_json, write_text
from citygrain.version import __version__

REPORT, PAGE, TABLE = "report.json", "report.html", "measures.csv"
"""Files of a comparison's folder."""

WORTH = 12
"""Measures that the screen and a notebook show; the table has all."""

SELDOM = 0.5
"""Share of a place's windows in which a measure may be undefined, until it comes after the others."""


@dataclass(frozen=True)
class ComparedPlace:
    """One place, real or generated, and all that is known of its windows.

    Attributes
    ----------
    name
        Of the place, or of the folder of generated layouts.
    channels
        That it knows.
    missing
        Channel → why it is not known.
    windows
        What was gathered.
    flow
        Eastings and northings `(M, 2)` of the middles of windows all over the place, and their people flow `(M,)`; None
        for generated layouts, and where it is not known.
    """

    name: str
    channels: tuple[str, ...]
    missing: Mapping[str, str]
    windows: Gathered
    flow: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class Spread:
    """How a measure is spread over the windows of one place.

    Attributes
    ----------
    n
        Windows that have something to measure.
    undefined
        Share of the windows that have nothing to measure.
    p10, p50, p90
        Percentiles of the others, in the measure's unit.
    """

    n: int
    undefined: float
    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class SeparatingMeasure:
    """How well one measure separates the places.

    Attributes
    ----------
    name, label, unit, formula
        Of the measure.
    bias
        What vectorising adds to it on average; None where that has not been measured.
    separation
        Share of the ranks' variance that lies between the places; None where only one of them has the measure.
    delta
        Cliff's delta of two places; None otherwise.
    places
        Place → how the measure is spread over its windows.
    """

    name: str
    label: str
    unit: str
    formula: str
    bias: float | None
    separation: float | None
    delta: float | None
    places: Mapping[str, Spread]

    @property
    def seldom(self) -> bool:
        """Whether more than half of the windows of any place have nothing to measure."""
        return any(of.undefined > SELDOM for of in self.places.values())


@dataclass(frozen=True)
class Orientation:
    """How the streets of a place lie.

    Attributes
    ----------
    entropy
        Of their bearings in nat, corrected for few ways.
    order
        φ: 1 for a grid, 0 where all directions are alike.
    ways
        How many were counted.
    """

    entropy: float
    order: float
    ways: int


@dataclass(frozen=True)
class Least:
    """What a window must have.

    Attributes
    ----------
    data
        Least share of it that has data.
    built
        Least share that is covered by the channels `of`.
    of
        The channels that count as built, which every place knows.
    """

    data: float
    built: float
    of: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What separates some places.

    Attributes
    ----------
    places
        Their names; generated ones come last.
    generated
        Those that are generated layouts.
    n
        Place → windows.
    missing
        Place → channel → why it is not known there.
    resolution_m, window_m
        Edge of a cell, and of a window, in metres.
    orientation
        Place → how its streets lie.
    measures
        The measures that any place has; those that separate the places best come first.
    note
        What a reader has to know about the channels; empty where there is nothing.
    least
        What a window must have.
    folder
        Where report, table and pictures lie.
    """

    places: tuple[str, ...]
    generated: tuple[str, ...]
    n: Mapping[str, int]
    missing: Mapping[str, Mapping[str, str]]
    resolution_m: float
    window_m: float
    orientation: Mapping[str, Orientation]
    measures: tuple[SeparatingMeasure, ...]
    note: str
    least: Least
    folder: Path | None = field(default=None, compare=False)

    def table(self) -> pd.DataFrame:
        """Return the content of `measures.csv`: a row a measure, those that separate the places best first.

        Columns are label, unit, separation, Cliff's delta and bias of the measure, and for each place `…_n`,
        `…_undefined`, `…_p10`, `…_p50` and `…_p90`, see `Spread`.
        """
        rows = {
            m.name: {
                "label": m.label,
                "unit": m.unit,
                "separation": m.separation,
                "cliffs_delta": m.delta,
                "bias": m.bias,
                **{f"{place}_{part}": value for place, of in m.places.items() for part, value in vars(of).items()},
            }
            for m in self.measures
        }
        columns = [f"{place}_{part}" for place in self.places for part in Spread.__dataclass_fields__]
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")
        table = table.reindex(columns=["label", "unit", "separation", "cliffs_delta", "bias", *columns])
        return table.astype(dict.fromkeys(table.columns[2:], float))

    def write(self, folder: Path) -> None:
        """Write `report.json`, `measures.csv`, and `report.html` with the pictures that lie in the folder."""
        write_text(folder / TABLE, self.table().to_csv(float_format="%.6g", lineterminator="\r\n"))
        content = {name: value for name, value in vars(self).items() if name != "folder"}
        write_json(folder / REPORT, content)
        write_page(folder / PAGE, TEMPLATES, "comparison", report=self, version=__version__)

    def __repr__(self) -> str:
        """Say what is compared, and not every number."""
        return f"Comparison({', '.join(f'{n} windows of {place}' for place, n in self.n.items())})"

    def _repr_html_(self) -> str:
        """Show the measures that separate the places best in a notebook."""
        return render(TEMPLATES, "notebook_comparison", report=self, worth=WORTH)


def rank_measures(places: Sequence[ComparedPlace], resolution_m: float) -> tuple[SeparatingMeasure, ...]:
    """Return every measure that any of the places has, those that separate the places best first.

    A measure that more than half of a place's windows have nothing of comes after the others: circuity of cycle tracks,
    where few windows have any, would compare the odd windows of one place with the usual ones of another. A measure
    that only one place has comes last.

    Parameters
    ----------
    places
        With their windows.
    resolution_m
        Edge of a cell.
    """
    measures = []
    every: dict[str, Measure | FormMeasure] = {**MEASURES, **FORM}
    forms = {p.name: p.windows.values for p in places}  # noqa: PD011 - no values of a table
    for name, about in every.items():
        values = {place: form[name] for place, form in forms.items() if name in form}
        defined = {place: v[np.isfinite(v)] for place, v in values.items()}
        known = {place: v for place, v in defined.items() if len(v)}
        if not known:
            continue
        spread = {
            place: Spread(
                n=len(v),
                undefined=float(1 - len(v) / len(values[place])),
                p10=float(np.percentile(v, 10)),
                p50=float(np.percentile(v, 50)),
                p90=float(np.percentile(v, 90)),
            )
            for place, v in known.items()
        }
        measures.append(
            SeparatingMeasure(
                name=name,
                label=about.label,
                unit=about.unit,
                formula=about.formula,
                bias=find_bias(name, resolution_m),
                separation=separation(list(known.values())) if len(known) > 1 else None,
                delta=cliffs_delta(*known.values()) if len(known) == len(places) == 2 else None,
                places=spread,
            )
        )
    return tuple(sorted(measures, key=lambda m: (m.separation is None, m.seldom, -(m.separation or 0.0))))


def pool_orientation(places: Sequence[ComparedPlace]) -> dict[str, Orientation]:
    """Return how the streets of each place lie, those of all its windows together; nothing for a place without any."""
    found = {}
    for p in places:
        if len(p.windows.samples.get("drive_bearing", ())):
            bearing, length = (p.windows.samples[f"drive_{part}"] for part in ("bearing", "bearing_length"))
            entropy = orientation_entropy(bearing, length, corrected=True)
            found[p.name] = Orientation(entropy, orientation_order(entropy), len(bearing))
    return found
