"""Obedience: one condition after another is asked for at rising levels, and measured on what was drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from citygrain.measures import settled
from citygrain.plot import r_squared
from citygrain.spec import LayoutSpec

Values = Mapping[str, NDArray[np.float64]]
"""Measure → `(N,)` in its unit."""


@dataclass(frozen=True)
class Sweep:
    """One condition asked for at some levels, and everything measured on what came.

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
        """Of the best straight line through measured against asked; 1 is obedience, 0 none."""
        return float(np.polyfit(self.asked, self.measured[self.name], 1)[0])

    @property
    def r_squared(self) -> float:
        """About the line measured = asked, see `citygrain.plot.r_squared`."""
        return r_squared(self.asked, self.measured[self.name])

    @property
    def mae(self) -> float:
        """Mean absolute error in the condition's unit."""
        return float(np.abs(self.measured[self.name] - self.asked).mean())

    def drift(self, spec: LayoutSpec) -> float:
        """How far the other measures move along: from the lowest to the highest level, in standard deviations.

        The mean, over the other measures, of how far their mean changes. Some of it is no fault: where there are more
        buildings there is less green. Compare with real windows of these levels (*retrieval*).
        """
        low, high = self.asked == self.asked.min(), self.asked == self.asked.max()
        moved = [
            abs(float(values[high].mean() - values[low].mean())) / spread
            for name, values in self.measured.items()
            if name != self.name and name in spec.scalars and (spread := spec.spread(name)) > 0
        ]
        return float(np.mean(moved)) if moved else math.nan


def levels(spec: LayoutSpec, name: str, count: int, low: float = 10, high: float = 90) -> NDArray[np.float64]:
    """Evenly spread values of a condition between two percentiles of the training windows, in its unit."""
    return np.linspace(spec.quantile(name, low), spec.quantile(name, high), count)


def sweep(name: str, asked: ArrayLike, each: int, draw: Callable[[Values], Values]) -> Sweep:
    """Ask for each level of a condition on so many layouts.

    Parameters
    ----------
    name
        The condition.
    asked
        Levels in its unit.
    each
        Layouts a level.
    draw
        What is asked of N layouts, condition → `(N,)`, to every measure of them.
    """
    values = np.repeat(np.asarray(asked, float), each)
    return Sweep(name, values, draw({name: values}))


def retrieved(name: str, asked: ArrayLike, each: int, pool: Values) -> Sweep:
    """Answer with real windows: the `each` whose measure comes nearest to each level (the *retrieval* baseline).

    Parameters
    ----------
    name, asked, each
        As for `sweep`.
    pool
        Measures of the real windows.
    """
    values = np.asarray(asked, float)
    chosen = np.concatenate([np.argsort(np.abs(pool[name] - level), kind="stable")[:each] for level in values])
    return Sweep(name, np.repeat(values, len(chosen) // len(values)), {k: v[chosen] for k, v in pool.items()})


def sweepable(spec: LayoutSpec, names: Sequence[str] | None = None) -> list[str]:
    """Conditions that can be swept: those that differ between training windows, and are not settled by given channels.

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
        if not settled(name, spec.given) and spec.quantile(name, 90) > spec.quantile(name, 10)
    ]
