"""How good the ways of layouts are: ways alone, beside real windows of the same place.

Three sets of layouts are compared: held-out windows (`real`), other real windows (`other`), which say how far real
windows are from each other, and layouts (`drawn`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from citygrain.evaluation.distribution import wasserstein
from citygrain.evaluation.effect import cliffs_delta
from citygrain.evaluation.form import DRIVE, FORM
from citygrain.evaluation.gather import PART, Cells, Gathered, coarsen
from citygrain.evaluation.key_points import COMPARED, KEY_POINTS, compare_key_points
from citygrain.evaluation.memorisation import find_nearest, judge_copies
from citygrain.evaluation.two_sample import judge_samples
from citygrain.geo.vectorize import WITH_SERVICE
from citygrain.measures import MEASURES

REAL, OTHER, DRAWN = SETS = ("real", "other", "drawn")

SHOWN = (
    "drive_largest_component", "drive_dead_ends", "drive_four_way", "drive_orientation_order", "block_perimeter",
    "drive_segment_length", "drive_mean_degree", "drive_length_density", "drive_circuity",
)  # fmt: skip
"""Measures of form whose medians are compared."""

NEAR = 2.0
"""Multiples of the floor up to which a measure is near."""

Arrays = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Figure:
    """One figure of three sets; NaN where it has none of a set.

    Attributes
    ----------
    real, other, drawn
        Of held-out windows, of other real windows, and of layouts.
    """

    real: float
    other: float
    drawn: float

    @property
    def share(self) -> float:
        """The figure of the layouts as a share of that of held-out windows; NaN where there is none."""
        return self.drawn / self.real if self.real > 0 else math.nan


@dataclass(frozen=True)
class WaySets:
    """Three sets of layouts of ways, measured by `citygrain.evaluation.key_points.measure_ways`.

    Attributes
    ----------
    name
        Of the place, or of several together.
    channels
        Of the layouts.
    cells
        Set → `(N, C, H, W)`, 0–255.
    values, samples
        Set → what was measured, see `citygrain.evaluation.gather.Gathered`.
    searched
        `(M, C, h, h)` coarse pictures of training windows, which are searched for copies.
    """

    name: str
    channels: tuple[str, ...]
    cells: Mapping[str, Cells]
    values: Mapping[str, Arrays]
    samples: Mapping[str, Arrays]
    searched: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        name: str,
        channels: Sequence[str],
        cells: Mapping[str, Cells],
        measured: Mapping[str, Gathered],
        searched: NDArray[np.float32],
    ) -> WaySets:
        """Make the sets of layouts that were gathered."""
        values = {which: of.values for which, of in measured.items()}
        samples = {which: of.samples for which, of in measured.items()}
        return cls(name, tuple(channels), cells, values, samples, searched)

    @classmethod
    def join(cls, name: str, places: Sequence[WaySets]) -> WaySets:
        """Join the sets of several places, with the channels and measures that all of them have."""
        channels = tuple(c for c in places[0].channels if all(c in place.channels for place in places))

        def joined(parts: Sequence[Arrays]) -> dict[str, NDArray[np.float64]]:
            names = [name for name in parts[0] if all(name in part for part in parts)]
            return {name: np.concatenate([part[name] for part in parts]) for name in names}

        return cls(
            name,
            channels,
            {which: np.concatenate([place.select(which, channels) for place in places]) for which in SETS},
            {which: joined([place.values[which] for place in places]) for which in SETS},
            {which: joined([place.samples[which] for place in places]) for which in SETS},
            np.concatenate([place.searched[:, place.find(channels)] for place in places]),
        )

    def find(self, channels: Sequence[str]) -> list[int]:
        """Return where some channels stand."""
        return [self.channels.index(name) for name in channels]

    def select(self, which: str, channels: Sequence[str]) -> Cells:
        """Return some channels of a set."""
        selected: Cells = self.cells[which][:, self.find(channels)]
        return selected


def judge_by_classifier(made: Cells, real: Cells) -> float:
    """Return how often a network is right about which of two sets of layouts is which."""
    return judge_samples(made, real).accuracy


def judge_ways(sets: WaySets, tell_apart: Callable[[Cells, Cells], float] = judge_by_classifier) -> dict[str, Figure]:
    """Compare the ways of layouts with those of real windows: name of a figure → the figure of each set.

    Parameters
    ----------
    sets
        The layouts.
    tell_apart
        Tells how often it is found out which of two sets is which.
    """
    figures: dict[str, Figure] = {}
    shown = {"arterial and street": DRIVE, "all ways": sets.channels}
    if "service" in sets.channels:
        shown["arterial, street and service"] = WITH_SERVICE["drive"]
    for label, names in shown.items():
        real, other, drawn = (sets.select(which, names) for which in SETS)
        figures[f"told apart, {label}"] = Figure(math.nan, tell_apart(other, real), tell_apart(drawn, real))
    for name in (*SHOWN, *(f"drive_{name}" for name in KEY_POINTS)):
        about = FORM.get(name) or KEY_POINTS[name.removeprefix("drive_")]
        medians = (find_median(sets.values[which][name]) for which in SETS)
        figures[f"{about.label} [{about.unit}]"] = Figure(*medians)
    times = np.array(list(list_times_floor(sets).values()))
    middle = float(np.median(times)) if len(times) else math.nan
    figures["median of all measures × floor"] = Figure(math.nan, 1.0, middle)
    figures["measures within twice the floor"] = Figure(math.nan, len(times), int((times <= NEAR).sum()))
    others, points = (compare_key_points(sets.samples[which], sets.samples[REAL]) for which in (OTHER, DRAWN))
    figures |= {f"Fréchet distance of {name}": Figure(math.nan, others[name], points[name]) for name in COMPARED}
    parts = [sets.searched[i : i + PART] for i in range(0, len(sets.searched), PART)]
    near_real, near = (find_nearest(_coarse(sets.cells[which]), parts) for which in (REAL, DRAWN))
    copies = judge_copies(near, near_real, len(sets.searched))
    figures["nearer to a training window than 1 % of real ones"] = Figure(
        copies.expected, math.nan, copies.share_closer
    )
    median = copies.median_distance
    figures["distance of the nearest training window"] = Figure(median["real"], math.nan, median["generated"])
    return figures


@dataclass(frozen=True)
class Contrast:
    """How one measure separates two places, among held-out windows and among layouts.

    Attributes
    ----------
    label, unit
        Of the measure.
    real, drawn
        Cliff's delta (`citygrain.evaluation.effect.cliffs_delta`): 1 where every value of the second place is larger
        than every one of the first, −1 where it is smaller, 0 where neither tends to be larger.
    """

    label: str
    unit: str
    real: float
    drawn: float


def contrast_places(first: WaySets, second: WaySets) -> list[Contrast]:
    """Return how each measure separates two places, those first that separate their held-out windows best."""
    found = []
    for name in first.values[REAL]:
        about = FORM.get(name) or MEASURES.get(name)
        if about is None or name not in second.values[REAL]:
            continue
        pairs = [[_known(sets.values[which][name]) for sets in (first, second)] for which in (REAL, DRAWN)]
        if all(len(values) for pair in pairs for values in pair):
            real, drawn = (cliffs_delta(*pair) for pair in pairs)
            found.append(Contrast(about.label, about.unit, real, drawn))
    return sorted(found, key=lambda one: -abs(one.real))


def find_median(values: NDArray[np.float64]) -> float:
    """Return the median of the layouts that have something to measure; NaN where none has."""
    return float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan


def list_times_floor(sets: WaySets) -> dict[str, float]:
    """Return how far layouts are from held-out windows in each measure, in multiples of the other real windows.

    The distances are those of Wasserstein. Measures that are the same in all held-out windows are left out, and those
    in which the other real windows are no different.
    """
    times = {}
    for name, real in sets.values[REAL].items():
        if name not in FORM and name not in MEASURES:
            continue
        if not (np.isfinite(real).any() and np.nanstd(real) > 0):
            continue
        drawn, other = (wasserstein(sets.values[which][name], real, resamples=0).value for which in (DRAWN, OTHER))
        if other > 0 and math.isfinite(drawn):
            times[name] = drawn / other
    return times


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known: NDArray[np.float64] = values[np.isfinite(values)]
    return known


def _coarse(cells: Cells) -> NDArray[np.float32]:
    return coarsen(torch.from_numpy(np.divide(cells, 255, dtype=np.float32)))
