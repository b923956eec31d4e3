"""Edges that were met: what is exact, what is missing, what is too much, and ways narrower than a cell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from citygrain.evaluation.boundary import score_boundaries

SIDE = 24


def _lines(*columns: int, value: float = 1.0) -> np.ndarray:
    cells = np.zeros((1, 1, SIDE, SIDE))
    cells[..., list(columns)] = value
    return cells


def _score(made: np.ndarray, real: np.ndarray, channel: str = "street", tolerance_px: float = 1.0):
    return score_boundaries(made, real, [channel], 8.0, tolerance_px)[channel]


def test_a_reconstruction_that_is_exact_meets_every_edge():
    assert _score(_lines(5, 15), _lines(5, 15)).f == 1


@pytest.mark.parametrize(("aside", "met"), [(1, 1.0), (2, 0.0)])
def test_an_edge_may_lie_aside_as_far_as_is_tolerated(aside, met):
    assert _score(_lines(5 + aside), _lines(5)).f == met


def test_a_street_that_is_missing_costs_recall_and_one_too_many_precision():
    missing, added = _score(_lines(5), _lines(5, 15)), _score(_lines(5, 15), _lines(5))
    assert (missing.precision, missing.recall) == (1, 0.5)
    assert (added.precision, added.recall) == (0.5, 1)
    assert missing.f == added.f == pytest.approx(2 / 3)


def test_nothing_made_is_no_score_and_nothing_there_either_is_none():
    assert _score(_lines(), _lines(5)).f == 0
    assert _score(_lines(5), _lines()).f == 0
    assert np.isnan(_score(_lines(), _lines()).f)


def test_a_track_narrower_than_a_cell_is_seen():
    """A cycle track covers a part of its cells; a building that covers as little of a cell is none."""
    pale = _lines(5, value=0.25)
    assert _score(pale, pale, "cycle").f == 1
    assert np.isnan(_score(pale, pale, "building").f)


def test_the_borders_of_a_window_are_no_edges():
    full = np.ones((1, 1, SIDE, SIDE))
    assert np.isnan(_score(full, full, "building").f)


def test_a_place_inside_has_the_edge_of_its_outline_only():
    """A block of 12 cells: its outline is met by an outline one cell smaller, its inside is no edge."""
    real, made = np.zeros((2, 1, 1, SIDE, SIDE))
    real[..., 6:18, 6:18] = 1
    made[..., 6:18, 6:18] = 1
    made[..., 10:14, 10:14] = 0  # a court that is not there: 16 cells of edge around it, 44 of the outline
    score = _score(made, real, "building")
    assert score.recall == 1
    assert score.precision == pytest.approx(44 / (44 + 16))


@settings(max_examples=30, deadline=None)
@given(cells=arrays(np.float64, (2, 2, 1, 8, 8), elements=st.floats(0, 1)), tolerance_px=st.floats(0, 3))
def test_swapped_sides_swap_precision_and_recall(cells, tolerance_px):
    one, other = _score(cells[0], cells[1], "green", tolerance_px), _score(cells[1], cells[0], "green", tolerance_px)
    assert np.array_equal([one.precision, one.recall], [other.recall, other.precision], equal_nan=True)
    assert np.isnan(one.f) or 0 <= one.f <= 1


@settings(max_examples=30, deadline=None)
@given(cells=arrays(np.float64, (2, 3, 1, 8, 8), elements=st.floats(0, 1)))
def test_more_tolerance_meets_no_fewer_edges(cells):
    strict, lax = (_score(*cells, "green", tolerance_px).f for tolerance_px in (1.0, 2.0))
    assert np.isnan(strict) or strict <= lax + 1e-12
