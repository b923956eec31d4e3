"""Pictures: colours say what is there, cells stay cells, figures go where they are told, and nonsense is refused."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from citygrain.errors import DataError
from citygrain.geo.layers import CHANNEL_NAMES, CHANNELS
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import vectorize
from citygrain.plot import (
    COLOURS,
    PAPER,
    make_channel_sheet,
    make_sheet,
    make_vector_sheet,
    r_squared,
    save_figure,
    show_distances,
    show_distribution,
    show_distributions,
    show_histograms,
    show_layout,
    show_losses,
    show_orientation,
    show_orientations,
    show_place_map,
    show_ranges,
    show_request,
    show_requests,
    show_shares,
    show_stages,
    show_vectors,
    to_image,
    to_rgb,
)
from citygrain.plot.maps import BOOST, PAINTED

GRID = Grid("EPSG:32635", 385_000, 6_672_000, 8.0, 24, 16)


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def pixels(drawn):
    """Return the picture of whatever a function returned, `(height, width, 3)` uint8."""
    return np.asarray(drawn if isinstance(drawn, Image.Image) else to_image(drawn))


def blocks():
    """A layout of 16 × 24 cells: two buildings at a street."""
    layout = np.zeros((len(CHANNEL_NAMES), 16, 24), np.uint8)
    layout[CHANNEL_NAMES.index("building"), 2:6, 2:10] = 255
    layout[CHANNEL_NAMES.index("building"), 10:14, 12:20] = 255
    layout[CHANNEL_NAMES.index("street"), 7:9] = 255
    return layout


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


def test_a_tall_layout_is_painted_like_its_rows():
    layout = np.random.default_rng(0).integers(0, 256, (11, 300, 3), dtype=np.uint8)
    rows = [to_rgb(layout[:, i : i + 1], CHANNEL_NAMES) for i in range(300)]
    assert np.array_equal(to_rgb(layout, CHANNEL_NAMES), np.concatenate(rows))


@pytest.mark.parametrize("name", BOOST)
def test_a_way_that_covers_half_of_a_cell_is_seen(name):
    def contrast(coverage):
        return np.abs(to_rgb(np.full((1, 1, 1), coverage), [name])[0, 0].astype(int) - rgb(PAPER)).sum()

    assert contrast(0.5) > 0.55 * contrast(1.0)
    assert contrast(0.02) == 0


def test_a_sheet_shows_every_cell_as_a_square():
    layouts = np.zeros((3, 11, 8, 8), np.uint8)
    layouts[1, 0, 2, 5] = 255  # one built cell, in the third row and the sixth column
    picture = pixels(make_sheet(layouts, CHANNEL_NAMES, titles=["a", "b", "c"], scale=10, columns=3))
    paper = (picture == rgb(PAPER)).all(-1)
    built = (picture == rgb(CHANNELS[0].colour)).all(-1)
    top, left = np.argwhere(paper).min(0)
    built[top + 80 :] = False  # the legend
    rows, columns = np.nonzero(built)
    assert built.sum() == 100
    assert (rows.min() - top, rows.max() - top) == (20, 29)
    second = left + 80 + 12  # one layout and one gap further right
    assert (columns.min() - second, columns.max() - second) == (50, 59)


def test_an_outline_goes_along_the_inner_edge_of_its_cells():
    outline = np.zeros((8, 8), bool)
    outline[2:4, 3:6] = True
    layouts = np.zeros((1, 1, 8, 8))
    bare, lined = (pixels(make_sheet(layouts, ["water"], scale=10, outline=of)) for of in (None, outline))
    rows, columns = np.nonzero((bare != lined).any(-1))
    assert len(rows) == 2 * (20 + 30) - 4
    assert (np.ptp(rows), np.ptp(columns)) == (19, 29)


def test_a_sheet_needs_layouts_and_matching_titles():
    with pytest.raises(DataError, match="2 layouts, 1 titles"):
        make_sheet(np.zeros((2, 11, 8, 8)), CHANNEL_NAMES, titles=["one"])
    with pytest.raises(DataError, match="needs layouts"):
        make_sheet(np.zeros((0, 11, 8, 8)), CHANNEL_NAMES)


def test_what_is_no_layout_is_refused():
    with pytest.raises(DataError, match=r"\(11, H, W\)"):
        to_rgb(np.zeros((3, 8, 8)), CHANNEL_NAMES)
    with pytest.raises(DataError, match="did you mean: street"):
        to_rgb(np.zeros((1, 8, 8)), ["streets"])


def test_a_channel_sheet_draws_each_channel_once():
    alone = pixels(make_channel_sheet(np.zeros((2, 16, 16)), ["building", "water"], scale=1))
    assert (alone == rgb(PAPER)).all(-1).sum() == 3 * 16 * 16


def test_layouts_on_a_vector_sheet_have_one_scale():
    small, large = (vectorize(np.tile(blocks(), (1, n, n)), CHANNEL_NAMES, grid) for n, grid in (
        (1, GRID), (2, Grid(GRID.crs, GRID.left, GRID.top, 8.0, 48, 32)),
    ))  # fmt: skip
    first, second = np.array_split(pixels(make_vector_sheet([small, large], pixels=400)), 2, axis=1)
    built = [(half[:280] == rgb(COLOURS["building"])).all(-1).sum() for half in (first, second)]
    assert built[1] == pytest.approx(4 * built[0], rel=0.1)


@pytest.mark.slow
def test_what_is_saved_is_what_is_shown(tmp_path):
    sheet = make_sheet(blocks()[None], CHANNEL_NAMES)
    beside_a_bar = show_place_map([[0, 0], [9e3, 9e3]], [1, 2], 512, label="label", title="title")
    for name, drawn in (("sheet", sheet), ("figure", show_stages({"model": LOSSES})), ("axes", beside_a_bar)):
        path = tmp_path / "new" / f"{name}.png"
        save_figure(drawn, path)
        with Image.open(path) as written:
            assert np.array_equal(np.asarray(written.convert("RGB")), pixels(drawn)), name
    save_figure(show_layout(blocks(), CHANNEL_NAMES), tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        save_figure(sheet, tmp_path / "file" / "sheet.png")


LEVELS = np.repeat([0.1, 0.2, 0.3], 8)
LOSSES = {
    "training": {"step": [1, 2], "loss": [3.0, 2.0]},
    "held-out windows": {"step": [1, 2], "loss": [2.0, 1.0]},
}
PLACES = ["helsinki", "copenhagen"]

AXES = {
    "layout": lambda ax: show_layout(blocks(), CHANNEL_NAMES, ax, title="title"),
    "vectors": lambda ax: show_vectors(vectorize(blocks(), CHANNEL_NAMES, GRID), ax, title="title"),
    "place map": lambda ax: show_place_map([[0, 0], [512, 0]], [1, 2], 512, ax, label="label"),
    "request": lambda ax: show_request("coverage", LEVELS, LEVELS + 0.01, ax),
    "distances": lambda ax: show_distances([("coverage", 2, 1, 3), ("green", 1, 2, 3)], ax),
    "histograms": lambda ax: show_histograms({"a": [1, 2, 3], "b": [2, np.nan]}, ax, label="label", mark=1.5),
    "losses": lambda ax: show_losses(LOSSES, ax),
    "ranges": lambda ax: show_ranges([("coverage", dict.fromkeys(PLACES, (1, 2, 3)))], PLACES, ax),
    "distribution": lambda ax: show_distribution(dict.fromkeys(PLACES, (1, 2, 3)), PLACES, ax, label="label"),
    "shares": lambda ax: show_shares(dict.fromkeys(PLACES, (0.1, 0.2, 0.3, 0.4)), ["car", "cycle", "foot", "rail"], ax),
}
FIGURES = {
    "requests": lambda: show_requests({"coverage": LEVELS, "cycle": LEVELS}, {"coverage": LEVELS, "cycle": LEVELS}),
    "stages": lambda: show_stages({"codec": LOSSES, "model": LOSSES}),
    "orientations": lambda: show_orientations([([0, 90], [1, 2])] * 3, ["a", "b", "c"]),
    "distributions": lambda: show_distributions({"area": dict.fromkeys(PLACES, (1, 2, 3)), "width": {}}, PLACES),
}


@pytest.mark.parametrize("name", AXES)
def test_a_figure_is_drawn_where_it_is_told_and_nowhere_else(name):
    figure = Figure(figsize=(8, 4))
    left, right = figure.subplots(1, 2)
    assert AXES[name](right) is right
    assert not left.has_data()
    assert not figure.legends
    assert right.has_data() or right.patches or right.images


@pytest.mark.parametrize("name", AXES)
def test_without_axes_a_figure_is_made_that_pyplot_does_not_keep(name):
    kept = plt.get_fignums()
    drawn = AXES[name](None)
    assert isinstance(drawn, Axes)
    assert plt.get_fignums() == kept
    picture = pixels(drawn)
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == rgb(PAPER)).all(), "something is cut off"


@pytest.mark.parametrize("name", FIGURES)
def test_several_axes_come_as_a_figure_of_which_nothing_is_cut_off(name):
    kept = plt.get_fignums()
    drawn = FIGURES[name]()
    assert isinstance(drawn, Figure)
    assert plt.get_fignums() == kept
    picture = pixels(drawn)
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == rgb(PAPER)).all()


def test_a_map_lies_where_its_grid_does():
    left, bottom, right, top = GRID.bounds
    for ax in (
        show_layout(blocks(), CHANNEL_NAMES, grid=GRID),
        show_vectors(vectorize(blocks(), CHANNEL_NAMES, GRID)),
    ):
        assert (*ax.get_xlim(), *ax.get_ylim()) == (left, right, bottom, top)
    cells = show_layout(blocks(), CHANNEL_NAMES, alpha=0.5)
    assert (*cells.get_xlim(), *cells.get_ylim()) == (-0.5, 23.5, 15.5, -0.5)
    assert cells.images[0].get_alpha() == 0.5


def test_a_rose_turns_clockwise_from_north_and_counts_ways_in_both_directions():
    rose = show_orientation([0, 90], [1, 3])
    bars = {round(float(np.degrees(bar.get_x() + bar.get_width() / 2))): bar.get_height() ** 2 for bar in rose.patches}
    assert {degrees: share for degrees, share in bars.items() if share} == pytest.approx(
        {0: 1 / 8, 180: 1 / 8, 90: 3 / 8, 270: 3 / 8}
    )
    assert (rose.get_theta_offset(), rose.get_theta_direction()) == (np.pi / 2, -1)
    figure = Figure()
    polar = figure.add_subplot(projection="polar")
    assert show_orientation([0], [1], polar) is polar


def test_r_squared_is_one_on_the_line_and_pays_for_a_bias():
    asked = np.array([0.1, 0.2, 0.3, 0.4])
    assert r_squared(asked, asked) == 1
    assert r_squared(asked, asked + 0.1) == pytest.approx(1 - 0.04 / 0.05)
    assert math.isnan(r_squared(asked, np.full(4, 0.25)))


def test_requested_against_measured_is_drawn_for_every_condition():
    got = LEVELS + np.random.default_rng(0).normal(0, 0.02, 24)
    one = show_requests({"coverage": LEVELS}, {"coverage": got}, title="three levels")
    two = show_requests({"coverage": LEVELS, "green": LEVELS}, {"coverage": got, "green": got})
    assert [ax.get_title() for ax in two.axes] == ["building coverage (GSI)", "green"]
    assert pixels(two).shape[1] == 2 * pixels(one).shape[1]
    with pytest.raises(DataError, match="do not pair up"):
        show_requests({"coverage": LEVELS}, {})
    with pytest.raises(DataError, match="nothing to compare"):
        show_requests({}, {})


def test_nothing_to_draw_is_refused():
    for show in (show_distances, lambda rows: show_ranges(rows, PLACES)):
        with pytest.raises(DataError, match="no"):
            show([])


def test_losses_are_drawn_stage_beside_stage():
    for stages in (["model"], ["codec", "model"]):
        picture = pixels(show_stages(dict.fromkeys(stages, LOSSES)))
        assert picture.shape[1] == 430 * len(stages)
        drawn = (picture == rgb(COLOURS["arterial"])).all(-1)
        assert all(part.sum() > 100 for part in np.array_split(drawn, len(stages), axis=1))


@pytest.mark.parametrize(
    "count", [1, pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(9, marks=pytest.mark.slow)]
)
def test_nothing_of_requested_against_measured_is_cut_off(count):
    asked = np.repeat(np.linspace(0, 0.3, 5), 4)
    names = ("coverage", "street_density", "cycle", "green", "water", "rail", "walk", "arterial", "frontage")[:count]
    picture = pixels(show_requests(dict.fromkeys(names, asked), dict.fromkeys(names, asked + 0.01)))
    edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    assert (edge == rgb(PAPER)).all()
