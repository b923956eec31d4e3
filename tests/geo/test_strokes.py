"""Laws of natural streets: nothing is lost, nothing is drawn twice, and a street goes on as long as it hardly bends."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.geo.strokes import DEFLECTION_DEG, find_apart, merge_strokes

spots = st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(lambda xy: (30.0 * xy[0], 30.0 * xy[1]))
polylines = st.lists(st.lists(spots, min_size=2, max_size=5, unique=True).map(shapely.LineString), max_size=9)


def merged(*lines):
    return merge_strokes({"street": list(lines)})["street"]


def line(*xy):
    return shapely.LineString(xy)


def lay_grid(n, spacing=80.0, angle=0.0):
    """The edges of a grid of n × n streets, each from one junction to the next, and on beyond the last."""
    at = np.arange(-1, n + 1) * spacing
    edges = [line((x, a), (x, b)) for x in at[1:-1] for a, b in pairwise(at)]
    edges += [line((a, y), (b, y)) for y in at[1:-1] for a, b in pairwise(at)]
    c, s = np.cos(angle), np.sin(angle)
    return list(shapely.transform(np.array(edges), lambda xy: xy @ np.array([[c, s], [-s, c]])))


def length(lines):
    return float(shapely.length(np.asarray(lines, object)).sum())


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2])
def test_a_grid_of_ten_by_ten_streets_is_twenty_strokes(angle):
    strokes = merged(*lay_grid(10, angle=angle))
    assert len(strokes) == 20
    ends = shapely.distance(shapely.get_point(strokes, 0), shapely.get_point(strokes, -1))
    np.testing.assert_allclose(shapely.length(strokes), ends, rtol=1e-4)  # straight from end to end
    np.testing.assert_allclose(ends, 880.0, rtol=1e-4)


@given(polylines, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost_drawn_twice_or_dependent_on_the_order(lines, chance):
    strokes = merged(*lines)
    drawn = shapely.union_all(lines, grid_size=0.01)
    assert length(strokes) == pytest.approx(length([drawn]))
    assert length([shapely.difference(drawn, shapely.union_all(strokes, grid_size=0.01), grid_size=0.01)]) < 0.1
    mixed = [chance.choice([one, one.reverse()]) for one in lines + lines[:2]]
    chance.shuffle(mixed)
    assert length(merged(*mixed)) == pytest.approx(length(strokes))


@pytest.mark.parametrize(("bend", "strokes"), [(0, 1), (DEFLECTION_DEG - 1, 1), (DEFLECTION_DEG + 1, 2), (90, 2)])
def test_a_street_goes_on_at_a_junction_if_it_bends_little(bend, strokes):
    a = np.radians(bend)
    on = line((0, 0), (60 * np.cos(a), 60 * np.sin(a)))
    side = line((0, 0), (-20, 57))  # too sharp to go on with either
    assert len(merged(line((-60, 0), (0, 0)), on, side)) == strokes + 1


def test_of_several_that_go_on_the_straightest_does():
    main = line((-60, 0), (0, 0))
    strokes = merged(main, line((0, 0), (60, 25)), line((0, 0), (60, -10)))
    longest = strokes[shapely.length(strokes).argmax()]
    assert shapely.get_coordinates(longest)[:, 1].min() == -10
    assert len(strokes) == 2


def test_a_corner_where_nothing_else_meets_ends_no_stroke_however_it_was_mapped():
    assert len(merged(line((0, 0), (50, 0), (50, 50), (0, 50)))) == 1
    assert len(merged(line((0, 0), (50, 0)), line((50, 0), (50, 50)), line((0, 50), (50, 50)))) == 1


def test_a_small_kink_at_the_junction_does_not_tell_the_bearing():
    offset = line((-60, 0), (-2, 0), (0, 2))  # 45 degrees in its last two metres
    assert len(merged(offset, line((0, 2), (60, 2)), line((0, 2), (0, 60)))) == 2


def test_what_crosses_is_two_strokes_and_both_go_on():
    strokes = merged(line((-50, 0), (50, 0)), line((0, -50), (0, 50)))
    np.testing.assert_allclose(shapely.length(strokes), 100)


def test_a_ring_is_one_stroke_and_ends_where_it_begins():
    angles = np.linspace(0, 2 * np.pi, 25)
    (ring,) = merged(shapely.LineString(40 * np.stack([np.cos(angles), np.sin(angles)], 1)))
    assert ring.is_closed


def test_no_stroke_goes_on_in_another_channel():
    strokes = merge_strokes({"street": [line((-50, 0), (0, 0))], "arterial": [line((0, 0), (50, 0))]})
    assert [len(lines) for lines in strokes.values()] == [1, 1]


def test_of_nothing_there_are_no_strokes():
    assert len(merged()) == 0
    assert len(merge_strokes({"rail": np.empty(0, object)})["rail"]) == 0


# Ways that cross others without meeting them


def test_a_bridge_is_apart_and_a_junction_is_not():
    below = [line((x, -50), (x, 0), (x, 50)) for x in (0, 60, 120)]
    bridge, road = line((-30, 0), (150, 0)), line((-30, 0), (0, 0), (60, 0), (120, 0), (150, 0))
    for over, expected in ((bridge, True), (road, False)):
        ways = np.array([*below, over])
        strokes = merged(*ways)
        apart = find_apart(strokes, ways)
        long = shapely.length(strokes) > 150
        assert apart[long].tolist() == [expected]


def test_a_bridge_over_ways_of_another_channel_is_apart():
    ways = {"arterial": [line((-90, 0), (90, 0))], "street": [line((x, -50), (x, 50)) for x in (-30, 30)]}
    strokes = np.concatenate(list(merge_strokes(ways).values()))
    assert find_apart(strokes, np.concatenate([np.array(part) for part in ways.values()]))[0]


def test_what_crosses_nothing_is_not_apart():
    ways = np.array([line((0, 0), (50, 0)), line((0, 20), (50, 20))])
    assert not find_apart(ways, ways).any()
    assert not len(find_apart(ways[:0], ways[:0]))
