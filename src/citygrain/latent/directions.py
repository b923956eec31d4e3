"""Directions in code space that move a measure or lead to another place, and paths along them that are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from citygrain.errors import ConfigError, DataError
from citygrain.latent.codes import Codes, Floats, Values, about, decode, forms_of, titled
from citygrain.latent.structure import reduced
from citygrain.measures import measure
from citygrain.protocols import Codec
from citygrain.spec import LayoutSpec

PROBED = 256
"""Principal components that a probe sees of a code, where it has so many."""

LEAST = 30
"""Fewer windows that have a measure say nothing about it."""

STRENGTHS = np.logspace(-5, 1, 13)
"""Ridge penalties that are tried, times windows and mean variance of a component."""


@dataclass(frozen=True)
class Probes:
    """What can be read off codes linearly, and where to go in code space to change it.

    Attributes
    ----------
    r_squared
        Measure → share of its variance over held-out windows that the probe tells; negative where it is worse than the
        held-out mean.
    directions
        Measure → change of the mean code for one unit of it, `(*code_shape)`.
    spread
        Measure → its standard deviation over the train windows.
    strength
        Measure → the penalty that cross-validation chose, as in `STRENGTHS`.
    left_out
        Measure → why there is no probe.
    """

    r_squared: dict[str, float]
    directions: dict[str, Floats] = field(repr=False)
    spread: dict[str, float]
    strength: dict[str, float]
    left_out: dict[str, str]

    def table(self) -> pd.DataFrame:
        """Return the measures, those that are told best first."""
        rows = {
            name: (about(name).label, about(name).unit, r2, self.spread[name], self.strength[name])
            for name, r2 in sorted(self.r_squared.items(), key=lambda item: -item[1])
        }
        columns = ["label", "unit", "R²", "standard deviation", "penalty"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def probe(
    train: Codes, held_out: Codes, measures: Sequence[str] | None = None, *, components: int = PROBED, seed: int = 0
) -> Probes:
    """Fit a linear probe for every measure and find its direction (Alain & Bengio 2017; Haufe et al. 2014).

    A probe is a ridge regression from the principal components of the train codes to the measure, its penalty chosen by
    leave-one-out. Its weights are no direction to walk in: they also hold what cancels the rest of the code. The
    direction is the probe's activation pattern, cov(code, prediction) / var(prediction): the change of the mean code
    that goes with one unit of the measure, so that a step stays among real codes. Along it the probe's own prediction
    changes by exactly as much.

    Parameters
    ----------
    train, held_out
        Codes of windows with what was measured on them. Train windows overlap, so that leave-one-out errs on the side
        of small penalties; R² is that of the held-out windows.
    measures
        Names; None for all that were measured.
    components
        How many principal components the probes see.
    seed
        Of the principal components.

    Raises
    ------
    DataError
        For a measure that was not measured on both.

    References
    ----------
    Alain, G. & Bengio, Y. (2017). Understanding intermediate layers using linear classifier probes. ICLR workshop.

    Haufe, S. et al. (2014). On the interpretation of weight vectors of linear models in multivariate neuroimaging.
    *NeuroImage* 87.
    """
    names = list(train.measured) if measures is None else list(measures)
    for name in names:
        if name not in train.measured or name not in held_out.measured:
            both = [known for known in train.measured if known in held_out.measured]
            raise DataError("This was not measured on the windows.", got=name, choices=both, remedy="forms=True")
    pca = reduced(components, train, seed)
    seen, new = pca.transform(train.flat), pca.transform(held_out.flat)
    centred = train.flat - train.flat.mean(0)
    found = Probes({}, {}, {}, {}, {})
    for name in names:
        known, told = np.isfinite(train.measured[name]), np.isfinite(held_out.measured[name])
        values, truth = train.measured[name][known], held_out.measured[name][told]
        if min(len(values), len(truth)) < LEAST:
            found.left_out[name] = f"in {len(values)} train and {len(truth)} held-out windows only"
            continue
        spread = float(values.std())
        if not spread > 0 or not truth.std() > 0:
            found.left_out[name] = "the same in all windows"
            continue
        unit = len(values) * float(seen[known].var(0).mean())
        ridge = RidgeCV(STRENGTHS * unit).fit(seen[known], (values - values.mean()) / spread)
        prediction = ridge.predict(seen[known])
        off = prediction - prediction.mean()
        variance = float((off**2).mean())
        if not variance > 0:
            found.left_out[name] = "nothing in the code tells it"
            continue
        pattern = off @ centred[known] / len(off) / variance / spread
        found.directions[name] = pattern.astype(np.float32).reshape(train.codes.shape[1:])
        found.r_squared[name] = float(r2_score(truth, ridge.predict(new[told]) * spread + values.mean()))
        found.spread[name] = spread
        found.strength[name] = float(ridge.alpha_ / unit)
    return found


def place_direction(codes: Codes, start: str, end: str) -> Floats:
    """Return the mean code of one place minus that of another, `(*code_shape)`: one step leads from start to end."""
    difference: Floats = codes.of(end).codes.mean(0) - codes.of(start).codes.mean(0)
    return difference


@dataclass(frozen=True)
class CodePath:
    """S steps through code space from N codes, decoded and measured.

    Attributes
    ----------
    positions
        `(S,)`, where on the path each step is.
    along
        What the positions mean, with their unit.
    codes
        `(S, N, *code_shape)`.
    layouts
        `(S, N, C, H, W)` in [0, 1].
    measured
        Measure → `(S, N)`, in its unit; NaN where there is nothing to measure.
    spec
        Channels, size and resolution of the layouts.
    """

    positions: NDArray[np.float64]
    along: str
    codes: Floats = field(repr=False)
    layouts: Floats = field(repr=False)
    measured: Values
    spec: LayoutSpec = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Return what was measured, one row a step and code, in columns named by measure; units are in `.attrs`."""
        steps, codes = self.codes.shape[:2]
        table = pd.DataFrame(
            {"position": self.positions.repeat(codes), "code": np.tile(np.arange(codes), steps)}
            | {name: values.ravel() for name, values in self.measured.items()}
        )
        table.attrs = {"position": self.along, "units": {name: about(name).unit for name in self.measured}}
        return table


def traverse(
    codec: Codec, codes: ArrayLike, direction: ArrayLike, steps: ArrayLike, *, along: str = "step", forms: bool = False
) -> CodePath:
    """Walk from codes in a direction, decode every step and measure it.

    Parameters
    ----------
    codec
        What made the codes.
    codes
        `(N, *code_shape)`.
    direction
        `(*code_shape)`, such as of `probe` (for one unit of the measure) or `place_direction`.
    steps
        `(S,)` multiples of the direction; 0 is where the codes are.
    along
        What the steps mean, with their unit.
    forms
        Measure the urban form of every layout too. A codec that blurs loses junctions and small buildings: compare the
        steps with each other, and not with real windows.
    """
    start, by = np.asarray(codes, np.float32), np.asarray(direction, np.float32)
    positions = np.asarray(steps, float)
    if start.shape[1:] != by.shape or not len(positions):
        raise DataError(
            "These codes cannot be walked from.",
            expected=f"codes (N, …) with … = {by.shape}, and at least one step",
            got=f"{start.shape}, and {len(positions)} steps",
        )
    path = start + positions.astype(np.float32).reshape(-1, *[1] * start.ndim) * by
    return measured_path(codec, path, positions, along, forms=forms)


def interpolate(
    codec: Codec,
    start: ArrayLike,
    end: ArrayLike,
    steps: int = 9,
    how: Literal["linear", "spherical"] = "linear",
    *,
    along: str = "share of the way",
    forms: bool = False,
) -> CodePath:
    """Walk from codes to other codes, decode every step and measure it.

    Parameters
    ----------
    codec
        What made the codes.
    start, end
        `(N, *code_shape)` each.
    steps
        How many, both ends among them.
    how
        `linear`: the straight line. `spherical`: around the origin (Shoemake 1985), the norm going evenly from one to
        the other: right for normal noise, whose norm hardly varies, as `Inversion` has it for a code.
    along, forms
        As for `traverse`.
    """
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    if a.shape != b.shape or steps < 2:
        raise DataError(
            "There is no way between these codes.",
            expected="as many codes at both ends, and 2 steps or more",
            got=f"{a.shape}, {b.shape}, {steps} steps",
        )
    if how not in {"linear", "spherical"}:
        raise ConfigError("There is no such way.", got=how, choices=("linear", "spherical"))
    positions = np.linspace(0, 1, steps)
    t = positions.reshape(-1, *[1] * a.ndim)
    of_a, of_b = (1 - t, t) if how == "linear" else _spherical(a, b, t)
    return measured_path(codec, (of_a * a + of_b * b).astype(np.float32), positions, along, forms=forms)


def _spherical(a: Floats, b: Floats, t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights `(S, N, …)` of both ends; linear where they lie in one direction or in opposite ones."""
    flat = [x.reshape(len(x), -1).astype(float) for x in (a, b)]
    shape = (-1, *[1] * (a.ndim - 1))
    long_a, long_b = (np.maximum(np.linalg.norm(x, axis=1), 1e-12) for x in flat)
    cosine = np.clip((flat[0] * flat[1]).sum(1) / long_a / long_b, -1, 1)
    angle = np.arccos(cosine).reshape(shape)
    bent = (angle > 1e-4) & (angle < math.pi - 1e-4)
    sine = np.sin(np.where(bent, angle, 1.0))
    norm = (1 - t) * long_a.reshape(shape) + t * long_b.reshape(shape)
    return tuple(  # type: ignore[return-value]  # of two
        np.where(bent, np.sin(share * angle) / sine * norm / length.reshape(shape), share)
        for share, length in ((1 - t, long_a), (t, long_b))
    )


def measured_path(codec: Codec, codes: Floats, positions: NDArray[np.float64], along: str, *, forms: bool) -> CodePath:
    """Decode codes `(S, N, …)` and measure them."""
    spec, steps = codec.spec, codes.shape[:2]
    layouts = decode(codec, codes.reshape(-1, *codes.shape[2:]))
    measured = {k: v.astype(float) for k, v in measure(layouts, spec.channels, spec.resolution_m).items()}
    if forms:
        measured |= forms_of(layouts, spec)
    return CodePath(
        positions,
        along,
        codes,
        layouts.reshape(*steps, *layouts.shape[1:]),
        {name: values.reshape(steps) for name, values in measured.items()},
        spec,
    )


def moves(path: CodePath, spread: Mapping[str, float], target: str | None = None) -> pd.DataFrame:
    """Tell what a path moves: all measures side by side, in standard deviations.

    Parameters
    ----------
    path
        Of equal or unequal steps.
    spread
        Measure → its standard deviation over real windows, such as `Probes.spread`; others are left out.
    target
        What was to be moved, where the positions are in its unit: the change is then that for one standard deviation of
        it that was asked for, and 1 is what was wanted. None: the change for one unit of position.

    Returns
    -------
    pandas.DataFrame
        Measures, the target first and then those that move most; `change` in standard deviations and `in its unit`,
        both least-squares slopes over all steps and codes.

    Raises
    ------
    DataError
        When the target was not measured.
    """
    if target is not None and (target not in path.measured or target not in spread):
        raise DataError("The target was not measured.", got=target, choices=[n for n in path.measured if n in spread])
    asked = 1.0 if target is None else spread[target]
    rows = {}
    for name, values in path.measured.items():
        if name in spread and spread[name] > 0:
            slope = _slope(path.positions, values) * asked
            rows[name] = (about(name).label, about(name).unit, slope / spread[name], slope, name == target)
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["label", "unit", "change", "in its unit", "target"]
    ).sort_values("change", key=np.abs, ascending=False)
    table.attrs = {"for": path.along if target is None else f"one standard deviation of {titled(target)}"}
    return table.sort_values("target", ascending=False, kind="stable")


def _slope(positions: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Least-squares slope over steps, codes `(S, N)` each with a level of its own; NaN where nothing was measured."""
    at = np.where(np.isfinite(values), positions[:, None], np.nan)
    with np.errstate(invalid="ignore"):
        counts = np.isfinite(values).sum(0)
        enough = counts > 1
        if not enough.any():
            return math.nan
        at, values = at[:, enough], values[:, enough]
        at, values = at - np.nanmean(at, 0), values - np.nanmean(values, 0)
        return float(np.nansum(at * values) / np.nansum(at**2))
