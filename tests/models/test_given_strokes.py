"""What is given of windows of strokes: in training and in drawing the same steps; and strokes that come late."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import shapely
import torch

import families
from citygrain.checkpoint import build_generator
from citygrain.generation import turns
from citygrain.generation.area import draw_area
from citygrain.generation.edits import redraw
from citygrain.generation.site import Site
from citygrain.geo.drawn_ways import DrawnWays
from citygrain.geo.rasterize import Grid
from citygrain.geo.stroke_code import LENGTHS_M, StrokeCode, Written, turn_points
from citygrain.geo.stroke_drawing import draw_strokes, trace_ways
from citygrain.geo.window_strokes import LOOSE, ON, OPEN, Strokes, split_at_site, sum_lengths
from citygrain.models import given_strokes
from citygrain.models.given_strokes import Varied, delay_strokes, shuffle_strokes, vary_windows
from citygrain.networks.stroke_steps import write_text
from citygrain.protocols import Known
from citygrain.spec import Conditions, LayoutSpec

WAYS = ("arterial", "street", "walk")
RAMP = tuple(range(101))
OF_WALKS = {"walk": {"here": RAMP, "all": RAMP}, "arterial": {"here": RAMP, "there": RAMP, "all": RAMP}}
SPEC = LayoutSpec(WAYS, 64, 4.0, scalars=("walk", "arterial"), places=("here", "there"), statistics=OF_WALKS)
"""The place `there` does not know walks."""

CODE = StrokeCode(WAYS, 256.0, 4.0, 2.5, "streets", 200)
SITE = (-20.0, -128.0, 128.0, 128.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = build_generator(families.config("stroke_transformer") | {"rows": 200}, SPEC).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return made


def town(seed, kinds=3):
    """A grid of streets that is bent and turned, an arterial, bridges, and paths across it that stop on the way."""
    random = np.random.default_rng(seed)
    lines, kind = [], []
    for number, at in enumerate(np.arange(-100, 101, 40.0)):
        offset = random.uniform(-8, 8)
        lines += [[[-300, at + offset], [300, at - offset]], [[at + offset, -300], [at - offset, 300]]]
        kind += [int(number != 2), 1]
        x, y = random.uniform(-110, 110, 2)
        lines.append([[x, y], [x + 30, y + 20], [x + 40, y + 60]])
        kind.append(kinds - 1)
    turned = turn_points(np.array([p for line in lines for p in line]), random.uniform(0, 1.5))
    drawn = shapely.linestrings(turned, indices=np.repeat(np.arange(len(lines)), [len(line) for line in lines]))
    cut, owner = shapely.get_parts(shapely.clip_by_rect(drawn, -128, -128, 128, 128), return_index=True)
    long = shapely.length(cut) > 4
    apart = np.arange(long.sum()) % 5 == 0
    return Strokes.of_lines(np.array(kind)[owner[long]], cut[long], np.arange(3) < kinds, apart=apart)


def know(strokes, site=SITE):
    """What is known of a window around a site: cells, and the lines of the strokes that are given."""
    parted = split_at_site(strokes, site)
    lines = shapely.transform(parted.lines[parted.given], lambda xy: xy + 128)
    ways = DrawnWays(np.array(WAYS)[parted.kind[parted.given]], lines, parted.apart[parted.given])
    layout = torch.from_numpy(draw_strokes(strokes, WAYS, WAYS, 64, 4.0))[None].float() / 255
    left, top, right, bottom = (round(32 + at / 4) for at in site)
    keep = torch.ones(layout.shape, dtype=torch.bool)
    keep[..., top:bottom, left:right] = False
    return parted, Known(layout, keep, [ways])


def assert_same(one, other):
    for field in fields(Written):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


# What is given


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", [2, 3])
def test_lines_that_are_given_are_told_as_they_are_in_training(model, seed, kinds):
    """With lines, the steps before the first one that is drawn are those of training; traced ones are others."""
    parted, known = know(town(seed, kinds))
    text = write_text(model.code.write(parted), model.code)
    count = int(np.isin(text.section, [0, 1, 2, 6]).argmax())
    (plan,) = model.plan(known, parted.known[None])
    assert count > 20
    for name in ("x", "y", "section", "placed", "vertex", "number", "moves", "drawn", "rays"):
        np.testing.assert_array_equal(getattr(plan.text, name)[:count], getattr(text, name)[:count], err_msg=name)
    assert (plan.text.op[:count] != text.op[:count]).sum() <= 1  # one end is near the corner of the site, and waits
    assert set(plan.text.section[count:]) <= {0, 1, 2, 6}
    assert plan.known.tolist() == parted.known.tolist()
    (traced,) = model.plan(known._replace(ways=None), parted.known[None])
    assert len(traced.given.xy) != len(plan.given.xy) or (traced.given.xy != plan.given.xy).any()


def test_a_kind_that_a_place_does_not_know_is_not_said_to_be_empty(model):
    """In training, a kind that is not known has no section of given strokes either."""
    _, known = know(town(0, kinds=2))
    conditions = Conditions.empty(SPEC, 1)
    for place, sections in ((0, {3, 4, 5}), (1, {3, 4})):
        conditions.place[:] = place
        (plan,) = model.plan(known, model.list_known(conditions))
        assert {*plan.text.section.tolist()} & {3, 4, 5} == sections
        assert plan.known.tolist() == [True, True, place == 0]


def test_ways_that_are_there_are_given_also_where_their_kind_is_not_known(model):
    parted, known = know(town(0))
    walks = ((parted.kind == 2) & parted.given).sum()
    (plan,) = model.plan(known, np.array([[True, True, False]]))
    assert (plan.given.kind == 2).sum() == walks > 0
    assert 5 in plan.text.section
    assert plan.known.tolist() == [True, True, False]
    assert 2 not in plan.entries


def test_an_area_hands_on_the_lines_that_its_windows_drew(model, monkeypatch):
    """Nothing is traced between windows: each is given the lines of those before it, and its own are added."""
    asked, made = [], []
    plain = type(model).sample_with_ways

    def spy(self, conditions, *, noise, sampler=None):
        drawn = plain(self, conditions, noise=noise, sampler=sampler)
        asked.append(getattr(sampler, "known", None))
        made.append(drawn[1])
        return drawn

    monkeypatch.setattr(type(model), "sample_with_ways", spy)
    monkeypatch.setattr("citygrain.samplers.stroke_plan.trace_ways", None)
    draw_area(model, (64, 96), {}, seed=2)
    (first, second), ((before,), (after,)) = asked, made
    assert first is None
    (given,) = second.ways
    there = before.cut(128, 0, 256)
    assert shapely.length(there.lines).sum() > 100
    assert shapely.length(given.lines).sum() == pytest.approx(shapely.length(there.lines).sum())
    assert {*zip(given.kind, given.apart, strict=True)} == {*zip(there.kind, there.apart, strict=True)}
    assert after.given.any()
    assert not after.given.all()
    fresh = after.lines[~after.given]
    assert shapely.length(shapely.intersection(fresh, shapely.box(0, 0, 112, 256))).sum() < 0.1


@pytest.mark.slow
def test_of_an_area_of_which_cells_are_known_ways_are_traced_once(model, monkeypatch):
    layout, keep = torch.zeros(1, 3, 96, 96), torch.zeros(1, 3, 96, 96, dtype=torch.bool)
    layout[0, :, :64, :64] = torch.from_numpy(draw_strokes(town(0), WAYS, WAYS, 64, 4.0)) / 255
    keep[:, :, :64, :64] = True
    traced = []
    monkeypatch.setattr(turns, "trace_ways", lambda *of: traced.append(trace_ways(*of)) or traced[-1])
    monkeypatch.setattr("citygrain.samplers.stroke_plan.trace_ways", None)
    draw_area(model, (96, 96), {}, known=Known(layout, keep), seed=1)
    (ways,) = traced
    length = shapely.length(town(0).lines).sum()
    assert 0.85 * length < shapely.length(ways.lines).sum() < 1.02 * length
    assert shapely.total_bounds(ways.lines).max() <= 257


# Strokes that come late


def name_strokes(window):
    """Name each stroke by its kind and its line, whichever end comes first."""
    lines = [window.xy[window.stroke == i].tolist() for i in range(len(window))]
    return [(kind, str(min(line, line[::-1]))) for kind, line in zip(window.kind.tolist(), lines, strict=True)]


def list_ends(window):
    """Say of each end of each stroke how it stands, and the strokes that it touches."""
    names = name_strokes(window)
    found = set()
    for i, name in enumerate(names):
        for end, at in enumerate((window.first[i], window.last[i])):
            touched = tuple(names[j] for j in window.partners[i, end] if j >= 0)
            found.add((name, tuple(window.xy[at]), int(window.how[i, end]), touched))
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parted", [False, True])
def test_strokes_that_come_late_are_the_same_strokes_behind_the_others_of_their_kind(seed, parted):
    strokes = split_at_site(town(seed), SITE) if parted else town(seed)
    window = CODE.write(strokes)
    chances = np.random.default_rng(seed).random(len(window))
    late = delay_strokes(window, CODE.grid_m, 0.3, chances)
    names, behind = name_strokes(late), {name_strokes(window)[i] for i in np.flatnonzero(chances < 0.3)}
    given = int(window.given.sum())
    assert 0 < len(behind) < len(window)
    assert names != name_strokes(window)
    assert sorted(names) == sorted(name_strokes(window))
    assert names[:given] == name_strokes(window)[:given]
    assert late.given.tolist() == window.given.tolist()
    for kind in range(3):
        marks = [name in behind for name in names[given:] if name[0] == kind]
        assert marks == sorted(marks), "late ones follow"
    assert (np.diff(late.kind[given:]) >= 0).all()
    assert list_ends(late) == list_ends(window)
    assert_same(late.ordered(CODE.grid_m), window)
    assert_same(CODE.from_code(CODE.to_code(late)), late)


def test_late_strokes_stand_in_canonical_order_among_themselves():
    window = CODE.write(town(1))
    chances = np.random.default_rng(1).random(len(window))
    order = {name: i for i, name in enumerate(name_strokes(window))}
    late = delay_strokes(window, CODE.grid_m, 0.5, chances)
    for kind in range(3):
        places = [order[name] for name in name_strokes(late) if name[0] == kind]
        falls = np.flatnonzero(np.diff(places) < 0)
        assert len(falls) <= 1, "the late ones begin once"


def test_where_none_or_all_come_late_nothing_moves_and_what_is_given_never_does():
    for strokes in (town(2), split_at_site(town(2), SITE)):
        window = CODE.write(strokes)
        chances = np.random.default_rng(0).random(len(window))
        assert delay_strokes(window, CODE.grid_m, 0.0, chances) is window
        assert_same(delay_strokes(window, CODE.grid_m, 1.0, chances), window)
        every = replace(window, given=np.ones(len(window), bool))
        assert delay_strokes(every, CODE.grid_m, 1.0, chances) is every
    nothing = CODE.write(Strokes.of_lines(np.empty(0, np.int64), np.empty(0, object), np.ones(3, bool)))
    assert len(delay_strokes(nothing, CODE.grid_m, 0.5, np.empty(0))) == 0


def test_an_end_on_a_stroke_that_comes_late_is_open_until_then():
    """A late stroke begins at the end that waits for it: how ends stand is told anew."""
    main, side = [(-100, 0), (0, 0)], [(0, 0), (0, 60)]
    lines = np.array([shapely.LineString(one) for one in (main, side)], object)
    window = CODE.write(Strokes.of_lines(np.array([1, 1]), lines, np.ones(3, bool)), bearing=0)
    late = delay_strokes(window, CODE.grid_m, 0.5, np.array([0.0, 1.0]))
    assert [len(one.xy) for one in (window, late)] == [4, 4]
    assert name_strokes(late) == name_strokes(window)[::-1]
    assert sorted(late.find_standing(WAYS)[0].tolist()) == [LOOSE, OPEN]
    assert late.find_standing(WAYS)[1].tolist() == [ON, LOOSE]


@pytest.mark.parametrize("parted", [False, True])
def test_shuffled_strokes_are_the_same_ones_and_any_order_of_a_length_class_may_come(parted):
    window = CODE.write(split_at_site(town(3), SITE) if parted else town(3))
    given, names = int(window.given.sum()), name_strokes(window)
    length = dict(zip(names, sum_lengths(window.xy, window.stroke, len(window)) * CODE.grid_m, strict=True))
    random, orders = np.random.default_rng(0), set()
    for _ in range(20):
        mixed = shuffle_strokes(window, CODE.grid_m, 0.0, random.random((2, len(window))))
        found = name_strokes(mixed)
        assert sorted(found) == sorted(names)
        assert found[:given] == names[:given]
        assert list_ends(mixed) == list_ends(window)
        for kind in range(3):
            classes = [sum(length[name] < np.array(LENGTHS_M)) for name in found[given:] if name[0] == kind]
            assert classes == sorted(classes), "the longest first"
        assert mixed.kind[given:].tolist() == sorted(mixed.kind[given:].tolist())
        orders.add(tuple(found))
        assert_same(mixed.ordered(CODE.grid_m), window)
    assert len(orders) > 15


def test_of_shuffled_strokes_some_come_late_whatever_their_length():
    window = CODE.write(town(3))
    chances = np.random.default_rng(1).random((2, len(window)))
    mixed = shuffle_strokes(window, CODE.grid_m, 0.3, chances)
    behind = {name_strokes(window)[i] for i in np.flatnonzero(chances[0] < 0.3)}
    for kind in range(3):
        marks = [name in behind for name in name_strokes(mixed) if name[0] == kind]
        assert marks == sorted(marks)
    assert 0 < len(behind) < len(window)


def test_only_training_changes_the_order_and_says_which_windows_stand_in_none():
    windows = [CODE.write(town(seed)) for seed in range(40)]
    torch.manual_seed(0)
    plain = vary_windows(CODE, windows, [0] * 40, reorder=False, shuffled=0.5)
    assert not any(plain.shuffled)
    varied = vary_windows(CODE, windows, [0] * 40, reorder=True, shuffled=0.5)
    assert 10 < sum(varied.shuffled) < 30
    whole = Varied.whole(windows)
    assert not any(whole.shuffled)
    assert whole.sites.tolist() == [[-1, -1, 1, 1]] * 40


# Sites


def test_the_site_that_is_told_in_training_is_where_the_rest_is_drawn_however_the_window_is_turned(model, monkeypatch):
    monkeypatch.setattr(given_strokes, "SITE_SHARE", 1.0)
    monkeypatch.setattr(given_strokes, "KEPT_SHARE", 0.0)
    windows, seen = [model.code.write(town(3))] * 8, 0
    for _ in range(3):
        varied = vary_windows(model.code, windows, range(8), reorder=False, shuffled=0.0)
        for window, (left, top, right, bottom) in zip(varied.windows, varied.sites * 128, strict=True):
            strokes = model.code.read(window)
            box = shapely.buffer(shapely.box(left, top, right, bottom), 4.0)
            assert shapely.covered_by(strokes.lines[~strokes.given], box).all()
            inner = shapely.buffer(shapely.box(left, top, right, bottom), -4.0)
            assert not shapely.intersects(strokes.lines[strokes.given], inner).any()
            seen += strokes.given.any() and not strokes.given.all()
    assert seen > 16


SQUARE = np.zeros((64, 64), bool)
SQUARE[24:40, 20:44] = True


def site_of(strokes, free=SQUARE):
    """A real place with a site: its cells, and its lines."""
    lines = shapely.transform(strokes.lines, lambda xy: xy + 128)
    ways = DrawnWays(np.array(WAYS)[strokes.kind], lines, strokes.apart)
    layout = draw_strokes(strokes, WAYS, WAYS, 64, 4.0)
    return Site(layout, free, Grid("EPSG:32633", 386000.0, 6672000.0, 4.0, 64, 64), ways=ways)


def test_the_lines_of_a_place_are_known_around_the_site_and_those_of_kept_channels_there_too():
    site = site_of(town(0))
    ground = shapely.box(80, 96, 176, 160)
    known = site.list_known_ways(["arterial"])
    walks, streets, arterials = (site.ways.lines[site.ways.kind == name] for name in ("walk", "street", "arterial"))
    for name, lines in (("walk", walks), ("street", streets)):
        there = known.lines[known.kind == name]
        assert shapely.length(there).sum() == pytest.approx(shapely.length(shapely.difference(lines, ground)).sum())
        assert not shapely.intersects(there, shapely.buffer(ground, -1e-6)).any()
    assert shapely.length(known.lines[known.kind == "arterial"]).sum() == pytest.approx(shapely.length(arterials).sum())
    assert replace(site, ways=None).list_known_ways([]) is None


def test_a_site_is_redrawn_around_the_lines_of_its_place(model, monkeypatch):
    """Where a place holds lines, nothing is traced."""
    asked = []
    plain = type(model).plan
    monkeypatch.setattr(type(model), "plan", lambda self, *of: asked.append(of[0]) or plain(self, *of))
    monkeypatch.setattr("citygrain.samplers.stroke_plan.trace_ways", None)
    monkeypatch.setattr(turns, "trace_ways", None)
    site = site_of(town(0))
    edit = redraw(model, site, {}, kept=["arterial"])
    (ways,) = asked[0].ways
    expected = site.list_known_ways(["arterial"])
    assert shapely.length(ways.lines).sum() == pytest.approx(shapely.length(expected.lines).sum())
    assert np.array_equal(edit.after.cells[0][:, ~SQUARE], edit.before.cells[0][:, ~SQUARE])


CORNER = np.zeros((64, 64), bool)
CORNER[40:60, 6:25] = True


@pytest.mark.parametrize("bearing", [0, 20, 71])
def test_positions_of_a_frame_are_free_where_the_site_is(model, bearing):
    """The site lies beside the middle, so that a frame that is turned the other way would find it elsewhere."""
    keep = torch.from_numpy(~CORNER).expand(1, 3, 64, 64)
    (plan,) = model.plan(Known(torch.zeros(1, 3, 64, 64), keep), np.ones((1, 3), bool))
    for marked, reach in zip(plan.find_free(bearing), (3.0, 12.0), strict=True):
        at = turn_points((np.argwhere(marked) - model.code.reach) * 4.0, np.radians(bearing)) + 128
        assert len(at) * 16 >= CORNER.sum() * 16 * 0.9
        assert (at.min(0) > (24 - reach, 160 - reach)).all()
        assert (at.max(0) < (100 + reach, 240 + reach)).all()


@pytest.mark.parametrize("angle", [0, 20, 71])
def test_a_way_that_is_cut_off_but_was_not_traced_is_gone_on_from_where_it_is_cut_off(model, angle):
    other = shapely.LineString(turn_points(np.array([[-60.0, -90.0], [90.0, -90.0]]), np.radians(angle)))
    street = shapely.LineString([(-128, 72), (-100, 72)])  # up to the site
    both = Strokes.of_lines(np.array([0, 1]), np.array([other, street]), np.ones(3, bool))
    layout = torch.from_numpy(draw_strokes(both, WAYS, WAYS, 64, 4.0))[None].float() / 255
    ways = DrawnWays(
        np.array(["arterial"]), np.array([shapely.transform(other, lambda xy: xy + 128)]), np.array([False])
    )
    known = Known(layout, torch.from_numpy(~CORNER).expand(1, 3, 64, 64), [ways])
    (plan,) = model.plan(known, np.ones((1, 3), bool))
    assert plan.given.bearing == angle
    (entry,) = plan.entries[1]
    at = turn_points((entry[None] - model.code.reach) * 4.0, np.radians(angle))
    assert np.abs(at - (-106, 72)).max() < 5
