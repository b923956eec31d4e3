"""Laws of the code of ways: there and back little is lost, however a window is turned, and ends stay what they are."""

from dataclasses import fields, replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from citygrain.data.cityraster import CityRaster
from citygrain.data.transforms import INVERSE, turn
from citygrain.data.ways import CityStrokes
from citygrain.errors import ConfigError
from citygrain.evaluation.morphology import measure_vectors
from citygrain.geo.layers import WIDTHS
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import BEARINGS, KINDS, STRENGTHS, StrokeCode, Written, find_frame, to_angle, turn_points
from citygrain.geo.stroke_drawing import draw_strokes
from citygrain.geo.vectorize import node_features
from citygrain.geo.window_strokes import (
    AT_EDGE,
    EDGE,
    FREE,
    LOOSE,
    ON,
    OPEN,
    TOUCHES,
    Strokes,
    find_touching,
    join_ends,
    split_at_site,
)

HALF = 256.0
CODE = StrokeCode(rows=1200)  # the centre of Helsinki is dense with paths
ARTERIAL, STREET, SERVICE, RAIL, CYCLE, WALK = range(len(KINDS))
KNOWN = np.ones(len(KINDS), bool)


def strokes_of(*lines, kinds=None, given=None):
    """Strokes of lists of points, streets unless said otherwise."""
    kind = np.full(len(lines), STREET) if kinds is None else np.array(kinds, np.int64)
    shapes = np.array([shapely.LineString(one) for one in lines], object)
    return Strokes.of_lines(kind, shapes, KNOWN, None if given is None else np.array(given))


def turn_strokes(strokes, symmetry):
    """What `citygrain.data.transforms.turn` does to cells."""
    x, y = strokes.xy.T
    if symmetry & 4:
        x, y = y, x
    if symmetry & 2:
        y = -y
    if symmetry & 1:
        x = -x
    return replace(strokes, xy=np.stack([x, y], 1))


def there_and_back(strokes, code=CODE):
    return code.read(code.write(strokes))


def stands_of(strokes):
    """Kind and how its two ends stand, of each stroke, as it is read: first and last end in either order."""
    written = CODE.write(strokes)
    pairs = zip(written.kind.tolist(), written.find_standing(KINDS).tolist(), strict=True)
    return [(kind, sorted(ends)) for kind, ends in pairs]


def assert_same(one, other):
    for field in fields(Written):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def draw(strokes, resolution_m=8.0):
    return draw_strokes(strokes, KINDS, KINDS, round(2 * HALF / resolution_m), resolution_m)


def densities(cells, resolution_m):
    """Length density of each kind, km/km², as it is measured on cells."""
    return cells.mean((-2, -1)) / 255 / np.array([WIDTHS[kind] for kind in KINDS]) * 1000


@pytest.fixture(scope="module")
def place(cities):
    return CityRaster.open(cities / "helsinki")


@pytest.fixture(scope="module")
def windows(place):
    """Windows of a real city, and the cells that were drawn of them: `[(strokes, {resolution: cells})]`."""
    ways = CityStrokes(place, KINDS)
    bands = [place.channels.index(kind) for kind in KINDS]
    height, width = place.level(8.0).valid.shape
    found = []
    for row in range(2, height - 66, 27):
        for col in range(2, width - 66, 27):
            if place.level(8.0).valid[row : row + 64, col : col + 64].all():
                cells = {
                    metres: place.level(metres).array[
                        :, row * f : (row + 64) * f, col * f : (col + 64) * f
                    ][bands]
                    for metres, f in ((2.0, 4), (4.0, 2), (8.0, 1))
                }  # fmt: skip
                grid = place.grid
                found.append((ways.cut(grid.left + 8 * col, grid.top - 8 * row, 2 * HALF), cells))
    assert len(found) >= 9
    return found


# Real windows


@pytest.mark.parametrize(
    "resolution_m", [pytest.param(2.0, marks=pytest.mark.slow), pytest.param(4.0, marks=pytest.mark.slow), 8.0]
)
def test_there_and_back_keeps_the_density_of_each_way(windows, resolution_m):
    cut = np.mean([densities(draw(strokes, resolution_m), resolution_m) for strokes, _ in windows], 0)
    back = np.mean([densities(draw(there_and_back(strokes), resolution_m), resolution_m) for strokes, _ in windows], 0)
    real = np.mean([densities(cells[resolution_m], resolution_m) for _, cells in windows], 0)
    some = real > 0
    assert some.sum() >= 5
    np.testing.assert_allclose(back[some], cut[some], rtol=0.01)
    np.testing.assert_allclose(back[some], real[some], rtol=0.03)  # ways beside the window reach into it


def test_strokes_of_a_window_are_drawn_as_the_city_was(windows):
    for strokes, cells in windows:
        for resolution_m, expected in cells.items():
            off = np.abs(draw(strokes, resolution_m)[:, 2:-2, 2:-2].astype(int) - expected[:, 2:-2, 2:-2])
            assert off.mean() < 0.35  # of 255


def test_ways_lie_where_they_lay(windows):
    for strokes, _ in windows:
        back = there_and_back(strokes)
        along = np.arange(0.05, 1, 0.1)
        points = shapely.line_interpolate_point(back.lines[:, None], along, normalized=True).ravel()
        _, off = shapely.STRtree(strokes.lines).query_nearest(points, return_distance=True, all_matches=False)
        assert np.mean(off > CODE.grid_m + CODE.tolerance_m) < 0.01


def test_a_code_tells_all_that_is_written(windows):
    for strokes, _ in windows:
        written = CODE.write(strokes)
        assert_same(CODE.from_code(CODE.to_code(written)), written)
        site = split_at_site(strokes, (-100.0, -50.0, 120.0, 256.0), [WALK])
        assert_same(CODE.from_code(CODE.to_code(CODE.write(site))), CODE.write(site))


def test_turns_and_mirrors_of_a_window_are_those_of_its_code(windows):
    same = []
    for strokes, _ in windows[::3]:
        written = CODE.write(strokes)
        cells = draw(CODE.read(written)).astype(int)
        for symmetry in range(8):
            turned = written.turned(symmetry, CODE.grid_m)
            again = CODE.write(turn_strokes(strokes, symmetry))
            assert again.bearing == turned.bearing
            same.append(again.xy.shape == turned.xy.shape and bool((again.xy == turned.xy).all()))
            off = np.abs(draw(CODE.read(turned)) - turn(cells, symmetry))
            assert off.mean() < 0.2  # of 255: ends that are as near to one stroke as to another
    assert np.mean(same) > 0.95  # vertices halfway between two positions


@pytest.fixture(scope="module")
def forms(windows):
    """Form of the networks of real windows, before and after: `[(before, after)]`."""
    grid = Grid("EPSG:32635", -HALF, HALF, 8.0, 64, 64)

    def measure(strokes):
        lines = shapely.transform(strokes.lines, lambda xy: xy * (1, -1))
        ways = {kind: lines[strokes.kind == number] for number, kind in enumerate(KINDS)}
        return measure_vectors(node_features(ways, grid)).values

    return [(measure(strokes), measure(there_and_back(strokes))) for strokes, _ in windows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("drive_length_density", 0.01),
        ("drive_largest_component", 0.02),
        ("drive_dead_ends", 0.1),
        ("drive_four_way", 0.1),
        ("drive_orientation_order", 0.1),
    ],
)
def test_the_network_is_the_same_network(forms, name, bound):
    before, after = (np.array([pair[i][name] for pair in forms]) for i in (0, 1))
    assert np.nanmean(after) == pytest.approx(np.nanmean(before), rel=bound)


def test_no_stroke_is_lost_on_the_way_back(windows):
    for strokes, _ in windows:
        written = CODE.write(strokes)
        assert len(CODE.read(written)) == len(written) >= 0.98 * len(strokes)  # small rings are written as a point


def test_what_touches_touches(windows):
    gaps, edges = [], []
    for strokes, _ in windows:
        written = CODE.write(strokes)
        back = CODE.read(written)
        first = np.searchsorted(back.stroke, np.arange(len(back)))
        last = np.searchsorted(back.stroke, np.arange(len(back)), side="right") - 1
        for number in range(len(written)):
            for end, at in enumerate((first[number], last[number])):
                if written.how[number, end] == TOUCHES:
                    others = [i for i in written.partners[number, end] if i >= 0]
                    gaps.append(shapely.distance(back.lines[others], shapely.Point(back.xy[at])).min())
                elif written.how[number, end] == EDGE:
                    edges.append(HALF - np.abs(back.xy[at]).max())
    assert np.mean(np.array(gaps) > 0.1) < 0.06
    np.testing.assert_allclose(edges, 0, atol=1e-6)


def test_a_site_keeps_all_lines_and_both_sides_of_its_seam_are_told(windows):
    given_ends, own_ends = [], []
    for number, (strokes, _) in enumerate(windows):
        left, top = -200 + 20 * (number % 7), -180 + 30 * (number % 5)
        site = (left, top, left + 230.0, top + 260.0)
        parted = split_at_site(strokes, site)
        assert shapely.length(parted.lines).sum() == pytest.approx(shapely.length(strokes.lines).sum(), abs=30)
        box = shapely.box(*site)
        assert shapely.covered_by(parted.lines[~parted.given], shapely.buffer(box, 1e-6)).all()
        assert not shapely.intersects(parted.lines[parted.given], shapely.buffer(box, -1e-6)).any()
        written = CODE.write(parted)
        stands = written.find_standing(KINDS)
        xy = turn_points(written.xy * CODE.grid_m, to_angle(written.bearing))
        for end, at in enumerate((written.first, written.last)):
            seam = shapely.distance(box.boundary, shapely.points(xy[at])) < 3
            given_ends += stands[seam & written.given, end].tolist()
            own_ends += stands[seam & ~written.given, end].tolist()
    assert len(own_ends) > 100
    assert np.mean(np.isin(given_ends, (OPEN, ON))) > 0.95  # ON: two given ones meet there
    assert np.mean(np.array(given_ends) == OPEN) > 0.75
    assert np.mean(np.array(own_ends) == ON) > 0.95


# Invented windows


def lay_grid(angle, spacing=90.0):
    """Streets every 90 m in both directions, turned by an angle in degrees and cut at the window's edge."""
    at = np.arange(-450.0, 451.0, spacing) + 7
    lines = [[(x, -500), (x, 500)] for x in at] + [[(-500, y), (500, y)] for y in at]
    turned = [shapely.LineString(turn_points(np.array(line, float), np.radians(angle))) for line in lines]
    cut = shapely.clip_by_rect(np.array(turned), -HALF, -HALF, HALF, HALF)
    cut = cut[shapely.length(cut) > 4]
    return Strokes.of_lines(np.full(len(cut), STREET), cut, KNOWN)


@pytest.mark.parametrize("angle", [0, 30, 45, 62, 89])
def test_a_turned_grid_is_written_along_the_axes(angle):
    written = CODE.write(lay_grid(angle))
    assert to_angle(written.bearing) == pytest.approx(np.radians(angle))
    assert written.strength == STRENGTHS - 1
    steps = np.abs(np.diff(written.xy, axis=0))[np.diff(written.stroke) == 0]
    assert (steps.min(1) == 0).all()
    back = CODE.read(written)
    assert shapely.length(back.lines).sum() == pytest.approx(shapely.length(lay_grid(angle).lines).sum(), rel=0.01)


def lay_town(angle):
    """A grid, turned, with a stroke of each other kind across it, of which no symmetry is like another."""
    others = [
        [(-220, -180), (-100, -170), (-60, 190)], [(10, 20), (80, 31), (97, 140)], [(-HALF, 90), (40, 133)],
        [(150, -HALF), (133, 20), (201, 60)], [(-30, -200), (60, -120), (90, -230)],
    ]  # fmt: skip
    streets, kinds = lay_grid(angle), [ARTERIAL, SERVICE, RAIL, CYCLE, WALK]
    lines = np.append(streets.lines, [shapely.LineString(one) for one in others])
    return Strokes.of_lines(np.append(streets.kind, kinds), lines, KNOWN)


@pytest.mark.parametrize("symmetry", range(8))
@pytest.mark.parametrize("angle", [0, 12, 45, 77])
def test_a_turned_town_is_the_town_written_after_it_was_turned(angle, symmetry):
    town = lay_town(angle)
    written = CODE.write(town, bearing=angle)
    turned = written.turned(symmetry, CODE.grid_m)
    mirrored = symmetry in {1, 2, 4, 7}
    assert turned.bearing == (-angle % 90 if mirrored else angle)
    again = CODE.write(turn_strokes(town, symmetry), bearing=turned.bearing)
    assert [*again.kind] == [*turned.kind]
    assert np.mean([line in again.xy.tolist() for line in turned.xy.tolist()]) > 0.9  # halfway between two positions
    before, after = (draw(CODE.read(one), 4.0).astype(int) for one in (written, turned))
    off = [np.abs(after - turn(before, one)).mean() for one in range(8)]
    assert off[symmetry] < 0.1
    assert min(off[:symmetry] + off[symmetry + 1 :]) > 1
    assert written.turned(symmetry, CODE.grid_m).turned(INVERSE[symmetry], CODE.grid_m).bearing == angle


@pytest.mark.parametrize("angle", range(0, 90, 7))
def test_the_frame_of_a_turned_grid_is_the_bin_that_is_nearest(angle):
    for off in (-0.4, 0.0, 0.4):
        assert find_frame(lay_grid(angle + off), KINDS)[0] == angle % BEARINGS


def test_without_a_frame_nothing_is_turned():
    written = StrokeCode(frame="none").write(lay_grid(30))
    assert (written.bearing, written.strength) == (0, 0)


def test_the_frame_is_that_of_streets_and_of_what_is_given():
    street, path = [(0, 0), (100, 0)], [(0, 50), (100, 150)]
    assert find_frame(strokes_of(street, path, kinds=[STREET, WALK]), KINDS)[0] == 0
    assert find_frame(strokes_of(path, kinds=[WALK]), KINDS)[0] == BEARINGS // 2
    both = strokes_of(street, [(0, 50), (40, 90)], given=[False, True])
    assert find_frame(both, KINDS)[0] == BEARINGS // 2
    assert CODE.write(both, bearing=7).bearing == 7
    assert find_frame(strokes_of(), KINDS) == (0, 0)


def test_streets_in_all_directions_have_no_strong_frame():
    star = strokes_of(
        *([(0, 0), (200 * np.cos(a), 200 * np.sin(a))] for a in np.linspace(0, np.pi, 12, endpoint=False))
    )
    assert CODE.write(star).strength == 0


def test_strokes_stand_in_order_of_kind_length_direction_and_place():
    long, short = [(-200, 0), (250, 0)], [(0, 30), (60, 30)]
    lines = [short, [(0, -88), (60, -88)], [(20, 0), (20, 60)], long, long]
    written = CODE.write(strokes_of(*lines, kinds=[STREET, STREET, STREET, STREET, ARTERIAL]), bearing=0)
    starts = (written.xy[written.first] * CODE.grid_m).tolist()
    assert written.kind.tolist() == [ARTERIAL, STREET, STREET, STREET, STREET]
    assert starts[1:] == [[-200, 0], [0, -88], [0, 32], [20, 0]]  # long; level ones from above; upright


def test_a_stroke_begins_on_an_earlier_one_or_else_at_the_edge():
    main = [(-200, 0), (250, 0)]
    below, above = [(40, -120), (40, 0)], [(90, 0), (90, HALF)]
    written = CODE.write(strokes_of(main, below, above, [(-40, 60), (-40, HALF)], [(-90, 60), (-90, 160)]), bearing=0)
    starts = (written.xy[written.first] * CODE.grid_m).tolist()
    assert starts == [[-200, 0], [88, 0], [-88, 60], [-40, HALF], [40, 0]]
    assert written.find_standing(KINDS)[:, 0].tolist() == [LOOSE, ON, LOOSE, AT_EDGE, ON]


def test_the_order_does_not_depend_on_how_strokes_come(windows):
    chance = np.random.default_rng(0)
    for strokes, _ in windows[::4]:
        order = chance.permutation(len(strokes))
        lines = np.array([one.reverse() if chance.random() < 0.5 else one for one in strokes.lines[order]])
        mixed = Strokes.of_lines(strokes.kind[order], lines, strokes.known, None, strokes.apart[order])
        one, other = CODE.write(strokes), CODE.write(mixed)
        shared = (one.xy == other.xy).all(1).mean() if one.xy.shape == other.xy.shape else 0
        assert shared > 0.95  # two that lie alike stand in either order


def test_given_strokes_come_first():
    written = CODE.write(
        strokes_of([(0, 0), (90, 0)], [(0, 50), (90, 50)], kinds=[ARTERIAL, WALK], given=[False, True])
    )
    assert written.kind.tolist() == [WALK, ARTERIAL]
    assert written.given.tolist() == [True, False]


def test_how_ends_stand():
    main = [(-HALF, 0), (HALF, 0)]
    side = [(0, 0.5), (0, 150)]  # half a metre short: it meets the main street
    assert stands_of(strokes_of(main, side)) == [(STREET, [AT_EDGE, AT_EDGE]), (STREET, [LOOSE, ON])]


def test_an_end_that_a_later_street_goes_on_from_is_open():
    strokes = strokes_of([(-200, 0), (0, 0)], [(0, 0), (0, 90)])
    assert stands_of(strokes) == [(STREET, [LOOSE, OPEN]), (STREET, [LOOSE, ON])]


def test_a_street_does_not_wait_for_a_path():
    strokes = strokes_of([(-200, 0), (0, 0)], [(0, 0), (0, 90)], kinds=[STREET, WALK])
    assert stands_of(strokes) == [(STREET, [LOOSE, LOOSE]), (WALK, [LOOSE, ON])]


def test_an_end_on_two_strokes_knows_both_and_the_more_important_first():
    lines = [(-100, 0), (100, 0)], [(0, -100), (0, 0)], [(0, 0), (70, 70)]
    how, partners = find_touching(strokes_of(*lines, kinds=[WALK, STREET, SERVICE]), 2 * HALF)
    assert how.tolist() == [[FREE, FREE], [FREE, TOUCHES], [TOUCHES, FREE]]
    assert partners[2, 0].tolist() == [1, 0]
    assert partners[1, 1].tolist() == [2, 0]


def test_an_end_a_little_beside_a_stroke_is_led_onto_it():
    main = [(-HALF, 0), (-60, 2), (60, -2), (HALF, 0)]  # simplified to its chord
    back = there_and_back(strokes_of(main, [(55, -1.8), (80, 120)]))
    assert back.lines[0].distance(shapely.Point(back.lines[1].coords[0])) < 1e-6


def test_a_dead_end_near_a_street_stays_one():
    """Five metres off it is no end on the street, whatever rounding does."""
    lines = [(-HALF, 0), (HALF, 0)], [(0, 5), (0, 150)]
    assert stands_of(strokes_of(*lines))[1] == (STREET, [LOOSE, LOOSE])
    back = there_and_back(strokes_of(*lines))
    assert back.lines[0].distance(back.lines[1]) > 2


def test_a_ring_stays_closed():
    angles = np.linspace(0, 2 * np.pi, 33)
    ring = 60 * np.stack([np.cos(angles), np.sin(angles)], 1)
    assert stands_of(strokes_of(ring)) == [(STREET, [OPEN, OPEN])] or stands_of(strokes_of(ring)) == [
        (STREET, [ON, ON])
    ]
    (back,) = there_and_back(strokes_of(ring)).lines
    assert back.is_closed
    assert back.length == pytest.approx(shapely.LineString(ring).length, rel=0.05)


def test_a_ring_with_a_small_gap_is_closed():
    ring = [(60, 1.5), (60, -60), (-60, -60), (-60, 60), (60, 60), (60, 2.3)]  # rounded to two positions
    written = CODE.write(strokes_of(ring), bearing=0)
    assert len(np.unique(written.xy[[0, -1]], axis=0)) == 2
    (back,) = CODE.read(written).lines
    assert back.is_closed


LOOP = [(-100, 10), (3, 10), (45, -20), (70, 12), (44, 55), (3, 10)]
"""A street that comes back onto its own line."""


def off_its_own_line(line):
    """How far the last end of a line is from the rest of it, without the two pieces that lead to the end."""
    return shapely.Point(line.coords[-1]).distance(shapely.LineString(line.coords[:-2]))


@pytest.mark.parametrize("bearing", [0, 11, 30, 45, 77])
@pytest.mark.parametrize("shift", [0.0, 1.3, 2.9])
def test_an_end_on_its_own_stroke_is_on_it_there_and_back(bearing, shift):
    for points in (LOOP, LOOP[::-1]):
        street = strokes_of([(x + shift, y + shift) for x, y in points])
        assert stands_of(street) == [(STREET, [LOOSE, ON])]
        written = CODE.write(street, bearing=bearing)
        assert written.partners[0].tolist() == [[-1, -1], [0, -1]], "it ends there, wherever it begins"
        assert_same(CODE.from_code(CODE.to_code(written)), written)
        for symmetry in range(8):
            (back,) = CODE.read(written.turned(symmetry, CODE.grid_m)).lines
            assert off_its_own_line(back) < 1e-6
            assert back.length == pytest.approx(street.lines[0].length, rel=0.06)
            assert not back.is_closed


def test_a_loop_at_a_street_begins_there_and_ends_on_itself():
    strokes = strokes_of([(-100, -HALF), (-100, HALF)], LOOP)
    written = CODE.write(strokes)
    assert written.find_standing(KINDS).tolist() == [[AT_EDGE, AT_EDGE], [ON, ON]]
    assert written.partners[1, :, 0].tolist() == [0, 1]


def test_both_ends_of_a_stroke_may_be_on_it():
    other = [(-44, 55), (-70, 12), (-45, -20)]
    strokes = strokes_of([(-3, 10), *other, (-3, 10.5), *LOOP[1:]])
    assert stands_of(strokes) == [(STREET, [ON, ON])]
    (back,) = there_and_back(strokes).lines
    assert off_its_own_line(back) < 1e-6
    assert off_its_own_line(back.reverse()) < 1e-6


def test_an_end_beside_its_own_stroke_is_loose():
    beside = [*LOOP[:-1], (5, 17)]
    assert stands_of(strokes_of(beside)) == [(STREET, [LOOSE, LOOSE])]
    hook = [(-100, 0), (0, 0), (4, 0.5), (0, 1.5)]  # turns back within some metres
    assert stands_of(strokes_of(hook)) == [(STREET, [LOOSE, LOOSE])]


def test_a_loop_whose_end_was_written_as_loose_is_read_as_it_was():
    written = CODE.write(strokes_of(LOOP), bearing=0)
    loose = replace(written, how=np.zeros_like(written.how), partners=np.full_like(written.partners, -1))
    back = CODE.read(loose)
    np.testing.assert_array_equal(back.xy, written.xy * CODE.grid_m)


def test_a_stroke_that_crosses_itself_goes_there_and_back():
    knot = [(-100, 0), (100, 0), (100, 100), (0, 100), (0, -100)]
    (back,) = there_and_back(strokes_of(knot)).lines
    assert back.length == pytest.approx(600, rel=0.02)
    assert not back.is_simple


def test_a_stroke_through_the_corner_and_one_along_the_edge_stay():
    corner = [(HALF, HALF - 120), (HALF - 120, HALF)]
    edge, beside = [(-HALF, -HALF), (-HALF, 40)], [(-255.3, 60), (-255.9, 180)]
    strokes = strokes_of(corner, edge, beside)
    for bearing in (0, 13, 60):
        back = CODE.read(CODE.write(strokes, bearing=bearing))
        assert len(back) == 3
        np.testing.assert_allclose(np.sort(shapely.length(back.lines)), [120, 169.7, 296], rtol=0.06)
        assert np.abs(back.xy).max() <= HALF


def test_an_empty_window_goes_there_and_back():
    written = CODE.write(strokes_of())
    assert len(CODE.from_code(CODE.to_code(written))) == len(CODE.read(written)) == 0
    assert not draw(CODE.read(written)).any()
    for symmetry in range(8):
        assert len(written.turned(symmetry, CODE.grid_m)) == 0
    assert len(split_at_site(strokes_of(), (-9.0, -9.0, 9.0, 9.0))) == 0


def test_a_stroke_shorter_than_a_step_is_left_out():
    written = CODE.write(strokes_of([(-200, 0), (0, 0)], [(1, 1), (2, 1)]), bearing=0)
    assert len(written) == 1
    assert written.how.tolist() == [[FREE, FREE]]  # what it touched is not there


def test_what_does_not_fit_is_left_out_from_the_end():
    small = replace(CODE, rows=11)
    written = small.write(lay_grid(0))
    whole = CODE.write(lay_grid(0))
    assert len(written) == 5  # two vertices each
    np.testing.assert_array_equal(written.xy, whole.xy[:10])
    assert written.partners.max() < 5
    assert_same(small.from_code(small.to_code(written)), written)
    assert len(small.read(written)) == 5


def test_a_kind_that_is_not_known_is_told_from_one_that_is_not_there():
    known = KNOWN.copy()
    known[[RAIL, WALK]] = False
    strokes = replace(strokes_of([(0, 0), (90, 0)]), known=known)
    np.testing.assert_array_equal(CODE.from_code(CODE.to_code(CODE.write(strokes))).known, known)


def test_marks_of_a_stroke_stay_with_it():
    strokes = replace(
        strokes_of([(0, 0), (90, 0)], [(0, 50), (200, 50)], [(0, 90), (90, 90)], given=[False, True, False]),
        apart=np.array([True, False, False]),
    )
    back = CODE.read(CODE.from_code(CODE.to_code(CODE.write(strokes))))
    rows = {
        (round(line.centroid.y / 10), bool(g), bool(a))
        for line, g, a in zip(back.lines, back.given, back.apart, strict=True)
    }
    assert rows == {(0, False, True), (5, True, False), (9, False, False)}


def test_given_strokes_are_not_moved():
    strokes = strokes_of([(-100, 0), (100, 0)], [(40, 3), (40, 90)], given=[True, True])
    joined = join_ends(strokes, np.array([[LOOSE, LOOSE], [ON, LOOSE]]), KINDS, 2 * HALF)
    np.testing.assert_array_equal(joined.xy, strokes.xy)


def test_a_kept_kind_is_given_on_the_site_too():
    site = (-50.0, -50.0, 50.0, 50.0)
    parted = split_at_site(
        strokes_of([(-200, 0), (200, 0)], [(-200, 20), (200, 20)], kinds=[STREET, WALK]), site, [STREET]
    )
    assert sorted(zip(parted.kind.tolist(), parted.given.tolist(), strict=True)) == [
        (STREET, True), (WALK, False), (WALK, True), (WALK, True),
    ]  # fmt: skip


def test_a_stroke_that_leaves_the_site_and_comes_back_is_in_pieces():
    bow = [(-40, 0), (0, 0), (0, 90), (30, 90), (30, 0), (45, 0)]
    parted = split_at_site(strokes_of(bow), (-50.0, -50.0, 50.0, 50.0))
    assert parted.given.tolist() == [True, False, False]
    assert shapely.length(parted.lines).sum() == pytest.approx(shapely.LineString(bow).length)


spot = st.tuples(*2 * [st.integers(-64, 64).map(lambda v: 4.0 * v)])
wild = st.lists(
    st.tuples(st.integers(0, 5), st.lists(spot, min_size=2, max_size=5).filter(lambda p: len(set(p)) > 1)), max_size=9
)


@given(wild, st.integers(0, 7), st.integers(0, BEARINGS - 1))
@settings(max_examples=40, deadline=None)
def test_no_window_is_too_wild(strokes, symmetry, bearing):
    window = strokes_of(*(points for _, points in strokes), kinds=[kind for kind, _ in strokes])
    written = CODE.write(window, bearing=bearing)
    assert_same(CODE.from_code(CODE.to_code(written)), written)
    turned = written.turned(symmetry, CODE.grid_m)
    assert (np.bincount(turned.kind, minlength=6) == np.bincount(written.kind, minlength=6)).all()
    for one in (written, turned):
        back = CODE.read(one)
        assert np.abs(back.xy).max(initial=0) <= HALF + 1e-9
        assert np.isfinite(back.xy).all()
        draw(back)
    if bearing == 0 and symmetry == 0:
        assert len(written) == len(window)


@pytest.mark.parametrize("wrong", [{"grid_m": 0.0}, {"grid_m": -4.0}, {"tolerance_m": -1.0}, {"rows": 2}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match="cannot be written"):
        StrokeCode(**wrong)
