"""Pictures of codes: they show what they are given, and refuse what was not measured."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from citygrain.errors import DataError
from citygrain.latent import disentanglement, probe, project, traverse
from citygrain.latent.figures import confusion_chart, information_chart, latent_map, path_picture, probe_bars
from citygrain.measures import measure
from citygrain.plot import PAPER, hue
from toy_codecs import SPEC, Identity, codes_of, halves

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def codes():
    layouts = np.clip(0.5 + 0.1 * RNG.normal(size=(300, 3, 1, 1)) + 0.05 * RNG.normal(size=(300, *SPEC.shape)), 0, 1)
    measured = measure(layouts, SPEC.channels, SPEC.resolution_m)
    measured["coverage"] = np.where(np.arange(300) % 7, measured["coverage"], np.nan)
    return codes_of(layouts - 0.5, np.arange(300) % 2, **measured)


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def near(picture, colour, opacity=1.0):
    on_white = opacity * rgb(colour) + (1 - opacity) * 255
    return int((np.abs(picture - on_white).sum(2) < 30).sum())


def test_a_map_shows_every_place_in_its_colour(codes, tmp_path):
    laid = project(codes)
    picture = latent_map(laid, codes, tmp_path / "map.png")
    assert np.array_equal(np.rint(imread(tmp_path / "map.png")[..., :3] * 255).astype(np.uint8), picture)
    one = latent_map(laid, codes_of(codes.codes, np.zeros(300, int)))
    assert near(picture, hue(0), 0.7) > 1000
    assert near(picture, hue(1), 0.7) > 1000
    assert near(one, hue(1), 0.7) < 50
    assert not np.array_equal(latent_map(laid, codes, by="green"), picture)
    assert not np.array_equal(latent_map(laid, codes, thumbnails=4), picture)
    latent_map(laid, codes, by="coverage")  # some of which were not measured
    with pytest.raises(DataError, match="cycle"):
        latent_map(laid, codes, by="cycle")


def test_a_confusion_that_is_none_is_dark_on_the_diagonal_only():
    right = confusion_chart(pd.DataFrame(np.diag([30, 50]), index=["a", "b"], columns=["a", "b"]))
    wrong = confusion_chart(pd.DataFrame(np.diag([30, 50])[::-1], index=["a", "b"], columns=["a", "b"]))
    assert right.shape == wrong.shape
    assert not np.array_equal(right, wrong)
    shares = pd.DataFrame([[np.nan, 1.0], [1.0, np.nan]], index=["a", "b"], columns=["a", "b"])
    assert confusion_chart(shares).shape == right.shape


def test_a_path_is_a_picture_of_its_steps(codes):
    direction = np.zeros(SPEC.shape)
    direction[0] = 0.1
    way = traverse(Identity(), codes.codes[:5], direction, np.linspace(-2, 2, 5))
    still = traverse(Identity(), codes.codes[:5], 0 * direction, np.linspace(-2, 2, 5))
    few, many = (path_picture(way, measures=names) for names in (["coverage"], ["coverage"] * 4))
    assert many.shape[0] > few.shape[0]
    assert not np.array_equal(few, path_picture(still, measures=["coverage"]))
    assert path_picture(way).size


def test_charts_of_probes_and_of_information_have_a_row_for_every_measure(codes):
    found = probe(*halves(codes))
    short = probe(*halves(codes), ["green"])
    assert probe_bars(found).shape[0] > probe_bars(short).shape[0]
    assert not np.array_equal(probe_bars(found), probe_bars(found, kept=pd.Series({"green": 0.5})))
    told = disentanglement(codes, 4)
    assert information_chart(told).shape[1] < information_chart(disentanglement(codes, 9)).shape[1]
    empty = probe(*halves(codes), [])
    with pytest.raises(DataError, match="no probe"):
        probe_bars(empty)
    assert near(probe_bars(found), PAPER) > 1000
