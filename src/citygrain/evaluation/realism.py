"""Realism: how far generated layouts are from real ones, in every measure and in the embedding, and where they fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citygrain.evaluation.distribution import Distance, frechet, kernel, overlap, wasserstein
from citygrain.evaluation.form import FORM, find_bias
from citygrain.evaluation.gather import Gathered
from citygrain.evaluation.sets import Sets
from citygrain.geo.vectorize import NETWORKS
from citygrain.measures import MEASURES
from citygrain.spec import LayoutSpec

FAILURES = 3
"""Measures that a model fails worst at, whose layouts are shown."""

TYPICAL = 4
"""Layouts of a set that are shown for a failure."""

Metrics = Mapping[str, float]
"""Metric in the embedding → value: `frechet`, `kernel`, `precision`, `recall`, `density`, `coverage`."""


@dataclass(frozen=True)
class MeasureDistance:
    """How far three sets of layouts are from held-out windows in one measure.

    Attributes
    ----------
    label, unit
        For axes and tables.
    group
        What the measure is about.
    spread
        Standard deviation over the held-out windows.
    bias
        What vectorising adds to the measure on average; None where that has not been measured.
    generated, floor, ceiling
        Distance of each set, see `citygrain.evaluation.sets.Sets`.
    times_floor
        Distance of the generated layouts in multiples of the floor; NaN where the floor is 0.
    """

    label: str
    unit: str
    group: str
    spread: float
    bias: float | None
    generated: Distance
    floor: Distance
    ceiling: Distance
    times_floor: float


@dataclass(frozen=True)
class EmbeddingMetrics:
    """Metrics of three sets of layouts against held-out windows, in the embedding."""

    generated: Metrics
    floor: Metrics
    ceiling: Metrics


@dataclass(frozen=True)
class Realism:
    """How far generated layouts are from real ones.

    Attributes
    ----------
    measures
        Measure → distances, conditions first.
    not_compared
        Measure → why it tells nothing of these windows.
    embedding
        Metrics in the embedding.
    """

    measures: Mapping[str, MeasureDistance]
    not_compared: Mapping[str, str]
    embedding: EmbeddingMetrics


@dataclass(frozen=True)
class Typical:
    """The layouts of a set that are typical in a measure.

    Attributes
    ----------
    median
        Of the set, in the measure's unit.
    typical
        Positions of the layouts whose value is nearest to it.
    """

    median: float
    typical: tuple[int, ...]


@dataclass(frozen=True)
class Failure:
    """A measure in which generated layouts are far from real ones.

    Attributes
    ----------
    measure, label, unit
        Which one.
    times_floor
        Distance of the generated layouts in multiples of the floor.
    real, generated
        What is typical of held-out windows, and of generated layouts.
    """

    measure: str
    label: str
    unit: str
    times_floor: float
    real: Typical
    generated: Typical


def compare_sets(sets: Sets, spec: LayoutSpec, *, bootstrap: int, seed: int) -> Realism:
    """Return how far each set is from the real one.

    Parameters
    ----------
    sets
        The layouts.
    spec
        Of the generator: measures of given channels alone are not compared.
    bootstrap
        Resamples behind the interval of each distance.
    seed
        Of the resamples.
    """
    real = sets.real.values
    measures: dict[str, MeasureDistance] = {}
    not_compared: dict[str, str] = {}
    for name, values in real.items():
        about = FORM.get(name) or MEASURES[name]
        if set(about.channels) <= set(spec.given):
            continue  # settled by what is given
        spread = float(np.nanstd(values)) if np.isfinite(values).any() else math.nan
        if not spread > 0:
            not_compared[name] = "the same in all held-out windows" if spread == 0 else "in no held-out window"
            continue
        generated, floor, ceiling = (
            wasserstein(of.values[name], values, resamples=bootstrap, seed=seed)
            for of in (sets.generated, sets.floor, sets.ceiling)
        )
        measures[name] = MeasureDistance(
            label=about.label,
            unit=about.unit,
            group=getattr(about, "group", "conditions"),
            spread=spread,
            bias=find_bias(name, spec.resolution_m),
            generated=generated,
            floor=floor,
            ceiling=ceiling,
            times_floor=generated.value / floor.value if floor.value > 0 else math.nan,
        )
    generated_in, floor_in, ceiling_in = (
        compare_points(of, sets.real, seed) for of in (sets.generated, sets.floor, sets.ceiling)
    )
    return Realism(measures, not_compared, EmbeddingMetrics(generated_in, floor_in, ceiling_in))


def compare_points(of: Gathered, real: Gathered, seed: int) -> dict[str, float]:
    """Return every metric of a set against the held-out windows, in the embedding."""
    return {
        "frechet": frechet(of.points, real.points),
        "kernel": kernel(of.points, real.points, seed=seed),
        **overlap(of.points, real.points),
    }


def find_failures(sets: Sets, measures: Mapping[str, MeasureDistance]) -> tuple[Failure, ...]:
    """Return the measures that are farthest off, in multiples of the floor, one of each group, and typical layouts.

    The networks are one group, for one that is in pieces is so in every measure. Typical layouts of a set are those
    whose value is nearest to its median: they show what is wrong, not what may go wrong.
    """
    far = {name: m.times_floor for name, m in measures.items() if m.times_floor > 1}  # NaN is not
    worst: dict[str, str] = {}
    for name in sorted(far, key=lambda name: -far[name]):
        group = measures[name].group
        worst.setdefault("networks" if group in NETWORKS else group, name)
    return tuple(
        Failure(
            measure=name,
            label=measures[name].label,
            unit=measures[name].unit,
            times_floor=far[name],
            real=_typical(sets.real.values[name]),
            generated=_typical(sets.generated.values[name]),
        )
        for name in list(worst.values())[:FAILURES]
    )


def _typical(values: NDArray[np.float64]) -> Typical:
    median = float(np.nanmedian(values))
    return Typical(median, tuple(np.argsort(np.abs(values - median))[:TYPICAL].tolist()))
