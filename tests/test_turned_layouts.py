"""Layouts that lie turned: exactly where they say, in files, vectors, pictures and tables."""

from __future__ import annotations

import math
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st

import citygrain
from citygrain.evaluation.morphology import measure_vectors
from citygrain.generation.fields import read_fields
from citygrain.generation.georeference import lay_side_by_side
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.vectorize import node_features, vectorize
from citygrain.layouts import Layouts
from citygrain.plot.maps import show_layout
from citygrain.spec import PERCENTILES, LayoutSpec

CHANNELS = ("building", "arterial", "street")
UPRIGHT = Grid("EPSG:32633", 500_000.0, 6_000_512.0, 4.0, 96, 64)
LEFT, BOTTOM, RIGHT, TOP = UPRIGHT.bounds
BEARING = 30.0


def town(grid=UPRIGHT):
    """Return streets that cross, and two houses, in metres within a grid."""
    left, bottom, right, top = grid.upright.bounds
    streets = [shapely.LineString([(left, y), (right, y)]) for y in (bottom + 60, top - 60)] + [
        shapely.LineString([(x, bottom), (x, top)]) for x in (left + 80, left + 250)
    ]
    houses = [shapely.box(x, bottom + 90, x + 40, bottom + 120) for x in (left + 110, left + 180)]

    def layer(shapes, width):
        return gpd.GeoDataFrame({"width_m": [width] * len(shapes)}, geometry=shapes, crs=grid.crs)

    return {"street": layer(streets, 8.0), "building": layer(houses, math.nan)}


def draw(features, grid=UPRIGHT):
    return np.concatenate(list(rasterize(features, grid, CHANNELS)), 1)


def turn(shapes, bearing, grid=UPRIGHT):
    """Turn shapes clockwise about the middle of a grid."""
    return shapely.affinity.rotate(shapes, -bearing, origin=grid.upright.outline.centroid)


grids = st.builds(
    lambda left, top, cell, width, height, bearing: Grid("EPSG:32633", left, top, cell, width, height).turned(bearing),
    *(st.floats(3e5, 7e5), st.floats(0, 9e6), st.sampled_from([2.0, 4.0, 8.0, 2.5])),
    *(st.integers(1, 400), st.integers(1, 400), st.floats(-90, 180)),
)  # fmt: skip


@given(grids, st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1))
def test_cells_lie_where_the_transform_says_and_come_back(grid, points):
    cells = np.array(points)
    metres = grid.to_metres(cells)
    assert np.abs(grid.to_cells(metres) - cells).max() < 1e-5
    assert np.abs(metres - [grid.transform @ tuple(point) for point in points]).max() < 1e-5


@given(grids, st.floats(0, 90))
def test_a_grid_is_turned_about_its_middle_by_45_degrees_at_most(grid, bearing):
    turned = grid.turned(bearing)
    assert (turned.angle - bearing + 45) % 90 == pytest.approx(45, abs=1e-3)
    assert -45 <= turned.angle <= 45
    assert turned.outline.centroid.distance(grid.outline.centroid) < 1e-5
    assert turned.outline.area == pytest.approx(grid.outline.area)
    assert turned.turned(bearing) == turned
    back = turned.turned(grid.angle)
    assert (back.left, back.top) == pytest.approx((grid.left, grid.top), abs=1e-5)


def test_features_turned_with_their_grid_are_drawn_as_before():
    features = town()
    there = {name: layer.set_geometry([turn(of, BEARING) for of in layer.geometry]) for name, layer in features.items()}
    turned = draw(there, UPRIGHT.turned(BEARING)).astype(int)
    assert np.abs(turned - draw(features)).max() <= 2


def test_vectors_of_a_turned_layout_are_those_of_the_upright_one_turned():
    cells = draw(town())
    upright = vectorize(cells, CHANNELS, UPRIGHT)
    turned = vectorize(cells, CHANNELS, UPRIGHT.turned(BEARING))
    for mine, theirs in zip(turned.ways["drive"].lines, upright.ways["drive"].lines, strict=True):
        assert mine.hausdorff_distance(turn(theirs, BEARING)) < 1e-6
    for mine, theirs in zip(turned.areas["building"], upright.areas["building"], strict=True):
        assert mine.hausdorff_distance(turn(theirs, BEARING)) < 1e-6
        assert mine.area == pytest.approx(theirs.area)
    assert np.array_equal(turned.ways["drive"].at_edge, upright.ways["drive"].at_edge)
    assert turned.ways["drive"].at_edge.sum() == 8
    degrees = np.degrees(
        [math.atan2(*np.subtract(*way.coords[:: len(way.coords) - 1])) for way in turned.ways["drive"].lines]
    )
    assert np.abs((degrees - BEARING + 45) % 90 - 45).max() < 0.5
    assert measure_vectors(turned).values == pytest.approx(measure_vectors(upright).values, rel=1e-4, nan_ok=True)


def test_features_of_a_source_are_cut_at_the_edges_of_a_turned_layout():
    grid = UPRIGHT.turned(BEARING)
    beyond = shapely.LineString([grid.to_metres(np.array([p], float))[0] for p in ((-40, 20), (140, 20))])
    ways = node_features({"street": [beyond]}, grid).ways["drive"]
    assert shapely.length(ways.lines).sum() == pytest.approx(96 * 4)
    assert ways.at_edge.all()


def layouts(*bearings):
    cells = np.stack([draw(town())] * len(bearings))
    where = lay_side_by_side((64, 96), 4.0, len(bearings), (UPRIGHT.crs, LEFT, TOP), bearings=bearings)
    asked = {"bearing": np.array(bearings, float), "order": np.full(len(bearings), np.nan)}
    return Layouts(cells, CHANNELS, 4.0, tuple(where), requested=asked)


@pytest.mark.parametrize("bearing", [0.0, 17.123, 45.0, 60.0, 89.9])
def test_a_turned_layout_is_the_same_after_saving_and_opening_it(tmp_path, bearing):
    made = layouts(bearing, 5.0)
    again = citygrain.open_layout(made.save(tmp_path / "made"))
    assert again == made
    assert np.array_equal(again.measured["bearing"], made.measured["bearing"])
    file = tmp_path / "made" / "layouts" / "layout_0000.tif"
    with rasterio.open(file) as tif:
        assert np.allclose(tif.transform[:6], made.grids[0].transform[:6], atol=1e-9)
    alone = citygrain.open_layout(file)
    assert alone.grids == made[0].grids
    for name, features in made[0].vectors().items():
        assert features.geometry.geom_equals_exact(alone.vectors()[name].geometry, 1e-6).all()


def test_a_part_of_a_turned_layout_lies_where_it_did(tmp_path):
    made = layouts(BEARING)
    made.save(tmp_path)
    x, y = made.grids[0].to_metres(np.array([[40.0, 30.0]]))[0]
    part = citygrain.open_layout(tmp_path / "layouts" / "layout_0000.tif", bounds=(x - 20, y - 20, x + 20, y + 20))
    column, row = np.rint(made.grids[0].to_cells(np.array([[part.grids[0].left, part.grids[0].top]]))[0]).astype(int)
    height, width = part.cells.shape[2:]
    assert np.array_equal(part.cells[0], made.cells[0][:, row : row + height, column : column + width])
    assert part.grids[0].outline.contains(shapely.box(x - 18, y - 18, x + 18, y + 18))


def test_bearing_is_that_of_the_grid_and_what_streets_are_off_it():
    made = layouts(0.0, 20.0, 70.0)
    assert made.measured["bearing"] == pytest.approx([0, 20, 70], abs=0.1)
    assert [grid.angle for grid in made.grids] == [0, 20, -20]
    assert (made.measured["order"] > 0.7).all()
    assert made.comparison().loc["bearing", "mean_error"] < 0.1
    assert made.comparison().loc["bearing", "unit"] == "°"
    assert not {"bearing", "order"} & set(replace(made, requested={}).measured), "nobody was to say anything of them"


@given(st.lists(st.floats(0, 90), min_size=1, max_size=9))
def test_turned_layouts_do_not_overlap(bearings):
    where = [
        grid.outline for grid in lay_side_by_side((64, 96), 4.0, len(bearings), ("EPSG:32633", 0.0, 0.0), 3, bearings)
    ]
    assert shapely.union_all(where).area == pytest.approx(sum(one.area for one in where))


def test_arrays_and_maps_know_the_angle():
    made = layouts(0.0, 20.0)
    array = made.to_xarray()
    assert array.angle.values.tolist() == [0, 20]
    assert array.x.values[0] == 2
    assert "angle" not in made[0].to_xarray().coords
    ax = show_layout(made.cells[1], CHANNELS, grid=made.grids[1])
    left, bottom, right, top = made.grids[1].bounds
    assert (*ax.get_xlim(), *ax.get_ylim()) == pytest.approx((left, right, bottom, top))
    right_of_rows = (made.grids[1].upright.bounds[2], made.grids[1].top)
    corner = ax.images[0].get_transform().transform(right_of_rows)
    there = made.grids[1].to_metres(np.array([[96.0, 0.0]]))[0]
    assert corner == pytest.approx(ax.transData.transform(there))


def test_values_go_to_the_east_of_the_map_on_a_turned_area_too():
    ramp = tuple(i / (PERCENTILES - 1) for i in range(PERCENTILES))
    spec = LayoutSpec(CHANNELS, 64, 4.0, scalars=("coverage",), statistics={"coverage": {"all": ramp}})
    asked = {"coverage": {"from": 0.0, "to": 1.0, "towards": "east"}}
    grid = UPRIGHT.turned(BEARING)
    values = read_fields(spec, asked, grid)["coverage"]
    y, x = np.mgrid[:64, :96] + 0.5
    east = grid.to_metres(np.stack([x.ravel(), y.ravel()], 1))[:, 0].reshape(x.shape)
    assert np.corrcoef(values.numpy().ravel(), east.ravel())[0, 1] == pytest.approx(1)
    assert 0 <= values.min() < 0.1
    assert 0.9 < values.max() <= 1
