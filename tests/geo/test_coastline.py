"""The sea lies to the right of the coastline, whatever the coastline looks like, and never floods the land in doubt."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiLineString, MultiPolygon, Polygon, box

from citygrain.geo.coastline import CoastlineWarning, build_sea

AREA = box(500_000, 6_000_000, 510_000, 6_008_000)
WEST, SOUTH, EAST, NORTH = AREA.bounds

seeds = st.integers(0, 2**32 - 1)
unhurried = settings(deadline=None)  # the machine may be busy


def star(rng: np.random.Generator, x: float, y: float, radius: float, *, anticlockwise: bool = True) -> Polygon:
    """A star-shaped polygon of known area."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24)) + np.linspace(0, 1e-3, 24)
    radii = radius * rng.uniform(0.3, 1, 24)
    ring = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
    polygon = Polygon(ring if anticlockwise else ring[::-1])
    assert polygon.is_valid
    return polygon


def right_of(start: tuple[float, float], end: tuple[float, float]) -> Polygon:
    """Half plane (as far as it matters) to the right of a line."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = np.array([x1 - x0, y1 - y0]) / np.hypot(x1 - x0, y1 - y0) * 1e5
    far0, far1 = (x0 - dx, y0 - dy), (x1 + dx, y1 + dy)
    return Polygon([far0, far1, (far1[0] + dy, far1[1] - dx), (far0[0] + dy, far0[1] - dx)])


def same(a: Polygon | MultiPolygon, b: Polygon | MultiPolygon) -> bool:
    return a.symmetric_difference(b).area < 1.0  # 1 m² of 80 km²


def test_without_a_coastline_there_is_no_sea():
    assert build_sea([], AREA).is_empty
    assert build_sea([LineString([(WEST - 500, SOUTH), (WEST - 500, NORTH)])], AREA).is_empty


@unhurried
@given(seeds)
def test_a_line_across_leaves_the_sea_on_its_right(seed):
    rng = np.random.default_rng(seed)
    start = (rng.uniform(WEST, EAST), rng.uniform(SOUTH - 5000, SOUTH - 1))
    end = (rng.uniform(WEST, EAST), rng.uniform(NORTH + 1, NORTH + 5000))
    line = LineString([start, *(np.array(start) + t * (np.array(end) - start) for t in np.sort(rng.random(5))), end])
    expected = right_of(start, end).intersection(AREA)
    assert same(build_sea([line], AREA), expected)
    # Drawn the other way round, land and sea change places.
    assert same(build_sea([line.reverse()], AREA), AREA.difference(expected))


@unhurried
@given(seeds)
def test_ways_need_not_be_whole_nor_in_order(seed):
    rng = np.random.default_rng(seed)
    ys = np.linspace(SOUTH - 1000, NORTH + 1000, 30)
    coast = np.stack([rng.uniform(WEST + 1000, EAST - 1000, 30), ys], axis=1)
    cuts = np.sort(rng.choice(np.arange(1, 29), 4, replace=False))
    ways = [LineString(coast[a : b + 1]) for a, b in zip([0, *cuts], [*cuts, 29], strict=True)]
    rng.shuffle(ways)
    expected = Polygon([*coast, (EAST + 1, NORTH + 1000), (EAST + 1, SOUTH - 1000)]).intersection(AREA)
    assert same(build_sea(ways, AREA), expected)
    assert same(build_sea([MultiLineString(ways)], AREA), expected)


@unhurried
@given(seeds)
def test_islands_rise_from_the_sea(seed):
    rng = np.random.default_rng(seed)
    islands = [star(rng, WEST + 1500 + 2000 * k, SOUTH + 4000, 900) for k in range(4)]
    water = build_sea([island.exterior for island in islands], AREA)
    assert water.area == pytest.approx(AREA.area - sum(island.area for island in islands), abs=1)
    assert same(water.union(MultiPolygon(islands)), AREA)


@unhurried
@given(seeds)
def test_a_clockwise_ring_holds_water(seed):
    rng = np.random.default_rng(seed)
    lagoon = star(rng, WEST + 4000, SOUTH + 4000, 3000, anticlockwise=False)
    assert same(build_sea([lagoon.exterior], AREA), lagoon)


@unhurried
@given(seeds)
def test_islands_may_lie_off_a_coast_and_hold_lagoons(seed):
    rng = np.random.default_rng(seed)
    coast = LineString([(WEST + 2000, SOUTH - 10), (WEST + 2500, NORTH + 10)])
    island = star(rng, WEST + 6000, SOUTH + 4000, 2500)
    lagoon = star(rng, WEST + 6000, SOUTH + 4000, 500, anticlockwise=False)
    expected = right_of(*coast.coords).intersection(AREA).difference(island)
    if not island.contains(lagoon):
        return
    assert same(build_sea([lagoon.exterior, coast, island.exterior], AREA), expected.union(lagoon))


@unhurried
@given(seeds, st.booleans())
def test_an_island_or_a_lagoon_cut_by_the_edge_of_the_area(seed, water_inside):
    rng = np.random.default_rng(seed)
    ring = star(rng, WEST + rng.uniform(-500, 500), SOUTH + 3000, 2000, anticlockwise=not water_inside)
    if not ring.intersects(AREA):
        return
    expected = ring.intersection(AREA) if water_inside else AREA.difference(ring)
    assert same(build_sea([ring.exterior], AREA), expected)


def test_an_area_of_any_shape_and_of_several_parts():
    parts = MultiPolygon([star(np.random.default_rng(k), WEST + 5000 * k, SOUTH, 2000) for k in range(3)])
    coast = LineString([(WEST - 9000, SOUTH), (WEST + 20_000, SOUTH + 1)])
    assert same(build_sea([coast], parts), parts.intersection(right_of(*coast.coords)))


def test_vertices_on_the_edge_of_the_area():
    coast = LineString([(WEST + 5000, SOUTH), (WEST + 5000, NORTH)])
    assert build_sea([coast], AREA).area == pytest.approx(AREA.area / 2)
    # A coastline that runs along the edge and only then turns in.
    coast = LineString([(WEST, SOUTH), (WEST, SOUTH + 4000), (EAST, SOUTH + 4000)])
    assert build_sea([coast], AREA).area == pytest.approx(AREA.area / 2)


def test_an_open_end_floods_nothing():
    coast = LineString([(WEST - 10, SOUTH + 4000), (WEST + 6000, SOUTH + 4000)])
    with pytest.warns(CoastlineWarning, match="6,000 m end inside"):
        assert build_sea([coast], AREA).is_empty


def test_an_open_end_leaves_the_rest_of_the_sea_alone():
    island = star(np.random.default_rng(1), WEST + 8000, SOUTH + 6000, 1000, anticlockwise=False)
    stub = LineString([(WEST + 1000, SOUTH + 1000), (WEST + 2000, SOUTH + 1000)])
    with pytest.warns(CoastlineWarning, match="1,000 m end inside"):
        assert same(build_sea([stub, island.exterior], AREA), island)


def test_coastlines_that_contradict_each_other_flood_nothing():
    # Land on the left of both: the strip between them would be land by one and sea by the other.
    lines = [LineString([(x, SOUTH - 1), (x, NORTH + 1)]) for x in (WEST + 3000, WEST + 7000)]
    with pytest.warns(CoastlineWarning, match="1 of its faces"):
        water = build_sea(lines, AREA)
    assert same(water, box(WEST + 7000, SOUTH, EAST, NORTH))


def test_an_islet_drawn_the_wrong_way_round_does_not_dry_up_the_sea():
    coast = LineString([(WEST + 3000, SOUTH - 1), (WEST + 3000, NORTH + 1)])
    islet = star(np.random.default_rng(2), WEST + 6000, SOUTH + 4000, 80, anticlockwise=False)
    with pytest.warns(CoastlineWarning, match="1 of its faces"):
        assert same(build_sea([coast, islet.exterior], AREA), box(WEST + 3000, SOUTH, EAST, NORTH))


def test_a_coastline_given_twice_is_one_coastline():
    coast = LineString([(WEST + 5000, SOUTH - 1), (WEST + 5000, NORTH + 1)])
    assert build_sea([coast, coast], AREA).area == pytest.approx(AREA.area / 2)


def test_the_result_is_valid_and_inside_the_area():
    rng = np.random.default_rng(3)
    islands = [star(rng, *rng.uniform((WEST, SOUTH), (EAST, NORTH)), 150) for _ in range(300)]
    merged = shapely.get_parts(shapely.union_all(islands))
    water = build_sea([shapely.orient_polygons(p).exterior for p in merged], AREA)
    assert water.is_valid
    assert AREA.buffer(1e-3).contains(water)
