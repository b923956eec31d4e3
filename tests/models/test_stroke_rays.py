"""What lies around a vertex: traces of strokes on the ground of a window, and rays cast over it."""

import numpy as np
import pytest
import shapely

from citygrain.geo.stroke_code import KINDS, StrokeCode, turn_points
from citygrain.networks.stroke_rays import MARGIN, RADII, RAYS, cast_rays, lay_ground, lay_window, leave_traces

CODE = StrokeCode(KINDS, 256.0, 4.0, 2.5, "streets", 100)
MIDDLE = CODE.reach


def ground_of(*lines, bearing=0):
    ground = lay_ground(CODE, bearing)
    xy = np.array([p for line in lines for p in line]) + MIDDLE
    stroke = np.repeat(np.arange(len(lines)), [len(line) for line in lines])
    leave_traces(ground, xy, stroke, np.arange(len(lines)) + 1)
    return ground


def look(ground, at, before=100):
    return cast_rays(ground, np.array([at]) + MIDDLE, np.array([before]))[0]


def test_a_ray_tells_how_far_away_a_stroke_is_and_minus_how_far_the_edge_is():
    rays = look(ground_of([(10, -40), (10, 40)]), (0, 0))
    assert rays[0] == pytest.approx(9, abs=1)  # along x
    assert rays[4] == pytest.approx(-256 / 4 / 2, abs=2)  # along y, to the edge
    assert rays[8] == pytest.approx(-256 / 4 / 2, abs=2)
    assert (rays[[1, 2, 14, 15]] > 0).all()
    assert rays[2] == pytest.approx(10 * 2**0.5, abs=3)


def test_a_stroke_is_seen_by_those_after_it_only():
    ground = ground_of([(10, -40), (10, 40)], [(-10, -40), (-10, 40)])
    assert look(ground, (0, 0), before=0)[0] < 0
    first = look(ground, (0, 0), before=1)
    assert first[0] > 0
    assert first[8] < 0
    assert look(ground, (0, 0), before=2)[8] == pytest.approx(9, abs=1)


def test_a_turned_window_has_its_edge_elsewhere():
    upright, turned = (look(lay_ground(CODE, bearing), (0, 0)) for bearing in (0, 45))
    assert turned[0] == pytest.approx(upright[0] * 2**0.5, abs=2.5)


@pytest.mark.parametrize("seed", range(5))
def test_traces_are_where_strokes_are_near_and_the_earliest_one_counts(seed):
    """All strokes at once, or one after the other: the same ground; and it is what distances tell."""
    random = np.random.default_rng(seed)
    lines = [random.integers(-30, 31, (random.integers(2, 6), 2)) for _ in range(8)]
    together, in_turn = ground_of(*lines), lay_ground(CODE, 0)
    for mark, line in enumerate(lines, 1):
        leave_traces(in_turn, line + MIDDLE, np.zeros(len(line), int), np.array([mark]))
    assert np.array_equal(together, in_turn)
    inner = together[MARGIN:-MARGIN, MARGIN:-MARGIN]
    x, y = np.nonzero(inner >= 0)
    points = shapely.points(x - MIDDLE, y - MIDDLE)
    gaps = np.stack([shapely.distance(points, shapely.LineString(line)) for line in lines])
    there = inner[x, y]
    assert (gaps.min(0)[there == 0] > 0.9).all()
    marked = np.flatnonzero(there > 0)
    assert (gaps[there[marked] - 1, marked] <= 1.5 * 2**0.5).all()


def test_rays_are_laid_out_evenly_and_do_not_leave_the_ground():
    assert RADII.max() <= MARGIN
    rays = look(ground_of([(0, 9), (9, 0)]), (0, 0))
    assert rays.shape == (RAYS,)
    assert np.array_equal(rays[:5], rays[4::-1])


@pytest.mark.parametrize("bearing", [0, 20, 45, 71])
def test_the_window_of_a_turned_frame_is_the_window_turned_back(bearing):
    """A point of the window, written in the frame, is within it, and so is one of its edge."""
    along = np.linspace(-126, 126, 50)
    half = np.full(50, 128.0)
    edges = np.concatenate([np.stack(pair, 1) for pair in ((along, half), (half, along), (along, -half))])
    inner = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    inside, edge = lay_window(CODE, bearing)
    for points, marked in ((inner, inside), (edges, edge)):
        x, y = np.rint(turn_points(points, -np.radians(bearing)) / 4).astype(int).T + MIDDLE
        assert marked[x, y].mean() > 0.97
    assert inside.sum() == pytest.approx((256 / 4) ** 2, rel=0.05)
