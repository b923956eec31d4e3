"""Distances between sets of layouts against closed forms, and against what is known of equal and of disjoint sets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.metrics.pairwise import polynomial_kernel

from citygrain.errors import DataError
from citygrain.evaluation.distribution import frechet, kernel, overlap, shuffle_tiles, wasserstein


def normal(n, d, seed, shift=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def test_a_shift_is_its_own_wasserstein_distance():
    values = np.random.default_rng(0).normal(size=500)
    found = wasserstein(values + 3, values)
    assert found.value == pytest.approx(3)
    assert found.low < 3 < found.high
    assert found.undefined == (0, 0)


def test_the_interval_holds_what_more_layouts_would_tell():
    """Of normal samples one standard deviation apart, in nineteen of twenty cases or so."""
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = wasserstein(rng.normal(1, 1, 200), rng.normal(0, 1, 200), seed=seed)
        held += found.low <= 1 <= found.high
    assert held >= 35


def test_what_has_nothing_to_measure_is_counted_and_left_out():
    found = wasserstein(np.array([1.0, math.nan, 1.0, math.nan]), np.array([2.0, 2.0, 2.0, math.nan]))
    assert found.value == pytest.approx(1)
    assert found.undefined == (0.5, 0.25)
    assert math.isnan(wasserstein(np.array([math.nan]), np.array([1.0])).value)
    with pytest.raises(DataError, match="two sets"):
        wasserstein(np.array([]), np.array([1.0]))


def test_frechet_distance_is_that_of_its_formula():
    one, two = normal(400, 6, 0) @ normal(6, 6, 1), normal(300, 6, 2, shift=0.5) @ normal(6, 6, 3)
    s1, s2 = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real)
    assert frechet(one, two) == pytest.approx(expected)
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one + 2, one) == pytest.approx(6 * 4)


def test_frechet_distance_of_fewer_points_than_dimensions_is_finite():
    assert math.isfinite(frechet(normal(8, 32, 0), normal(8, 32, 1)))


def test_kernel_distance_is_that_of_its_formula():
    one, two = normal(60, 5, 0), normal(60, 5, 1, shift=0.3)
    xx, yy, xy = (polynomial_kernel(a, b, degree=3) for a, b in ((one, one), (two, two), (one, two)))
    n = 60
    expected = (xx.sum() - np.trace(xx)) / n / (n - 1) + (yy.sum() - np.trace(yy)) / n / (n - 1) - 2 * xy.mean()
    assert kernel(one, two, subsets=3) == pytest.approx(expected)


@pytest.mark.slow
def test_kernel_distance_of_equal_distributions_is_about_nothing():
    found = [kernel(normal(300, 8, 2 * s), normal(300, 8, 2 * s + 1)) for s in range(10)]
    assert abs(np.mean(found)) < 0.01
    assert kernel(normal(300, 8, 0, shift=1), normal(300, 8, 1)) > 0.5


def test_overlap_of_equal_sets_is_whole_and_of_disjoint_ones_none():
    points = normal(200, 4, 0)
    same = overlap(points, points)
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    far = overlap(points + 100, points)
    assert set(far.values()) == {0.0}


def test_overlap_tells_collapse_from_noise():
    real = normal(300, 4, 0)
    collapsed = overlap(real[:3].repeat(100, 0) + normal(300, 4, 1, scale=1e-3), real)
    assert collapsed["precision"] == 1
    assert collapsed["coverage"] < 0.2
    assert collapsed["recall"] < 0.2
    noisy = overlap(normal(300, 4, 2, scale=4), real)
    assert noisy["precision"] < 0.5 < noisy["recall"]


def test_too_few_layouts_are_an_error():
    with pytest.raises(DataError, match="too few"):
        overlap(normal(5, 3, 0), normal(50, 3, 1))
    with pytest.raises(DataError, match="one space"):
        frechet(normal(5, 3, 0), normal(5, 4, 1))
    with pytest.raises(DataError, match="not finite"):
        kernel(np.full((8, 2), np.nan), normal(8, 2, 0))


@given(st.integers(1, 3), st.sampled_from([8, 16, 24]), st.integers(0, 5))
@settings(deadline=None, max_examples=15)
def test_shuffled_layouts_cover_as_much_as_before(n, size, seed):
    layouts = np.random.default_rng(seed).integers(0, 256, (n, 2, size, size)).astype(np.uint8)
    moved = shuffle_tiles(layouts, seed=seed)
    assert moved.dtype == layouts.dtype
    assert (np.sort(moved.reshape(n, 2, -1)) == np.sort(layouts.reshape(n, 2, -1))).all()
    # Channels stay together: what lies on what is as it was.
    pairs = [{tuple(p) for p in part.reshape(2, -1).T.tolist()} for part in (*layouts, *moved)]
    assert pairs[:n] == pairs[n:]


def test_shuffled_layouts_are_cut_into_tiles():
    layouts = np.arange(64 * 64).reshape(1, 1, 64, 64)
    moved = shuffle_tiles(layouts)
    tiles = {tuple(moved[0, 0, r : r + 8, c : c + 8].ravel()) for r in range(0, 64, 8) for c in range(0, 64, 8)}
    before = {tuple(layouts[0, 0, r : r + 8, c : c + 8].ravel()) for r in range(0, 64, 8) for c in range(0, 64, 8)}
    assert tiles == before
    assert (moved != layouts).any()
    with pytest.raises(DataError, match="tiles"):
        shuffle_tiles(np.zeros((1, 1, 12, 12)))
