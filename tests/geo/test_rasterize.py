"""Laws of drawing: area is right, shared walls close, nothing depends on how the work is cut."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.errors import DataError
from citygrain.geo.rasterize import Grid, rasterize, rasterize_area

CRS = "EPSG:32633"
EXTENT_M = 512.0


def layer(geometries, width_m=math.nan):
    return gpd.GeoDataFrame({"width_m": np.full(len(geometries), width_m)}, geometry=list(geometries), crs=CRS)


def draw(geometries, width_m=math.nan, resolution_m=2.0, strip_rows=512):
    """Coverage in [0, 1] of one layer on a square of `EXTENT_M` whose lower left corner is the origin."""
    grid = Grid.covering((0, 0, EXTENT_M, EXTENT_M), CRS, resolution_m)
    strips = rasterize({"x": layer(geometries, width_m)}, grid, ("x",), strip_rows)
    return np.concatenate(list(strips), axis=1)[0] / 255


def area_m2(coverage, resolution_m=2.0):
    return coverage.sum() * resolution_m**2


@st.composite
def star(draw_, holes=True):
    """A star-shaped polygon well inside the extent, perhaps with a star-shaped hole, wound either way."""
    n = draw_(st.integers(3, 12))
    seed = draw_(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * (np.arange(n) + rng.uniform(0.1, 0.9, n)) / n
    radius = rng.uniform(15, 120, n)
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
    centre = rng.uniform(125, EXTENT_M - 125, 2)
    inner = [ring[::-1] * rng.uniform(0.2, 0.7) + centre] if holes and rng.random() < 0.5 and n > 4 else []
    polygon = shapely.make_valid(shapely.Polygon(ring + centre, inner))
    return polygon.reverse() if rng.random() < 0.5 else polygon


@st.composite
def way(draw_):
    """A way of 100 m or more that turns by less than a right angle at its bends."""
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    n = int(rng.integers(2, 6))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(-1, 1, n))
    steps = np.column_stack([np.cos(heading), np.sin(heading)]) * rng.uniform(20, 40, n)[:, None]
    xy = np.cumsum(np.vstack([[0, 0], steps]), axis=0)
    return shapely.LineString(xy - xy.mean(axis=0) + EXTENT_M / 2 + rng.uniform(-50, 50, 2))


@settings(max_examples=60, deadline=None)
@given(star())
def test_the_area_of_a_polygon_is_right_within_one_percent(polygon):
    assert area_m2(draw([polygon])) == pytest.approx(polygon.area, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(way(), st.sampled_from([3.0, 4.0, 8.0, 14.0]))
def test_the_area_of_a_way_is_that_of_its_buffer_within_one_percent(line, width):
    assert area_m2(draw([line], width)) == pytest.approx(line.buffer(width / 2, quad_segs=16).area, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(star())
def test_coverage_is_the_covered_share_of_each_cell(polygon):
    coverage = draw([polygon], resolution_m=8.0)
    n = len(coverage)
    left, row = np.meshgrid(np.arange(n) * 8.0, np.arange(n))
    bottom = EXTENT_M - (row + 1) * 8.0
    exact = shapely.area(shapely.intersection(shapely.box(left, bottom, left + 8, bottom + 8), polygon)) / 64
    np.testing.assert_allclose(coverage, exact, atol=0.03)
    assert np.abs(coverage - exact).mean() < 5e-4


def scene(seed=0):
    """Areas and ways that overlap and cross."""
    rng = np.random.default_rng(seed)
    areas = [
        shapely.make_valid(
            shapely.Polygon(rng.uniform(20, EXTENT_M - 20, 2) + rng.normal(0, 20, (int(rng.integers(3, 9)), 2)))
        )
        for _ in range(30)
    ]
    lines = [
        shapely.LineString(rng.uniform(0, EXTENT_M, 2) + np.cumsum(rng.normal(0, 30, (int(rng.integers(2, 7)), 2)), 0))
        for _ in range(20)
    ]
    return areas, lines


@pytest.mark.parametrize(("what", "width"), [("areas", math.nan), ("lines", 14.0), ("lines", 8.0), ("lines", 3.0)])
def test_averaging_2_m_to_8_m_is_drawing_at_8_m(what, width):
    """Within .03 of a cell on average where cells are partly covered, and within 4 % of the whole.

    It is not nothing because the share of a coarse cell that two overlapping features cover is a guess.
    """
    features = scene()[what == "lines"]
    fine = draw(features, width).reshape(64, 4, 64, 4).mean((1, 3))
    coarse = draw(features, width, resolution_m=8.0)
    partial = (fine > 0) & (fine < 1)
    assert np.abs(coarse - fine)[partial].mean() < 0.03
    assert coarse.sum() == pytest.approx(fine.sum(), rel=0.04)


def test_one_feature_at_8_m_is_its_average_at_2_m():
    """Without overlap they agree closely."""
    for geometry, width in ((shapely.Point(250, 260).buffer(150), math.nan), (way_for(3), 8.0)):
        fine = draw([geometry], width).reshape(64, 4, 64, 4).mean((1, 3))
        np.testing.assert_allclose(draw([geometry], width, resolution_m=8.0), fine, atol=0.06)


def way_for(seed):
    rng = np.random.default_rng(seed)
    return shapely.LineString(np.column_stack([np.linspace(60, 450, 5), rng.uniform(150, 350, 5)]))


@pytest.mark.parametrize("rows", [32, 64, 104])
@pytest.mark.parametrize(("what", "width"), [("areas", math.nan), ("lines", 8.0)])
def test_strips_leave_no_seam(what, width, rows):
    """Cutting an edge moves it by half of 1/256 of a cell at most, in few cells and to neither side on average."""
    features = scene(1)[what == "lines"]
    whole, cut = (draw(features, width, strip_rows=n) for n in (512, rows))
    difference = (cut - whole) * 255
    assert np.abs(difference).max() <= 2
    assert (difference != 0).mean() < 0.005
    assert abs(difference.mean()) < 0.002


def test_lines_just_outside_a_strip_are_drawn_into_it():
    """A clipped line's own end must not show: a way along a strip's edge is as wide on both sides."""
    along = shapely.LineString([(-50, EXTENT_M - 128.0), (EXTENT_M + 50, EXTENT_M - 128.0)])  # between rows 63 and 64
    coverage = draw([along], 12.0, strip_rows=64)
    assert (coverage[61:67] == 1).all()
    assert coverage.sum() == 6 * 256
    upright = shapely.LineString([(-3, -50), (-3, EXTENT_M + 50)])
    assert (draw([upright], 10.0, strip_rows=64)[:, 0] == 1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_areas_that_share_walls_close_completely(seed):
    points = shapely.MultiPoint(np.random.default_rng(seed).uniform(0, EXTENT_M, (40, 2)))
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=shapely.box(0, 0, EXTENT_M, EXTENT_M)))
    assert draw(cells).min() == 1


def test_winding_does_not_matter():
    """Sources wind rings as they like: outer rings add up, holes take away, an island in a hole adds again."""
    outer, hole, island = (shapely.box(100, 100, 100 + s, 100 + s) for s in (200, 150, 50))
    polygon = shapely.Polygon(outer.exterior.coords, [hole.exterior.coords])
    neighbour = shapely.box(300, 100, 400, 300).reverse()
    expected = draw([polygon, island, neighbour])
    assert area_m2(expected) == pytest.approx(200**2 - 150**2 + 50**2 + 100 * 200, rel=1e-3)
    for turned in ([polygon.reverse(), island, neighbour], [polygon, island.reverse(), neighbour.reverse()]):
        np.testing.assert_array_equal(draw(turned), expected)


def test_overlaps_count_once():
    park, wood = shapely.box(10, 10, 210, 210), shapely.box(50, 50, 100, 100)
    np.testing.assert_array_equal(draw([park, wood]), draw([park]))
    cross = [shapely.LineString([(100, 200), (300, 200)]), shapely.LineString([(200, 100), (200, 300)])]
    expected = shapely.union_all([line.buffer(4) for line in cross]).area
    assert area_m2(draw(cross, 8.0)) == pytest.approx(expected, rel=0.01)


def test_ways_that_meet_leave_no_notch():
    bend = [(100.3, 100.1), (200.7, 130.9), (250.2, 240.4)]
    pieces = [shapely.LineString(bend[:2]), shapely.LineString(bend[1:])]
    met, whole = draw(pieces, 10.0), draw([shapely.LineString(bend)], 10.0)
    assert (met >= whole - 0.01).all()
    assert area_m2(met) == pytest.approx(area_m2(whole), rel=0.01)


def test_a_layer_may_hold_anything():
    """Areas, lines of several widths, collections, points, nothing: what has no area draws nothing."""
    square, line = shapely.box(20, 20, 120, 120), shapely.LineString([(200, 100), (400, 100)])
    mixed = gpd.GeoDataFrame(
        {"width_m": [math.nan, 8.0, 4.0, math.nan, math.nan, math.nan, 8.0]},
        geometry=[
            shapely.GeometryCollection([shapely.MultiPolygon([square]), shapely.Point(1, 1), shapely.Polygon()]),
            line,
            shapely.MultiLineString([[(200, 200), (400, 200)], [(200, 300), (400, 300)]]),
            None,
            shapely.Point(5, 5),
            shapely.Polygon(),
            shapely.LineString(),
        ],
        crs=CRS,
    )
    grid = Grid.covering((0, 0, EXTENT_M, EXTENT_M), CRS, 2.0)
    (strip,) = rasterize({"x": mixed}, grid, ("nothing", "x"))
    assert strip.shape == (2, 256, 256)
    assert not strip[0].any()
    lines = line.buffer(4).area + 2 * line.buffer(2).area
    assert area_m2(strip[1] / 255) == pytest.approx(100**2 + lines, rel=0.005)


def test_a_line_without_width_is_a_bug_in_its_source():
    with pytest.raises(ValueError, match="width_m"):
        draw([shapely.LineString([(0, 0), (9, 9)])])


def test_far_coordinates_are_as_exact_as_near_ones():
    square = shapely.box(0.5, 0.5, 30.5, 20.5)
    far = shapely.transform(square, lambda xy: xy + np.array([512_000.0, 6_144_000.0]))
    near_grid = Grid(CRS, 0.0, 64.0, 2.0, 32, 32)
    far_grid = Grid(CRS, 512_000.0, 6_144_064.0, 2.0, 32, 32)
    (near,) = rasterize_area(square, near_grid)
    (moved,) = rasterize_area(far, far_grid)
    np.testing.assert_array_equal(near, moved)
    assert near.sum() / 255 * 4 == pytest.approx(square.area, rel=1e-3)


def test_flattening_in_chunks_changes_nothing(monkeypatch):
    areas, lines = scene(2)
    whole = draw(areas), draw(lines, 4.0)
    monkeypatch.setattr("citygrain.geo.rasterize.CHUNK", 7)
    np.testing.assert_array_equal(draw(areas), whole[0])
    np.testing.assert_array_equal(draw(lines, 4.0), whole[1])


@given(st.tuples(*[st.floats(-1e6, 1e6)] * 2), st.tuples(*[st.floats(1, 1e5)] * 2), st.sampled_from([0.5, 1, 2, 4, 8]))
def test_a_grid_covers_its_bounds_and_nests(corner, size, resolution):
    bounds = (*corner, corner[0] + size[0], corner[1] + size[1])
    grid = Grid.covering(bounds, CRS, resolution)
    left, bottom, right, top = grid.bounds
    slack = 1e-6
    assert left <= bounds[0] + slack
    assert bottom <= bounds[1] + slack
    assert right >= bounds[2] - slack
    assert top >= bounds[3] - slack
    assert (left / resolution) % 8 == (top / resolution) % 8 == grid.width % 8 == grid.height % 8 == 0
    assert grid.coarser(4).bounds == grid.bounds


@pytest.mark.parametrize("resolution", [0, -2, math.nan, math.inf])
def test_a_resolution_is_a_positive_length(resolution):
    with pytest.raises(DataError, match="positive length"):
        Grid.covering((0, 0, 1, 1), CRS, resolution)
