"""How far apart two sets of layouts are: measure by measure, and as points of an embedding.

No number here means anything alone, because small sets differ even where both are real. So an evaluation computes each
number three times: for generated layouts, for as many other real layouts (the floor), and for real layouts whose tiles
are shuffled (the ceiling), see `shuffle_tiles`.

References
----------
Heusel, M. et al. (2017). GANs trained by a two time-scale update rule converge to a local Nash equilibrium. NeurIPS.

Binkowski, M. et al. (2018). Demystifying MMD GANs. ICLR.

Naeem, M. F. et al. (2020). Reliable fidelity and diversity metrics for generative models. ICML.

Kynkäänniemi, T. et al. (2019). Improved precision and recall metric for assessing generative models. NeurIPS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from sklearn.metrics import pairwise_distances_chunked

from citygrain.errors import DataError

Floats = NDArray[np.floating]

NEIGHBOURS = 5
"""The k of precision, recall, density and coverage: a point's surroundings reach to its k-th nearest neighbour."""

CHUNK_MIB = 128
"""Memory for distances that are held at once."""

KERNEL_SUBSET = 500
"""Points a subset of the kernel distance."""

TILES = 8
"""Tiles a side that a layout is cut into to be shuffled."""


@dataclass(frozen=True)
class Distance:
    """A distance between two samples of one measure.

    Attributes
    ----------
    value
        Wasserstein distance in the unit of the measure; NaN where one of the samples has no value at all.
    low, high
        Bounds of 95 % of the distances when both samples are resampled. Samples that are drawn with replacement differ
        more than the original ones, so the interval lies above the distance that the value estimates.
    undefined
        Share of the first sample that has nothing to measure, and of the second.
    """

    value: float
    low: float
    high: float
    undefined: tuple[float, float]


def wasserstein(made: Floats, real: Floats, *, resamples: int = 200, seed: int = 0) -> Distance:
    """Return the Wasserstein distance of two samples `(N,)`, `(M,)` of a measure, with a bootstrap interval.

    Raises
    ------
    DataError
        For samples without any layout.
    """
    if not len(made) or not len(real):
        raise DataError("A distance is between two sets of layouts.", got=f"{len(made)} and {len(real)} layouts")
    undefined = (float(np.isnan(made).mean()), float(np.isnan(real).mean()))
    made, real = made[~np.isnan(made)], real[~np.isnan(real)]
    if not len(made) or not len(real):
        return Distance(math.nan, math.nan, math.nan, undefined)
    rng = np.random.default_rng(seed)
    drawn = [wasserstein_distance(rng.choice(made, len(made)), rng.choice(real, len(real))) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if drawn else (math.nan, math.nan)
    return Distance(float(wasserstein_distance(made, real)), float(low), float(high), undefined)


def frechet(made: Floats, real: Floats) -> float:
    """Return the Fréchet distance of two sets of points `(N, D)`, `(M, D)` (Heusel et al. 2017).

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½): each set is taken to be normally distributed. The distance shrinks with more
    points, so compare sets of one size.
    """
    _check(made, real)
    means = made.mean(0) - real.mean(0)
    one, two = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (made, real))
    # The eigenvalues of the product are those of a positive semi-definite matrix: real, but for rounding.
    roots = np.sqrt(np.clip(np.linalg.eigvals(one @ two).real, 0, None))
    return float(max(means @ means + np.trace(one) + np.trace(two) - 2 * roots.sum(), 0.0))


def kernel(made: Floats, real: Floats, *, subsets: int = 20, seed: int = 0) -> float:
    """Return the squared maximum mean discrepancy with the kernel (x·y / D + 1)³, unbiased (Binkowski et al. 2018).

    It is the mean over random subsets of at most `KERNEL_SUBSET` points each, and may be below 0.
    """
    _check(made, real)
    rng = np.random.default_rng(seed)
    size = min(KERNEL_SUBSET, len(made), len(real))

    def between(a: Floats, b: Floats) -> Floats:
        return (a @ b.T / a.shape[1] + 1) ** 3

    found = []
    for _ in range(subsets):
        a, b = (points[rng.choice(len(points), size, replace=False)].astype(float) for points in (made, real))
        within = sum((k.sum() - np.trace(k)) / (size * (size - 1)) for k in (between(a, a), between(b, b)))
        found.append(within - 2 * between(a, b).mean())
    return float(np.mean(found))


def overlap(made: Floats, real: Floats, *, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of made points `(N, D)` among real points `(M, D)`.

    The surroundings of a point are the ball around it that reaches to its k-th nearest neighbour in its own set.

    - Precision: share of the made points that lie in the surroundings of any real point; recall: share of the real
      points that lie in the surroundings of any made point (Kynkäänniemi et al. 2019).
    - Density: in how many surroundings of real points a made point lies, over k; coverage: share of the real points
      that have a made point in their surroundings (Naeem et al. 2020).
    """
    _check(made, real)
    least = min(len(made), len(real))
    if least <= neighbours:
        raise DataError("There are too few layouts to have neighbours.", expected=f"> {neighbours}", got=least)
    real_radius, made_radius = (_radius(points, neighbours) for points in (real, made))
    precise = dense = 0
    nearest = np.full(len(real), np.inf)
    recalled = np.zeros(len(real), bool)
    start = 0
    for part in pairwise_distances_chunked(made, real, working_memory=CHUNK_MIB):
        stop = start + len(part)
        within = part <= real_radius
        precise += int(within.any(1).sum())
        dense += int(within.sum())
        nearest = np.minimum(nearest, part.min(0))
        recalled |= (part <= made_radius[start:stop, None]).any(0)
        start = stop
    return {
        "precision": precise / len(made),
        "recall": float(recalled.mean()),
        "density": dense / (neighbours * len(made)),
        "coverage": float((nearest <= real_radius).mean()),
    }


def _radius(points: Floats, neighbours: int) -> Floats:
    """Distance of each point to its k-th nearest neighbour."""
    parts = pairwise_distances_chunked(points, working_memory=CHUNK_MIB)
    return np.concatenate([np.partition(part, neighbours, axis=1)[:, neighbours] for part in parts])  # 0 is itself


def _check(made: Floats, real: Floats) -> None:
    if made.ndim != 2 or real.ndim != 2 or made.shape[1] != real.shape[1] or min(len(made), len(real)) < 2:
        raise DataError(
            "These are no two sets of points of one space.",
            expected="(N, D) and (M, D), two or more each",
            got=f"{made.shape} and {real.shape}",
        )
    if not (np.isfinite(made).all() and np.isfinite(real).all()):
        raise DataError("Some points of the embedding are not finite.")


def shuffle_tiles(layouts: NDArray[Any], *, tiles: int = TILES, seed: int = 0) -> NDArray[Any]:
    """Cut each of the layouts `(N, C, H, W)` into tiles, and put its tiles together again in a random order.

    The share of each channel stays as it is, and so does what is smaller than a tile. Ways break off, and blocks fall
    apart.
    """
    n, channels, height, width = layouts.shape
    if height % tiles or width % tiles:
        raise DataError("The layouts cannot be cut into tiles.", expected=f"edges that {tiles} divides", got=height)
    h, w = height // tiles, width // tiles
    cut = layouts.reshape(n, channels, tiles, h, tiles, w).transpose(0, 2, 4, 1, 3, 5).reshape(n, tiles**2, -1)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(tiles**2), (n, 1)), axis=1)
    laid = np.take_along_axis(cut, order[:, :, None], 1).reshape(n, tiles, tiles, channels, h, w)
    return np.ascontiguousarray(laid.transpose(0, 3, 1, 4, 2, 5).reshape(layouts.shape))
