"""Layouts in the hand: a sequence that measures, shows, saves and comes back the same."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pyproj import CRS

import citygrain
from citygrain.errors import ConfigError, DataError
from citygrain.geo.rasterize import Grid
from citygrain.geo.vectorize import SMALLEST_M2, vectorize
from citygrain.layouts import SHOWN, Layouts
from citygrain.measures import measurable

CHANNELS = ("building", "arterial", "street", "cycle", "walk", "rail", "green", "water")
SIZE, CELL = 32, 8.0


def grids(n, left=386_000.0):
    return tuple(Grid("EPSG:32635", left + i * 300, 6_672_000.0, CELL, SIZE, SIZE) for i in range(n))


def some(n=3, seed=0, **more):
    """Layouts with houses, a street that goes across, and noise."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((n, len(CHANNELS), SIZE, SIZE), np.uint8)
    cells[:, 0] = rng.integers(0, 256, (n, SIZE, SIZE)) * (rng.random((n, SIZE, SIZE)) < 0.2)
    cells[:, 2, 14:16] = 255
    cells[:, 2, :, 20] = 255
    cells[:, 6, 20:28, 2:12] = 255
    known = {"seeds": tuple(range(n)), "requested": {"coverage": np.linspace(0.1, 0.3, n)}}
    return Layouts(cells, CHANNELS, CELL, grids(n), **{**known, **more})


def test_saved_opened_and_measured_again_is_the_same(tmp_path):
    layouts = some()
    again = citygrain.open_layout(layouts.save(tmp_path / "mine"))
    assert again == layouts
    assert again.measure().equals(layouts.measure())
    assert list(layouts.measured) == list(measurable(CHANNELS))


def test_one_file_of_many_measures_what_it_measured_among_them(tmp_path):
    layouts = some()
    layouts.save(tmp_path)
    for i, name in enumerate(layouts.names):
        one = citygrain.open_layout(tmp_path / "layouts" / f"{name}.tif")
        assert one.names == (name,)
        assert one.grids == layouts.grids[i : i + 1]
        assert one.measure().to_numpy()[0] == pytest.approx(layouts.measure().to_numpy()[i], rel=1e-6)


def test_shares_in_a_file_are_as_good_as_bytes(tmp_path):
    layout = some(1)
    layout.save(tmp_path)
    path = tmp_path / "layouts" / "layout_0000.tif"
    with rasterio.open(path) as tif:
        profile, names = {**tif.profile, "dtype": "float32"}, tif.descriptions
    with rasterio.open(tmp_path / "shares.tif", "w", **profile) as tif:
        tif.write(layout.shares[0])
        tif.descriptions = names
    assert np.array_equal(citygrain.open_layout(tmp_path / "shares.tif").cells, layout.cells)


def test_a_part_of_a_prepared_place_is_a_layout(cities):
    with rasterio.open(cities / "helsinki" / "layout.tif") as tif:
        left, _, _, top = tif.bounds
    part = citygrain.open_layout(cities / "helsinki", bounds=(left, top - 512, left + 512, top))
    assert part.names == ("helsinki",)
    assert part.cells.shape[2:] == (256, 256)
    assert part.grids[0].bounds == (left, top - 512, left + 512, top)


@given(st.data())
def test_slices_are_layouts_and_put_together_they_are_what_they_were(data):
    layouts = some(4)
    cut = data.draw(st.integers(0, 4))
    assert layouts[:cut] + layouts[cut:] == layouts
    i = data.draw(st.integers(-4, 3))
    one = layouts[i]
    assert len(one) == 1
    assert one.names == (layouts.names[i],)
    assert one.requested["coverage"][0] == layouts.requested["coverage"][i]
    assert layouts[[2, 0]] == layouts[2] + layouts[0]
    assert layouts[np.int64(i)] == one
    assert layouts[np.arange(4) > cut] == layouts[cut + 1 :]


def test_numbers_that_are_not_there_are_refused():
    with pytest.raises(IndexError):
        some(2)[2]


def test_layouts_of_the_same_name_are_numbered_when_they_are_put_together():
    both = some(2) + replace(some(2, seed=1), requested={"green": np.array([0.1, 0.2])})
    assert both.names == tuple(f"layout_{i:04d}" for i in range(4))
    assert np.isnan(both.requested["coverage"][2:]).all()
    assert np.isnan(both.requested["green"][:2]).all()
    assert both.table().loc["layout_0003", "requested_green"] == 0.2


@pytest.mark.parametrize(
    "other",
    [
        replace(some(1), resolution_m=4.0, grids=tuple(replace(grid, resolution_m=4.0) for grid in grids(1))),
        replace(some(1), channels=(*CHANNELS[:-1], "parking")),
        replace(some(1), grids=()),
        replace(some(1), raster_format=1),
    ],
)
def test_layouts_of_another_kind_are_not_put_together(other):
    with pytest.raises(DataError, match="same kind"):
        some(1) + other


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": np.zeros((1, 8, 4, 4), np.float32)},
        {"cells": np.zeros((8, 4, 4), np.uint8)},
        {"channels": ("building",)},
        {"names": ("a", "a", "b")},
        {"seeds": (1, 2)},
        {"grids": grids(2)},
        {"grids": tuple(replace(grid, width=16) for grid in grids(3))},
        {"resolution_m": 4.0},
        {"cells": some().cells.tolist()},
        {"cells": None},
        {"channels": "building"},
        {"channels": (*CHANNELS[:-1], CHANNELS[0])},
        {"names": ("a", "b", "../../c")},
        {"names": ("a", "b", "")},
        {"names": (1, 2, 3)},
        {"requested": {"coverage": np.zeros(2)}},
        {"requested": {"coverage": 0.1}},
    ],
)
def test_what_does_not_fit_is_refused_in_words(wrong):
    with pytest.raises(DataError, match=r"no layouts|[Ee]ach layout|name|grid does not fit"):
        replace(some(), **wrong)


def test_layouts_are_taken_as_from_an_array():
    layouts = some(4)
    for index in (np.int64(1), np.uint8(1), -3, [1], np.array([1]), slice(1, 2), [False, True, False, False]):
        assert layouts[index] == layouts[1], index
    assert layouts[::-2].seeds == (3, 1)
    assert [layout.names for layout in layouts] == [(name,) for name in layouts.names]
    assert layouts[3] in layouts
    assert layouts[[2, 2]].names == ("layout_0000", "layout_0001")
    assert layouts[[2, 2]] == layouts[2] + layouts[2]
    for index in (5, -5, [0, 9], [True], "layout_0001"):
        with pytest.raises(IndexError):
            layouts[index]


def test_layouts_are_equal_if_all_that_they_hold_is():
    assert some() == some()
    assert some() != some(seed=1)
    for other in ({"seeds": (3, 4, 5)}, {"names": ("a", "b", "c")}, {"grids": ()}, {"requested": {}}):
        assert some() != replace(some(), **other), other
    assert some() != "layouts"
    for copied in (copy.copy, copy.deepcopy, lambda layouts: pickle.loads(pickle.dumps(layouts))):
        assert copied(some()) == some()
    with pytest.raises(TypeError):
        some() + 1


def test_cells_cannot_be_written_to_so_that_measured_values_stay_right():
    cells = np.zeros((1, 1, 8, 8), np.uint8)
    layouts = Layouts(cells, ("building",), 8.0)
    with pytest.raises(ValueError, match="read-only"):
        layouts.cells[:] = 255
    cells[:] = 0  # an array stays its owner's
    every = Layouts(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)[:, :, ::-1], ("building",), 8.0)
    assert np.array_equal(every.tensor.numpy(), every.shares)
    assert np.array_equal((every.tensor * 255).round().numpy(), every.cells)


def test_no_layouts_are_a_set_too(tmp_path):
    none = some()[:0]
    assert none + some() == some() == some() + none
    assert len(none.table()) == len(none.measure()) == 0
    assert none.comparison()["measured"].isna().all()
    assert none.to_xarray().shape == (0, *some().cells.shape[1:])
    assert "Layouts(0 of" in none._repr_html_()
    for action in (lambda: none.save(tmp_path / "none"), none.vectors, none.graph, none.picture, none.show):
        with pytest.raises(DataError):
            action()
    assert not (tmp_path / "none").exists()


def test_layouts_come_back_in_the_order_in_which_they_were_saved(tmp_path):
    for i, layouts in enumerate((some()[::-1], some(names=("10", "9", "b.c")))):
        assert citygrain.open_layout(layouts.save(tmp_path / str(i))) == layouts


def test_what_cannot_be_drawn_leaves_no_half_of_a_set(tmp_path):
    with pytest.raises(DataError, match="no colour"):
        replace(some(1), channels=(*CHANNELS[:-1], "trees")).save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_layouts_in_several_crss_are_saved_but_are_no_one_table(tmp_path):
    layouts = some(2)
    apart = replace(layouts, grids=(layouts.grids[0], replace(layouts.grids[1], crs="EPSG:32634")))
    assert citygrain.open_layout(apart.save(tmp_path)) == apart
    for action in (apart.vectors, apart.to_xarray):
        with pytest.raises(DataError, match="several CRSs"):
            action()


@pytest.mark.parametrize(("dtype", "value"), [("float32", 2), ("float32", -1), ("float32", np.nan), ("int16", 300)])
def test_values_that_are_no_coverage_are_refused(tmp_path, dtype, value):
    some(1).write_geotiffs(tmp_path)
    with rasterio.open(tmp_path / "layouts" / "layout_0000.tif") as tif:
        profile, names = {**tif.profile, "dtype": dtype}, tif.descriptions
    with rasterio.open(tmp_path / "wrong.tif", "w", **profile) as tif:
        tif.write(np.full((len(CHANNELS), SIZE, SIZE), value, dtype))
        tif.descriptions = names
    with pytest.raises(DataError, match="no coverage"):
        citygrain.open_layout(tmp_path / "wrong.tif")


def test_an_array_goes_through_a_file_with_its_crs(tmp_path):
    some(2).to_xarray().to_netcdf(tmp_path / "layouts.nc")
    with xr.open_dataset(tmp_path / "layouts.nc", decode_coords="all") as read:
        again = read["coverage"].load()
    assert again.equals(some(2).to_xarray())
    assert CRS.from_cf(again.spatial_ref.attrs) == CRS("EPSG:32635")


def test_a_table_has_what_was_requested_beside_what_was_measured(tmp_path):
    layouts = some()
    layouts.save(tmp_path)
    table = layouts.table()
    assert list(table["seed"]) == [0, 1, 2]
    assert np.array_equal(table["requested_coverage"], layouts.requested["coverage"])
    assert np.array_equal(
        table["measured_coverage"], layouts.cells[:, 0].mean((1, 2)) / np.float32(255)
    ) or np.allclose(table["measured_coverage"], layouts.cells[:, 0].mean((1, 2)) / 255)
    text = (tmp_path / "measured.csv").read_text(encoding="utf-8").splitlines()
    assert text[0].split(",") == ["layout", *table.columns]
    assert text[1].startswith("layout_0000,0,0.1,")


def test_a_comparison_tells_means_spread_and_errors():
    layouts = some()
    row = layouts.comparison().loc["coverage"]
    errors = abs(layouts.measured["coverage"] - layouts.requested["coverage"])
    assert row["mean_error"] == pytest.approx(errors.mean())
    measured = layouts.measured["coverage"]
    assert [row["p10"], row["p90"]] == np.percentile(measured, [10, 90]).tolist()
    assert row["measured"] == pytest.approx(measured.mean())
    uneven = replace(layouts, requested={"coverage": np.array([0.1, np.nan, 0.4])}).comparison().loc["coverage"]
    assert uneven["requested"] == pytest.approx(0.25)
    assert np.isnan(layouts.comparison().loc["green", "requested"])


def test_vectors_are_those_of_each_layout_and_name_it():
    layouts = some(2)
    layers = layouts.vectors()
    alone = vectorize(layouts.cells[1], CHANNELS, layouts.grids[1]).layers()
    for name, layer in alone.items():
        mine = layers[name][layers[name]["layout"] == "layout_0001"]
        assert list(mine.geometry.to_wkb()) == list(layer.geometry.to_wkb())
        assert layers[name].crs == "EPSG:32635"
    assert len(layers["building"])


def test_a_graph_is_that_of_one_layout_in_its_crs():
    graph = some()[1].graph("drive")
    assert isinstance(graph, nx.MultiDiGraph)
    assert graph.graph["crs"] == "EPSG:32635"
    x = nx.get_node_attributes(graph, "x").values()
    assert 386_300 <= min(x) < max(x) <= 386_300 + SIZE * CELL
    with pytest.raises(DataError, match="one layout"):
        some().graph()


def test_an_array_has_the_middles_of_the_cells_and_the_crs():
    one, many = some(1).to_xarray(), some(2).to_xarray()
    assert one.dims == ("layout", "channel", "y", "x")
    assert one.x[0] == 386_000 + CELL / 2
    assert one.y[-1] == 6_672_000 - SIZE * CELL + CELL / 2
    assert CRS.from_cf(one.spatial_ref.attrs) == CRS("EPSG:32635")
    assert np.array_equal(many.sel(layout="layout_0001", channel="street").values, some(2).shares[1, 2])
    assert list(many.left) == [386_000, 386_300]
    assert many.x[0] == CELL / 2


def test_figures_are_drawn_where_one_wants_them_and_returned():
    layouts = some(2)
    axes = Figure().subplots()
    assert layouts.show(ax=axes) is axes
    assert np.array_equal(axes.images[0].get_array(), layouts.picture())
    alone = layouts.show()
    assert tuple(alone.figure.get_size_inches() * alone.figure.dpi) == layouts.picture().size


def test_a_notebook_shows_a_sheet_and_a_table():
    page = some()._repr_html_()
    assert page.count("<img") == 1
    assert all(f"<th>{name}</th>" in page for name in measurable(CHANNELS))
    many = some(SHOWN + 2)._repr_html_()
    assert f"{SHOWN} of {SHOWN + 2}" in many
    assert repr(some()).startswith("Layouts(3 of 32 × 32 cells of 8 m, EPSG:32635")
    none = some()[:0]
    assert "Layouts(0 of 32 × 32 cells" in none._repr_html_()
    assert none.comparison().drop(columns="unit").isna().all(axis=None)


def test_a_smaller_set_leaves_nothing_of_the_larger_one(tmp_path):
    some(4).save(tmp_path)
    (tmp_path / "layouts" / "mine_0003.tif").touch()
    some(2).save(tmp_path)
    left = sorted(path.name for path in (tmp_path / "layouts").iterdir())
    assert left == ["layout_0000.tif", "layout_0001.tif", "mine_0003.tif"]


def test_layouts_that_lie_nowhere_say_so(tmp_path):
    nowhere = replace(some(1), grids=())
    for action in (lambda: nowhere.save(tmp_path), nowhere.vectors, nowhere.graph):
        with pytest.raises(DataError, match="lie nowhere"):
            action()
    assert nowhere.measure().equals(some(1).measure())
    assert "left" not in nowhere.to_xarray().coords


def test_files_of_several_kinds_are_not_opened_together(tmp_path):
    some(1).save(tmp_path)
    replace(
        some(1),
        cells=some(1).cells[:, :, :16, :16],
        names=("small",),
        grids=(replace(grids(1)[0], width=16, height=16),),
    ).save(tmp_path)
    with pytest.raises(DataError, match="several kinds"):
        citygrain.open_layout(tmp_path)


def test_requests_of_another_sample_are_not_taken_for_these(tmp_path):
    some(2).save(tmp_path)
    some(2, seed=5).write_geotiffs(tmp_path)
    assert citygrain.open_layout(tmp_path).requested == {}


def test_selected_channels_are_those_bands_and_measure_the_same():
    layouts = some()
    turned = layouts.select(("green", "street", "building"))
    assert np.array_equal(turned.cells, layouts.cells[:, [6, 2, 0]])
    assert turned.measured["coverage"] == pytest.approx(layouts.measured["coverage"])
    assert layouts.select(CHANNELS) is layouts
    with pytest.raises(DataError, match="no such channel"):
        layouts.select(("parking",))


def test_channels_of_an_earlier_format_are_added_up_and_never_taken_apart():
    cells = np.zeros((1, 4, 2, 2), np.uint8)
    cells[0, 0], cells[0, 1], cells[0, 2], cells[0, 3] = 100, 50, 30, 20
    layouts = Layouts(cells, ("street", "service", "walk", "square"), CELL)
    earlier = layouts.select(("street", "walk"), raster_format=1)
    assert earlier.cells[0, :, 0, 0].tolist() == [180, 50]  # a service road of 5 m is 1.6 of a street's 8 m
    assert earlier.raster_format == 1
    with pytest.raises(DataError, match="earlier format"):
        earlier.select(("street",))


def test_no_area_is_too_small_where_that_is_asked_for():
    layouts = some(1)
    every = layouts.vectors(smallest_m2=dict.fromkeys(SMALLEST_M2, 0))["building"]
    assert len(every) > len(layouts.vectors()["building"])
    assert (every.area > 0).all()
    for wrong in ({"building": -1.0}, {"building": np.nan}, {"building": "12"}, {"street": 4.0}):
        with pytest.raises(ConfigError, match=r"is no area|no areas of this kind"):
            layouts.vectors(smallest_m2=wrong)
