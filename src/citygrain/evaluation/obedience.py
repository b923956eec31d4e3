"""Obedience: one condition after another is asked for at rising levels, and measured on the layouts that were drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from citygrain.data.datamodule import CityDataModule
from citygrain.evaluation.gather import PART, Arrays, keep_arrays
from citygrain.evaluation.options import Obedience
from citygrain.evaluation.sets import Drawing, request
from citygrain.evaluation.view import View
from citygrain.layouts import Layouts
from citygrain.networks.frame import FRAME, find_condition, is_settled
from citygrain.plot import r_squared
from citygrain.spec import LayoutSpec
from citygrain.support.console import show_progress_bar

POOL = 2048
"""Training windows that retrieval answers with."""

Values = Mapping[str, NDArray[np.float64]]
"""Measure → `(N,)` in its unit."""


@dataclass(frozen=True)
class Sweep:
    """One condition, asked for at some levels, and all that was measured on the layouts that came.

    Attributes
    ----------
    name
        The condition.
    asked
        `(N,)` in its unit, level after level.
    measured
        Every measure on the same N layouts, the condition among them.
    """

    name: str
    asked: NDArray[np.float64]
    measured: Values

    @property
    def slope(self) -> float:
        """Slope of the best straight line through measured against asked: 1 is obedience, 0 is none."""
        return float(np.polyfit(self.asked, self.measured[self.name], 1)[0])

    @property
    def r_squared(self) -> float:
        """R² about the line measured = asked, see `citygrain.plot.r_squared`."""
        return r_squared(self.asked, self.measured[self.name])

    @property
    def mae(self) -> float:
        """Mean absolute error in the condition's unit."""
        return float(np.abs(self.measured[self.name] - self.asked).mean())

    def drift(self, spec: LayoutSpec) -> float:
        """How far the other conditions move from the lowest to the highest level, in standard deviations.

        It is the mean, over the other conditions, of how far their mean changes. Some of it is no fault: where there
        are more buildings there is less green. Compare with the drift of real windows of these levels (*retrieval*).
        """
        low, high = self.asked == self.asked.min(), self.asked == self.asked.max()
        moved = [
            abs(float(values[high].mean() - values[low].mean())) / spread
            for name, values in self.measured.items()
            if name != self.name and name in spec.scalars and (spread := spec.spread(name)) > 0
        ]
        return float(np.mean(moved)) if moved else math.nan

    def fit(self, spec: LayoutSpec) -> Fit:
        """Return the figures of the sweep."""
        return Fit(self.slope, self.r_squared, self.mae, self.drift(spec))


@dataclass(frozen=True)
class Fit:
    """How well one sweep was answered, see `Sweep`."""

    slope: float
    r2: float
    mae: float
    drift: float


@dataclass(frozen=True)
class Answers:
    """One sweep of a condition, answered in several ways.

    Attributes
    ----------
    model
        By layouts that the model drew.
    retrieval
        By the real training windows that come nearest: what a library of windows could do.
    unconditional
        By layouts that the model drew without being asked for anything.
    corrected
        By the nearest of several attempts of the model; None where one attempt was made.
    """

    model: Sweep
    retrieval: Sweep
    unconditional: Sweep
    corrected: Sweep | None = None


@dataclass(frozen=True)
class Obeyed:
    """How well one condition is obeyed.

    Attributes
    ----------
    unit, label
        Of the condition, for tables.
    n
        Layouts of a sweep.
    seed
        Layout *i* was drawn with `seed` + *i*.
    attempts
        How many were made at each layout where the answer was corrected.
    model, retrieval, unconditional, corrected
        How well each answered, see `Answers`.
    """

    unit: str
    label: str
    n: int
    seed: int
    attempts: int
    model: Fit
    retrieval: Fit
    unconditional: Fit
    corrected: Fit | None = None


def space_levels(spec: LayoutSpec, name: str, count: int, low: float = 10, high: float = 90) -> NDArray[np.float64]:
    """Return evenly spaced values of a condition between two percentiles of the training windows, in its unit."""
    return np.linspace(spec.quantile(name, low), spec.quantile(name, high), count)


def ask_levels(name: str, asked: ArrayLike, each: int, draw: Callable[[Values], Values]) -> Sweep:
    """Ask for each level of a condition, and measure the layouts that are drawn.

    Parameters
    ----------
    name
        The condition.
    asked
        Levels in its unit.
    each
        Layouts of each level.
    draw
        Draws N layouts for what is asked of them, condition → `(N,)`, and returns every measure of them.
    """
    values = np.repeat(np.asarray(asked, float), each)
    return Sweep(name, values, draw({name: values}))


def retrieve_windows(name: str, asked: ArrayLike, each: int, pool: Values) -> Sweep:
    """Answer with real windows (the *retrieval* baseline): for each level, those whose measure is nearest to it.

    Parameters
    ----------
    name, asked, each
        As for `ask_levels`.
    pool
        Measures of the real windows.
    """
    values = np.asarray(asked, float)
    chosen = np.concatenate([np.argsort(np.abs(pool[name] - level), kind="stable")[:each] for level in values])
    return Sweep(name, np.repeat(values, len(chosen) // len(values)), {k: v[chosen] for k, v in pool.items()})


def list_sweepable(spec: LayoutSpec, names: Sequence[str] | None = None) -> list[str]:
    """Return the conditions that can be swept: training windows differ in them, and given channels do not settle them.

    Parameters
    ----------
    spec
        Of the generator.
    names
        Some of its scalars; None for all.
    """
    return [
        name
        for name in (spec.scalars if names is None else names)
        if not is_settled(name, spec.given) and spec.quantile(name, 90) > spec.quantile(name, 10)
    ]


def sweep_conditions(
    drawing: Drawing,
    training: CityDataModule,
    windows: CityDataModule,
    folder: Path,
    wanted: Obedience,
    view: View,
    *,
    against: str,
    seed: int,
) -> dict[str, Answers]:
    """Sweep every condition; answer each sweep with real windows too, and with layouts that are asked for nothing.

    Parameters
    ----------
    drawing
        Draws the layouts.
    training
        Where the windows lie that retrieval answers with.
    windows
        Where the held-out windows lie whose given channels are drawn on.
    folder
        Where answers are kept.
    wanted
        Conditions, levels, and how many layouts.
    view
        How judges see layouts: conditions that they do not see are not swept.
    against
        Which of the windows are held out.
    seed
        Layout *i* of a sweep is drawn with `seed` + *i*.
    """
    spec = drawing.generator.spec
    pool = _measure_pool(training, view)
    n = wanted.levels * wanted.each
    seeds = range(seed, seed + n)
    held_out = windows.batch(against, [i % len(windows.windows(against)) for i in range(n)])

    def measured(asked: Values, attempts: int) -> Arrays:
        conditions = request(spec, held_out, {name: torch.from_numpy(values) for name, values in asked.items()})
        found = view.show(drawing.draw(conditions, seeds, attempts)).measured
        return {name: found[name] for name in view.seen.scalars}

    def drawn(asked: Values, attempts: int = 1) -> Arrays:
        of = [*asked, str(wanted.levels), str(wanted.each), *(f"{p:g}" for p in wanted.between)]
        tried = [f"attempts_{attempts}"] if attempts > 1 else []
        return keep_arrays(folder / f"sweep_{'_'.join(of + tried)}.npz", partial(measured, asked, attempts))

    names = list_sweepable(view.seen, wanted.conditions)
    unasked = drawn({}) if names else {}
    found = {}
    with show_progress_bar("sweeping conditions", len(names)) as advance:
        for name in names:
            asked = space_levels(spec, name, wanted.levels, *wanted.between)
            found[name] = Answers(
                model=ask_levels(name, asked, wanted.each, drawn),
                retrieval=retrieve_windows(name, asked, wanted.each, pool),
                unconditional=Sweep(name, np.repeat(asked, wanted.each), unasked),
                corrected=ask_levels(name, asked, wanted.each, partial(drawn, attempts=wanted.attempts))
                if wanted.attempts > 1
                else None,
            )
            advance(1)
    return found


def _measure_pool(training: CityDataModule, view: View) -> Values:
    """Measure the training windows that retrieval answers with, as judges see them."""
    names, parts = view.drawn.scalars, []
    for start in range(0, POOL, PART):
        positions = range(start, start + PART)
        scalars = training.batch("train", positions).conditions.scalars.double().numpy()
        found = {name: scalars[:, names.index(name)] for name in view.seen.scalars}
        if not view.is_own:
            cells = view.show_cells(training.windows("train").read_cells(positions))
            measured = Layouts(cells, view.seen.channels, view.seen.resolution_m).measured
            found |= {name: measured[name] for name in found if name not in FRAME}
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in view.seen.scalars}


def judge_obedience(answers: Mapping[str, Answers], spec: LayoutSpec, *, attempts: int, seed: int) -> dict[str, Obeyed]:
    """Return how well each condition is obeyed.

    Parameters
    ----------
    answers
        Condition → answers to its sweep.
    spec
        Of the generator.
    attempts, seed
        With which they were drawn.
    """
    return {
        name: Obeyed(
            unit=find_condition(name).unit,
            label=find_condition(name).label,
            n=len(of.model.asked),
            seed=seed,
            attempts=attempts,
            model=of.model.fit(spec),
            retrieval=of.retrieval.fit(spec),
            unconditional=of.unconditional.fit(spec),
            corrected=None if of.corrected is None else of.corrected.fit(spec),
        )
        for name, of in answers.items()
    }
