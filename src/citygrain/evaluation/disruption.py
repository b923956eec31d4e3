"""The test of the metrics: real windows are disrupted by degrees, and a metric has to get worse with each.

Usual metrics of generated city layouts have been found to favour disrupted ones. A metric that gets better while
buildings are scattered or streets are cut, or that responds to nothing, is named, and left out of the summary of an
evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from citygrain.evaluation.distribution import frechet, kernel, overlap, wasserstein
from citygrain.evaluation.gather import Cells, Gathered
from citygrain.geo.vectorize import NETWORKS

DEGREES = (0.25, 0.5, 0.75, 1.0)

SCATTER_M = 24.0
"""How far buildings are moved at most, each way."""

CUT_M = 12.0
CUTS_PER_KM2 = 300
"""Radius of a cut, and cuts on a square kilometre."""

TILE_M = 128.0
TURN_DEG = 45.0
"""Edge of the tiles that are turned about their middles, and by how much at most."""

SALT = 0.05
"""Share of cells that become full in one channel."""

BLUR_M = 16.0
"""Standard deviation of the blur."""


@dataclass(frozen=True)
class How:
    """How layouts are disrupted.

    Attributes
    ----------
    channels
        Of the layouts.
    cell_m
        Edge of a cell.
    degree
        From 0 to 1.
    rng
        Draws the random numbers.
    """

    channels: Sequence[str]
    cell_m: float
    degree: float
    rng: np.random.Generator


Disrupt = Callable[[Cells, How], Cells]


def scatter(layouts: Cells, how: How) -> Cells:
    """Move every building by up to `SCATTER_M` times the degree."""

    def moved(building: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = np.zeros_like(building)
        labels, _ = ndimage.label(building)
        for i, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            piece = np.where(labels[rows, columns] == i, building[rows, columns], 0)
            far = SCATTER_M * how.degree / how.cell_m
            down, right = (round(step) for step in how.rng.uniform(-far, far, 2))
            top = min(max(rows.start + down, 0), out.shape[0] - piece.shape[0])
            left = min(max(columns.start + right, 0), out.shape[1] - piece.shape[1])
            at = np.s_[top : top + piece.shape[0], left : left + piece.shape[1]]
            out[at] = np.maximum(out[at], piece)
        return out

    return _buildings(layouts, how.channels, moved)


def delete(layouts: Cells, how: How) -> Cells:
    """Delete a share of the buildings, the degree."""

    def thinned(building: NDArray[np.uint8]) -> NDArray[np.uint8]:
        labels, count = ndimage.label(building)
        gone = np.concatenate([[False], how.rng.random(count) < how.degree])
        return np.where(gone[labels], 0, building).astype(np.uint8)

    return _buildings(layouts, how.channels, thinned)


def cut(layouts: Cells, how: How) -> Cells:
    """Cut ways off at random places on them, `CUTS_PER_KM2` times the degree."""
    ways = [how.channels.index(name) for kinds in NETWORKS.values() for name in kinds if name in how.channels]
    out = layouts.copy()
    height, width = layouts.shape[2:]
    count = round(CUTS_PER_KM2 * how.degree * height * width * how.cell_m**2 / 1e6)
    down, right = np.mgrid[:height, :width]
    for layout in out:
        on = np.argwhere(layout[ways].max(0) >= 128)
        if not len(on):
            continue
        holes = np.zeros((height, width), bool)
        for row, column in on[how.rng.integers(0, len(on), count)]:
            holes |= (down - row) ** 2 + (right - column) ** 2 <= (CUT_M / how.cell_m) ** 2
        layout[ways] = np.where(holes, 0, layout[ways])
    return out


def turn_blocks(layouts: Cells, how: How) -> Cells:
    """Turn each tile of `TILE_M` about its middle, by up to `TURN_DEG` times the degree."""
    out = layouts.copy()
    edge = max(4, round(TILE_M / how.cell_m))
    for layout in out:
        for row in range(0, layout.shape[1], edge):
            for column in range(0, layout.shape[2], edge):
                tile = layout[:, row : row + edge, column : column + edge]
                angle = how.rng.uniform(-1, 1) * TURN_DEG * how.degree
                tile[:] = ndimage.rotate(tile, angle, axes=(1, 2), reshape=False, order=1, mode="nearest")
    return out


def salt(layouts: Cells, how: How) -> Cells:
    """Fill `SALT` times the degree of the cells, each in one channel at random."""
    out = layouts.copy()
    n, kinds, height, width = out.shape
    where = np.argwhere(how.rng.random((n, height, width)) < SALT * how.degree)
    out[where[:, 0], how.rng.integers(0, kinds, len(where)), where[:, 1], where[:, 2]] = 255
    return out


def blur(layouts: Cells, how: How) -> Cells:
    """Blur by a Gaussian of `BLUR_M` times the degree."""
    sigma = BLUR_M * how.degree / how.cell_m
    return ndimage.gaussian_filter(layouts, (0, 0, sigma, sigma), mode="nearest")


DISRUPTIONS: Mapping[str, Disrupt] = MappingProxyType({
    "buildings moved": scatter,
    "buildings deleted": delete,
    "streets cut": cut,
    "blocks turned": turn_blocks,
    "salt noise": salt,
    "blur": blur,
})  # fmt: skip


def _buildings(
    layouts: Cells, channels: Sequence[str], change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Cells:
    out = layouts.copy()
    if "building" in channels:
        for layout in out:
            layout[channels.index("building")] = change(layout[channels.index("building")])
    return out


@dataclass(frozen=True)
class Verdict:
    """How a metric responds to a disruption.

    Attributes
    ----------
    values
        Of the metric, without disruption and at each degree; the larger, the worse.
    noise
        By how much the metric varies between equal sets.
    """

    values: tuple[float, ...]
    noise: float

    @property
    def responds(self) -> bool:
        """Whether the metric is worse at the last degree, beyond its noise."""
        return self.values[-1] > self.values[0] + self.noise

    @property
    def misled(self) -> bool:
        """Whether more of the disruption ever makes the metric better, beyond its noise."""
        best_to_come = np.minimum.accumulate(np.array(self.values)[::-1])[::-1]
        return bool((np.array(self.values) > best_to_come + self.noise).any())


@dataclass(frozen=True)
class JudgedMetrics:
    """What every metric says of real windows that are disrupted by degrees.

    Attributes
    ----------
    windows
        How many were disrupted.
    degrees
        From 0, not at all, to 1.
    metrics
        Metric → disruption → its value at each degree; the larger, the worse.
    noise
        Metric → by how much it varies between equal sets.
    left_out
        Metric that cannot be trusted → why.
    """

    windows: int
    degrees: tuple[float, ...]
    metrics: Mapping[str, Mapping[str, tuple[float, ...]]]
    noise: Mapping[str, float]
    left_out: Mapping[str, str]


def find_unreliable(verdicts: Mapping[str, Mapping[str, Verdict]]) -> dict[str, str]:
    """Return the metrics that cannot be trusted, and why.

    Parameters
    ----------
    verdicts
        Metric → disruption → how it responds.
    """
    found = {}
    for metric, by in verdicts.items():
        if not by:
            found[metric] = "is defined on too few windows"
        elif misled := [name for name, verdict in by.items() if verdict.misled]:
            found[metric] = f"gets better with more of: {', '.join(misled)}"
        elif not any(verdict.responds for verdict in by.values()):
            found[metric] = "does not respond to any disruption"
    return found


def judge_metrics(
    real: Gathered,
    others: Gathered,
    gathered: Callable[..., Gathered],
    channels: Sequence[str],
    cell_m: float,
    *,
    windows: int = 128,
    seed: int = 0,
) -> JudgedMetrics:
    """Disrupt real windows by degrees, and let every metric compare them with other real windows.

    Parameters
    ----------
    real, others
        Two sets of real windows.
    gathered
        Gathers layouts: `citygrain.evaluation.gather.gather` of these channels.
    channels, cell_m
        Of the layouts.
    windows
        How many of the first set are disrupted.
    seed
        Of the disruptions.
    """
    n = min(windows, len(real))
    undisrupted = measure_metrics(real, others, slice(0, n), seed)
    halves = [measure_metrics(real, others, part, seed) for part in (slice(0, n // 2), slice(n // 2, n))]
    # A half varies √2 times as much as the whole, and the difference of two √2 times as much as each.
    noise = {name: abs(halves[0][name] - halves[1][name]) / 2 for name in undisrupted}
    for name, values in real.values.items():
        if name in noise:  # two halves may be equal by chance
            interval = wasserstein(values[:n], others.values[name], resamples=100, seed=seed)
            noise[name] = float(np.fmax(noise[name], (interval.high - interval.low) / 2))
    judged: dict[str, list[dict[str, float]]] = {}
    for kind, disrupt in DISRUPTIONS.items():
        judged[kind] = [undisrupted]
        for degree in DEGREES:

            def made(positions: range, disrupt: Disrupt = disrupt, degree: float = degree) -> Cells:
                rng = np.random.default_rng((seed, positions.start))
                return disrupt(real.chosen(positions), How(channels, cell_m, degree, rng))

            found = gathered(f"{kind.replace(' ', '_')}_{degree:g}", n, made, real.parts[0].parent)
            judged[kind].append(measure_metrics(found, others, slice(0, n), seed))
    metrics = {
        name: {kind: tuple(values[name] for values in series) for kind, series in judged.items()}
        for name in undisrupted
    }
    verdicts = {
        name: {kind: Verdict(series, noise[name]) for kind, series in by.items() if np.isfinite(series).all()}
        for name, by in metrics.items()
    }
    return JudgedMetrics(n, (0.0, *DEGREES), metrics, noise, find_unreliable(verdicts))


def measure_metrics(of: Gathered, others: Gathered, part: slice, seed: int) -> dict[str, float]:
    """Return every metric of a part of a set against another set; the larger, the worse."""
    measures = {
        name: wasserstein(values[part], others.values[name], resamples=0).value
        for name, values in of.values.items()
        if np.unique(others.values[name][np.isfinite(others.values[name])]).size > 1
    }
    points, theirs = of.points[part], others.points
    embedded = {"frechet": frechet(points, theirs), "kernel": kernel(points, theirs, seed=seed)}
    return {**measures, **embedded, **{f"1 − {name}": 1 - v for name, v in overlap(points, theirs).items()}}
