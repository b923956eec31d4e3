"""Figures of codes: they show what they are given, and refuse what was not measured."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from citygrain.errors import DataError
from citygrain.latent import fit_probes, measure_disentanglement, project_codes, traverse
from citygrain.latent.figures import show_codes, show_confusion, show_disentanglement, show_path, show_probes
from citygrain.measures import measure
from citygrain.plot import PAPER, hue, to_image
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


def pixels(drawn):
    return np.asarray(to_image(drawn))


def test_a_map_shows_every_place_in_its_colour(codes):
    laid = project_codes(codes)
    picture = pixels(show_codes(laid, codes))
    one = pixels(show_codes(laid, codes_of(codes.codes, np.zeros(300, int))))
    assert near(picture, hue(0), 0.7) > 1000
    assert near(picture, hue(1), 0.7) > 1000
    assert near(one, hue(1), 0.7) < 50
    assert not np.array_equal(pixels(show_codes(laid, codes, by="green")), picture)
    assert not np.array_equal(pixels(show_codes(laid, codes, thumbnails=4)), picture)
    show_codes(laid, codes, by="coverage")  # some of which were not measured
    with pytest.raises(DataError, match="cycle"):
        show_codes(laid, codes, by="cycle")


def test_figures_are_drawn_where_they_are_told(codes):
    laid, found, told = project_codes(codes), fit_probes(*halves(codes)), measure_disentanglement(codes, 4)
    table = pd.DataFrame(np.diag([30, 50]), index=["a", "b"], columns=["a", "b"])
    kept = pd.Series({"green": 0.5})
    for show in (
        lambda ax: show_codes(laid, codes, ax),
        lambda ax: show_confusion(table, ax),
        lambda ax: show_probes(found, ax, decoded=kept),
        lambda ax: show_disentanglement(told, ax),
    ):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        assert show(right) is right
        assert not left.has_data()
        assert not figure.legends


def test_a_confusion_that_is_none_is_dark_on_the_diagonal_only():
    right, wrong = (
        show_confusion(pd.DataFrame(np.diag([30, 50])[::step], index=["a", "b"], columns=["a", "b"]))
        for step in (1, -1)
    )
    assert np.array_equal(right.images[0].get_array(), np.eye(2))
    assert np.array_equal(wrong.images[0].get_array(), np.eye(2)[::-1])
    shares = pd.DataFrame([[np.nan, 1.0], [1.0, np.nan]], index=["a", "b"], columns=["a", "b"])
    assert [text.get_text() for text in show_confusion(shares).texts] == ["100%", "100%"]


@pytest.mark.slow
def test_a_path_is_a_figure_of_its_steps(codes):
    direction = np.zeros(SPEC.shape)
    direction[0] = 0.1
    way = traverse(Identity(), codes.codes[:5], direction, np.linspace(-2, 2, 5))
    still = traverse(Identity(), codes.codes[:5], 0 * direction, np.linspace(-2, 2, 5))
    few, many = (pixels(show_path(way, measures=names)) for names in (["coverage"], ["coverage"] * 4))
    assert many.shape[0] > few.shape[0]
    assert not np.array_equal(few, pixels(show_path(still, measures=["coverage"])))
    above, beneath = show_path(way, rows=2).subfigs
    assert len(above.axes) == 2 * 5
    assert beneath.axes[0].get_title(loc="left") == "building coverage (GSI)"


def test_charts_of_probes_and_of_information_have_a_row_for_every_measure(codes):
    found = fit_probes(*halves(codes))
    assert len(show_probes(found).get_yticks()) == len(found.r_squared) == 2
    assert len(show_probes(fit_probes(*halves(codes), ["green"])).get_yticks()) == 1
    marked = show_probes(found, decoded=pd.Series({"green": 0.5})).collections[0].get_offsets()
    assert np.ma.masked_invalid(marked[:, 0]).compressed().tolist() == [0.5]
    for components in (4, 9):
        shares = show_disentanglement(measure_disentanglement(codes, components)).images[0].get_array()
        assert shares.shape == (2, components)
    empty = fit_probes(*halves(codes), [])
    with pytest.raises(DataError, match="no probe"):
        show_probes(empty)
    assert near(pixels(show_probes(found)), PAPER) > 1000
