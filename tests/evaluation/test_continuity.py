"""Streets across an edge and seams between windows, counted by hand."""

import math

import numpy as np
import pytest

from citygrain.generation.continuity import count_street_ends, measure_seams

CHANNELS = ("building", "arterial", "street")


def crossing():
    """A street from west to east, an arterial from north to south, and a square in the middle that both run through."""
    layout = np.zeros((3, 20, 20))
    layout[2, 9:11] = 1
    layout[1, :, 4:7] = 1
    free = np.zeros((20, 20), bool)
    free[3:17, 3:17] = True
    return layout, free


def test_streets_that_run_through_go_on_and_those_that_stop_do_not():
    layout, free = crossing()
    assert count_street_ends(layout, free, CHANNELS) == (4, 4)
    layout[2, 9:11, 14:17] = 0  # the street stops before the eastern edge
    assert count_street_ends(layout, free, CHANNELS) == (3, 4)
    layout[:, free] = 0
    assert count_street_ends(layout, free, CHANNELS) == (0, 4)
    assert count_street_ends(np.zeros_like(layout), free, CHANNELS) == (0, 0)


def test_one_cell_aside_still_meets_and_two_do_not():
    layout, free = crossing()
    layout[1] = 0
    layout[2] = 0
    layout[2, 9, :3] = 1
    for row, going_on in ((9, 1), (10, 1), (11, 0)):
        layout[2, :, 3:] = 0
        layout[2, row, 3:8] = 1
        assert count_street_ends(layout, free, CHANNELS) == (going_on, 1)


def test_other_channels_are_counted_when_asked_for():
    layout, free = crossing()
    assert count_street_ends(layout, free, CHANNELS, kinds=("arterial",)) == (2, 2)
    assert count_street_ends(layout * 0.4, free, CHANNELS) == (0, 0)


def test_seams_are_told_by_how_much_more_differs_across_them():
    noise = np.random.default_rng(0).random((4, 60, 60))
    assert measure_seams(noise, [20, 40], [20, 40]) == pytest.approx(1, abs=0.1)
    stripes = noise * 0.1
    stripes[:, 20:40] += 0.5
    assert measure_seams(stripes, [20, 40], []) > 5
    assert measure_seams(stripes, [30], []) < 1.2
    assert math.isnan(measure_seams(noise * 0, [20], []))
