"""Strokes are drawn as a city is drawn, and traced where they were drawn."""

import geopandas as gpd
import numpy as np
import pytest
import shapely

from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid, rasterize
from citygrain.geo.stroke_code import KINDS
from citygrain.geo.stroke_drawing import draw_strokes, trace_strokes
from citygrain.geo.window_strokes import Strokes

KNOWN = np.ones(len(KINDS), bool)
LINES = {
    "arterial": [[(-256, -120), (256, -60)]],
    "street": [[(-256, 100), (-20, 110), (256, 60)], [(-100, -101.7), (-90, 200)]],
    "walk": [[(10, 0), (90, 40), (120, 150)]],
}


@pytest.fixture
def strokes():
    kind = np.array([KINDS.index(name) for name, lines in LINES.items() for _ in lines])
    lines = np.array([shapely.LineString(line) for lines in LINES.values() for line in lines], object)
    return Strokes.of_lines(kind, lines, KNOWN)


@pytest.mark.parametrize("resolution_m", [1.0, 2.0, 4.0, 8.0])
def test_cells_are_those_that_prepare_draws(strokes, resolution_m):
    """At 2 m, and averaged where cells are larger."""
    drawn_m = min(resolution_m, 2.0)
    layers = {}
    for name, lines in LINES.items():
        upwards = [shapely.LineString([(x, -y) for x, y in line]) for line in lines]
        layers[name] = gpd.GeoDataFrame({"width_m": [WIDTHS[name]] * len(lines)}, geometry=upwards)
    size, f = round(512 / drawn_m), round(resolution_m / drawn_m)
    (expected,) = rasterize(layers, Grid("EPSG:32631", -256.0, 256.0, drawn_m, size, size), KINDS, size)
    expected = np.rint(expected.reshape(len(KINDS), size // f, f, size // f, f).mean((2, 4)))
    np.testing.assert_array_equal(draw_strokes(strokes, KINDS, KINDS, size // f, resolution_m), expected)


def test_channels_that_are_no_ways_are_empty_and_kinds_that_are_no_channels_are_not_drawn(strokes):
    whole = draw_strokes(strokes, KINDS, KINDS, 64, 8.0)
    cells = draw_strokes(strokes, KINDS, ["building", "walk", "street"], 64, 8.0)
    assert not cells[0].any()
    np.testing.assert_array_equal(cells[1:], whole[[KINDS.index("walk"), KINDS.index("street")]])


@pytest.mark.parametrize("resolution_m", [2.0, 4.0])
def test_what_is_drawn_is_traced(strokes, resolution_m):
    cells = draw_strokes(strokes, KINDS, KINDS, round(512 / resolution_m), resolution_m)
    traced = trace_strokes(cells, KINDS, resolution_m, KINDS)
    assert sorted(traced.kind.tolist()) == sorted(strokes.kind.tolist())
    for kind in np.unique(strokes.kind):
        one, other = (shapely.union_all(s.lines[s.kind == kind]) for s in (strokes, traced))
        assert shapely.hausdorff_distance(one, other) < 6
        assert other.length == pytest.approx(one.length, rel=0.02)
    again = trace_strokes(cells / np.float32(255), KINDS, resolution_m, KINDS)
    np.testing.assert_allclose(again.xy, traced.xy)


def test_of_an_empty_layout_nothing_is_traced():
    traced = trace_strokes(np.zeros((2, 64, 64), np.uint8), ["street", "walk"], 8.0, KINDS)
    assert len(traced) == 0
    assert traced.known.tolist() == [kind in {"street", "walk"} for kind in KINDS]
