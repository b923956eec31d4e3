"""Disruptions do what they say, the more the higher the degree, and metrics that like them are named."""

import numpy as np
import pytest

from citygrain.evaluation.disruption import DISRUPTIONS, How, Verdict, find_unreliable

CHANNELS = ("building", "street", "green")


def city(n=3, size=64):
    layouts = np.zeros((n, 3, size, size), np.uint8)
    layouts[:, 1, ::16] = 255
    layouts[:, 1, :, ::16] = 255
    for row in range(4, size, 8):
        for column in range(4, size, 8):
            layouts[:, 0, row : row + 3, column : column + 3] = 255
    layouts[:, 2, :8, :8] = 255
    return layouts


def disrupted(name, layouts, degree, channels=CHANNELS):
    return DISRUPTIONS[name](layouts, How(channels, 4.0, degree, np.random.default_rng(0)))


@pytest.mark.parametrize("name", DISRUPTIONS)
def test_a_disruption_grows_with_its_degree_and_leaves_its_input_alone(name):
    layouts = city()
    before = layouts.copy()
    changed = []
    for degree in (0.0, 0.3, 1.0):
        made = disrupted(name, layouts, degree)
        assert made.shape == layouts.shape
        assert made.dtype == np.uint8
        changed.append(np.abs(made.astype(int) - before).mean())
    assert (layouts == before).all()
    assert changed[0] == 0
    assert 0 < changed[1] < changed[2]


@pytest.mark.parametrize("name", ["buildings moved", "buildings deleted"])
def test_buildings_alone_are_touched(name):
    made = disrupted(name, city(), 1.0)
    assert (made[:, 1:] == city()[:, 1:]).all()
    without = disrupted(name, city()[:, 1:], 1.0, CHANNELS[1:])
    assert (without == city()[:, 1:]).all()


def test_all_buildings_can_be_deleted_and_all_ways_be_cut():
    gone = disrupted("buildings deleted", city(), 1.0)
    assert not gone[:, 0].any()
    holes = disrupted("streets cut", city(), 1.0)
    assert 0 < holes[:, 1].sum() < city()[:, 1].sum()
    assert (holes[:, [0, 2]] == city()[:, [0, 2]]).all()


@pytest.mark.parametrize("name", DISRUPTIONS)
def test_an_empty_layout_can_be_disrupted(name):
    made = disrupted(name, np.zeros((1, 3, 32, 32), np.uint8), 1.0)
    assert made.any() == (name == "salt noise")


def test_a_metric_that_worsens_steadily_is_kept():
    steady = {"blur": Verdict((0.1, 0.2, 0.4), 0.05), "salt noise": Verdict((0.1, 0.1, 0.11), 0.05)}
    assert find_unreliable({"frechet": steady}) == {}


def test_a_metric_that_likes_disruption_or_does_not_mind_is_named():
    likes = {"blur": Verdict((0.5, 0.4, 0.2), 0.05), "salt noise": Verdict((0.1, 0.5, 0.9), 0.05)}
    there_and_back = {"blur": Verdict((0.1, 0.9, 0.3), 0.05)}
    deaf = {"blur": Verdict((0.1, 0.12, 0.09), 0.05)}
    found = find_unreliable({"a": likes, "b": there_and_back, "c": deaf, "d": {}})
    assert found == {
        "a": "gets better with more of: blur",
        "b": "gets better with more of: blur",
        "c": "does not respond to any disruption",
        "d": "is defined on too few windows",
    }
