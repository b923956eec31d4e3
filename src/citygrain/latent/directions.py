"""Directions in code space that change a measure or lead to another place, and paths along such directions."""

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
from citygrain.latent.codes import Codes, Floats, Values
from citygrain.latent.encoding import decode
from citygrain.latent.measuring import find_measure, label_measure, measure_forms
from citygrain.latent.structure import fit_components
from citygrain.measures import measure
from citygrain.protocols import Codec
from citygrain.spec import LayoutSpec

COMPONENTS = 256
"""How many principal components of a code a probe reads, at most."""

LEAST = 30
"""How many windows must have a value of a measure; a measure with fewer values is left out."""

PENALTIES = np.logspace(-5, 1, 13)
"""Ridge penalties that are tried. Each is multiplied by the number of windows and the mean variance of a component."""


@dataclass(frozen=True)
class Probes:
    """Which measures a linear function can read off codes, and which direction in code space changes each of them.

    Attributes
    ----------
    r_squared
        Measure → R² of the probe on the held-out windows; negative if the probe is worse than their mean.
    directions
        Measure → how the mean code changes with one unit of the measure, `(*code_shape)`.
    spread
        Measure → its standard deviation over the train windows.
    penalty
        Measure → the ridge penalty that cross-validation chose from `PENALTIES`.
    left_out
        Measure → why it has no probe.
    """

    r_squared: dict[str, float]
    directions: dict[str, Floats] = field(repr=False)
    spread: dict[str, float]
    penalty: dict[str, float]
    left_out: dict[str, str]

    def table(self) -> pd.DataFrame:
        """Return one row for each measure; the measures with the highest R² come first."""
        rows = {
            name: (find_measure(name).label, find_measure(name).unit, r2, self.spread[name], self.penalty[name])
            for name, r2 in sorted(self.r_squared.items(), key=lambda item: -item[1])
        }
        columns = ["label", "unit", "R²", "standard deviation", "penalty"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def fit_probes(
    train: Codes, held_out: Codes, measures: Sequence[str] | None = None, *, components: int = COMPONENTS, seed: int = 0
) -> Probes:
    """Fit a linear probe for every measure, and find its direction (Alain & Bengio 2017; Haufe et al. 2014).

    A probe is a ridge regression from the principal components of the train codes to the measure. Its penalty is chosen
    by leave-one-out cross-validation. The weights of a probe are not the direction that changes the measure: they also
    cancel whatever else varies in the codes. The direction is the activation pattern of the probe, cov(code,
    prediction) / var(prediction). This is how the mean code changes with one unit of the measure, so that a step along
    it stays near codes of real windows. One step along it changes the prediction of the probe by one unit, too.

    Parameters
    ----------
    train, held_out
        Codes of the windows that probes are fitted to, and of the windows that R² is computed on. Train windows
        overlap, so that cross-validation tends to choose small penalties.
    measures
        Names of the measures; None for all that were measured.
    components
        How many principal components of a code the probes read, at most.
    seed
        Seed of the principal components.

    Raises
    ------
    DataError
        For a measure that was not measured on both sets of windows.

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
            raise DataError(
                "This was not measured on both sets of windows.", got=name, choices=both, remedy="forms=True"
            )
    pca = fit_components(components, train, seed)
    seen, new = pca.transform(train.flat), pca.transform(held_out.flat)
    centred = train.flat - train.flat.mean(0)
    found = Probes({}, {}, {}, {}, {})
    for name in names:
        fitted, judged = np.isfinite(train.measured[name]), np.isfinite(held_out.measured[name])
        values, truth = train.measured[name][fitted], held_out.measured[name][judged]
        if min(len(values), len(truth)) < LEAST:
            found.left_out[name] = f"in {len(values)} train and {len(truth)} held-out windows only"
            continue
        spread = float(values.std())
        if not spread > 0 or not truth.std() > 0:
            found.left_out[name] = "the same in all windows"
            continue
        unit = len(values) * float(seen[fitted].var(0).mean())
        ridge = RidgeCV(PENALTIES * unit).fit(seen[fitted], (values - values.mean()) / spread)
        prediction = ridge.predict(seen[fitted])
        off = prediction - prediction.mean()
        variance = float((off**2).mean())
        if not variance > 0:
            found.left_out[name] = "the code tells nothing about it"
            continue
        pattern = off @ centred[fitted] / len(off) / variance / spread
        found.directions[name] = pattern.astype(np.float32).reshape(train.codes.shape[1:])
        found.r_squared[name] = float(r2_score(truth, ridge.predict(new[judged]) * spread + values.mean()))
        found.spread[name] = spread
        found.penalty[name] = float(ridge.alpha_ / unit)
    return found


def find_place_direction(codes: Codes, start: str, end: str) -> Floats:
    """Return the mean code of the place `end` minus the mean code of the place `start`, `(*code_shape)`."""
    difference: Floats = codes.select_place(end).codes.mean(0) - codes.select_place(start).codes.mean(0)
    return difference


@dataclass(frozen=True)
class CodePath:
    """A path of S steps through code space, from each of N codes. Every step is decoded and measured.

    Attributes
    ----------
    positions
        `(S,)`, the position of each step on the path.
    along
        What the positions mean, with their unit.
    codes
        The codes of every step, `(S, N, *code_shape)`.
    layouts
        The decoded codes, `(S, N, C, H, W)` in [0, 1].
    measured
        Measure → values of the layouts, `(S, N)`, in its unit; NaN where there is nothing to measure.
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
        """Return one row for each step of each code, and one column for each measure; `.attrs` has the units."""
        steps, codes = self.codes.shape[:2]
        table = pd.DataFrame(
            {"position": self.positions.repeat(codes), "code": np.tile(np.arange(codes), steps)}
            | {name: values.ravel() for name, values in self.measured.items()}
        )
        table.attrs = {"position": self.along, "units": {name: find_measure(name).unit for name in self.measured}}
        return table


def traverse(
    codec: Codec, codes: ArrayLike, direction: ArrayLike, steps: ArrayLike, *, along: str = "step", forms: bool = False
) -> CodePath:
    """Go from codes along a straight direction, decode every step, and measure it.

    Parameters
    ----------
    codec
        The codec of the codes.
    codes
        Where the path starts, `(N, *code_shape)`.
    direction
        `(*code_shape)`, from `fit_probes` (one unit of a measure) or `find_place_direction` (from place to place).
    steps
        `(S,)`, multiples of the direction; 0 is the start.
    along
        What the steps mean, with their unit.
    forms
        Whether the urban form of every layout is measured, too. A codec that blurs loses junctions and small buildings,
        so compare the steps with each other, and not with real windows.

    Raises
    ------
    DataError
        When the codes and the direction differ in shape, or there is no step.
    """
    start, by = np.asarray(codes, np.float32), np.asarray(direction, np.float32)
    positions = np.asarray(steps, float)
    if start.shape[1:] != by.shape or not len(positions):
        raise DataError(
            "No path can start from these codes.",
            expected=f"codes of shape (N, …) with … = {by.shape}, and at least one step",
            got=f"{start.shape}, and {len(positions)} steps",
        )
    path = start + positions.astype(np.float32).reshape(-1, *[1] * start.ndim) * by
    return measure_path(codec, path, positions, along, forms=forms)


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
    """Go from codes to other codes, decode every step, and measure it.

    Parameters
    ----------
    codec
        The codec of the codes.
    start, end
        Codes `(N, *code_shape)` at both ends of the path.
    steps
        How many steps the path has; both ends count.
    how
        `linear` goes along the straight line. `spherical` goes around the origin (Shoemake 1985), while the norm
        changes evenly from that of `start` to that of `end`. Use it where a code is normal noise, as with `Inversion`:
        the norm of normal noise hardly varies.
    along, forms
        See `traverse`.

    Raises
    ------
    DataError
        When the ends differ in shape, or there are fewer than two steps.
    ConfigError
        For another `how`.
    """
    a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
    if a.shape != b.shape or steps < 2:
        raise DataError(
            "No path leads between these codes.",
            expected="codes of the same shape at both ends, and 2 steps or more",
            got=f"{a.shape}, {b.shape}, {steps} steps",
        )
    if how not in {"linear", "spherical"}:
        raise ConfigError("Codes are not interpolated like this.", got=how, choices=("linear", "spherical"))
    positions = np.linspace(0, 1, steps)
    t = positions.reshape(-1, *[1] * a.ndim)
    of_a, of_b = (1 - t, t) if how == "linear" else _spherical(a, b, t)
    return measure_path(codec, (of_a * a + of_b * b).astype(np.float32), positions, along, forms=forms)


def _spherical(a: Floats, b: Floats, t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weights `(S, N, …)` of both ends; linear ones if the ends are parallel or opposite."""
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


def measure_path(codec: Codec, codes: Floats, positions: NDArray[np.float64], along: str, *, forms: bool) -> CodePath:
    """Decode the codes `(S, N, …)` of a path, and measure the layouts."""
    spec, steps = codec.spec, codes.shape[:2]
    layouts = decode(codec, codes.reshape(-1, *codes.shape[2:]))
    measured = {k: v.astype(float) for k, v in measure(layouts, spec.channels, spec.resolution_m).items()}
    if forms:
        measured |= measure_forms(layouts, spec)
    return CodePath(
        positions,
        along,
        codes,
        layouts.reshape(*steps, *layouts.shape[1:]),
        {name: values.reshape(steps) for name, values in measured.items()},
        spec,
    )


def measure_changes(path: CodePath, spread: Mapping[str, float], target: str | None = None) -> pd.DataFrame:
    """Measure how much every measure changes along a path, in its standard deviations.

    Parameters
    ----------
    path
        The path; its steps need not be equally long.
    spread
        Measure → its standard deviation over real windows, such as `Probes.spread`. Other measures are left out.
    target
        The measure that was to be changed, if the positions of the path are in its unit. Changes are then those for one
        requested standard deviation of the target, and the target itself should change by 1. If None, changes are those
        for one unit of position.

    Returns
    -------
    pandas.DataFrame
        One row for each measure: the target first, then those that change most. `change` is in standard deviations of
        the measure, `in its unit` in its unit. Both are least-squares slopes over all steps and codes.

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
            about = find_measure(name)
            rows[name] = (about.label, about.unit, slope / spread[name], slope, name == target)
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["label", "unit", "change", "in its unit", "target"]
    ).sort_values("change", key=np.abs, ascending=False)
    table.attrs = {"for": path.along if target is None else f"one standard deviation of {label_measure(target)}"}
    return table.sort_values("target", ascending=False, kind="stable")


def _slope(positions: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the slope of values `(S, N)` by least squares, where each code has its own level; NaN without values."""
    at = np.where(np.isfinite(values), positions[:, None], np.nan)
    with np.errstate(invalid="ignore"):
        counts = np.isfinite(values).sum(0)
        enough = counts > 1
        if not enough.any():
            return math.nan
        at, values = at[:, enough], values[:, enough]
        at, values = at - np.nanmean(at, 0), values - np.nanmean(values, 0)
        return float(np.nansum(at * values) / np.nansum(at**2))
