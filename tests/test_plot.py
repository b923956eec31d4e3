"""Pictures: colours say what is there, cells stay cells, and what cannot be drawn is refused."""

import math

import numpy as np
import pytest
from matplotlib.image import imread

from citygrain.errors import DataError
from citygrain.geo.layers import CHANNEL_NAMES, CHANNELS
from citygrain.plot import (
    BOOST,
    COLOURS,
    PAINTED,
    PAPER,
    channel_panels,
    curves,
    r_squared,
    requested_measured,
    sheet,
    to_rgb,
)


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_an_empty_layout_is_paper_and_a_full_channel_its_colour():
    assert to_rgb(np.zeros((11, 4, 4)), CHANNEL_NAMES)[0, 0].tolist() == rgb(PAPER)
    for i, channel in enumerate(CHANNELS):
        layout = np.zeros((11, 2, 2))
        layout[i] = 1
        assert to_rgb(layout, CHANNEL_NAMES)[1, 1].tolist() == rgb(channel.colour), channel.name


def test_every_channel_is_painted_and_buildings_lie_on_top():
    assert sorted(PAINTED) == sorted(CHANNEL_NAMES)
    assert to_rgb(np.ones((11, 2, 2)), CHANNEL_NAMES)[0, 0].tolist() == rgb(CHANNELS[0].colour)


def test_bytes_and_floats_and_the_order_of_channels_make_no_difference():
    layout = np.random.default_rng(0).integers(0, 256, (11, 8, 8)).astype(np.uint8)
    shown = to_rgb(layout, CHANNEL_NAMES)
    assert np.array_equal(shown, to_rgb(layout / 255, CHANNEL_NAMES))
    assert np.array_equal(shown, to_rgb(layout[::-1], CHANNEL_NAMES[::-1]))


@pytest.mark.parametrize("name", BOOST)
def test_a_way_that_covers_half_of_a_cell_is_seen(name):
    def contrast(coverage):
        return np.abs(to_rgb(np.full((1, 1, 1), coverage), [name])[0, 0].astype(int) - rgb(PAPER)).sum()

    assert contrast(0.5) > 0.55 * contrast(1.0)
    assert contrast(0.02) == 0


def test_a_sheet_shows_every_cell_as_a_square(tmp_path):
    layouts = np.zeros((3, 11, 8, 8), np.uint8)
    layouts[1, 0, 2, 5] = 255  # one built cell, in the third row and the sixth column
    path = tmp_path / "new" / "sheet.png"
    picture = sheet(layouts, CHANNEL_NAMES, path, titles=["a", "b", "c"], scale=10, columns=3)
    assert np.array_equal(np.rint(imread(path)[..., :3] * 255).astype(np.uint8), picture)
    paper = (picture == rgb(PAPER)).all(-1)
    built = (picture == rgb(CHANNELS[0].colour)).all(-1)
    top, left = np.argwhere(paper).min(0)
    built[top + 80 :] = False  # the legend
    rows, columns = np.nonzero(built)
    assert built.sum() == 100
    assert (rows.min() - top, rows.max() - top) == (20, 29)
    second = left + 80 + 12  # one layout and one gap further right
    assert (columns.min() - second, columns.max() - second) == (50, 59)


def test_a_sheet_needs_layouts_and_matching_titles():
    with pytest.raises(DataError, match="2 layouts, 1 titles"):
        sheet(np.zeros((2, 11, 8, 8)), CHANNEL_NAMES, titles=["one"])
    with pytest.raises(DataError, match="needs layouts"):
        sheet(np.zeros((0, 11, 8, 8)), CHANNEL_NAMES)


def test_what_is_no_layout_is_refused():
    with pytest.raises(DataError, match=r"\(11, H, W\)"):
        to_rgb(np.zeros((3, 8, 8)), CHANNEL_NAMES)
    with pytest.raises(DataError, match="did you mean: street"):
        to_rgb(np.zeros((1, 8, 8)), ["streets"])


def test_channel_panels_draw_each_channel_once():
    alone = channel_panels(np.zeros((2, 16, 16)), ["building", "water"], scale=1)
    assert (alone == rgb(PAPER)).all(-1).sum() == 3 * 16 * 16


def test_r_squared_is_one_on_the_line_and_pays_for_a_bias():
    asked = np.array([0.1, 0.2, 0.3, 0.4])
    assert r_squared(asked, asked) == 1
    assert r_squared(asked, asked + 0.1) == pytest.approx(1 - 0.04 / 0.05)
    assert math.isnan(r_squared(asked, np.full(4, 0.25)))


def test_requested_against_measured_is_drawn_for_every_condition(tmp_path):
    levels = np.repeat([0.1, 0.2, 0.3], 8)
    got = levels + np.random.default_rng(0).normal(0, 0.02, 24)
    path = tmp_path / "adherence.png"
    one = requested_measured({"coverage": levels}, {"coverage": got}, path, heading="five levels")
    two = requested_measured({"coverage": levels, "green": levels}, {"coverage": got, "green": got})
    assert path.stat().st_size > 5000
    assert two.shape[1] == 2 * one.shape[1]
    with pytest.raises(DataError, match="do not pair up"):
        requested_measured({"coverage": levels}, {})
    with pytest.raises(DataError, match="nothing to compare"):
        requested_measured({}, {})


def test_losses_are_drawn_stage_beside_stage():
    losses = {
        "training": {"step": [1, 2], "loss": [3.0, 2.0]},
        "held-out windows": {"step": [1, 2], "loss": [2.0, 1.0]},
    }
    one, two = curves({"model": losses}), curves({"codec": losses, "model": losses})
    assert two.shape[1] == 2 * one.shape[1]
    for picture, stages in ((one, 1), (two, 2)):
        drawn = (picture == rgb(COLOURS["arterial"])).all(-1)
        halves = np.array_split(drawn, stages, axis=1)
        assert all(half.sum() > 100 for half in halves)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_nothing_of_requested_against_measured_is_cut_off(count):
    asked = np.repeat(np.linspace(0, 0.3, 5), 4)
    names = ("coverage", "street_density", "cycle", "green", "water", "rail", "walk", "arterial", "frontage")[:count]
    picture = requested_measured(dict.fromkeys(names, asked), dict.fromkeys(names, asked + 0.01))
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == rgb(PAPER)).all()
